"""Compiled programs kept over restarts, by XLA's own cache on disk."""

import logging
import os
from pathlib import Path

import jax

logger = logging.getLogger(__name__)


def keep_compiled_programs(folder: Path) -> None:
    """Let XLA keep its programs in `folder` over restarts, if nobody else can write there: what it holds is run.

    JAX_COMPILATION_CACHE_DIR, where it is set, names the folder instead.
    """
    folder = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or folder)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        logger.warning("compiled programs are not kept: %s", error)
        return
    if folder.stat().st_mode & 0o022:
        logger.warning("compiled programs are not kept: others may write in %s", folder)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
