"""From a model's name to a folder: one that is there, one from the hub, or the one that is built in."""

import atexit
import contextlib
import logging
import os
import re
import stat
import tempfile
from collections.abc import Sequence
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

from promptmill.producer.errors import ModelNameError
from promptmill.producer.models import BUILT_IN, POCKET, POCKET_FOLDER, TINY_RANDOM, resolve_model
from promptmill.producer.scratch import appearing_whole, scratch_folder, user_cache
from promptmill.worker.errors import ModelNotFoundError
from promptmill.worker.sdxl.tiny import TINY_VERSION, write_tiny_random

logger = logging.getLogger(__name__)

# Of a hub repository, what rendering reads: no pickles, no ONNX, no single files beside the folders.
_COMPONENTS = ("scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "vae")
_PATTERNS = ["model_index.json"] + [
    f"{name}/*.{ending}" for name in _COMPONENTS for ending in ("safetensors", "json", "txt")
]


_FULL_PRECISION = re.compile(r"(diffusion_pytorch_)?model(-\d+-of-\d+)?\.safetensors")


def find_model(name: str) -> Path:
    """The diffusers folder of a model: built in, a path, or a hub id, as `resolve_model` reads names.

    A hub id is `owner/name`, as in `stabilityai/stable-diffusion-xl-base-1.0`. Raises ModelNotFoundError.
    """
    try:
        model = resolve_model(name)
    except ModelNameError as error:
        raise ModelNotFoundError(str(error)) from error
    if model == POCKET:
        return POCKET_FOLDER
    if model == TINY_RANDOM:
        return _tiny_random(cache_folder() / f"{TINY_RANDOM}-v{TINY_VERSION}")
    return Path(model) if Path(model).is_absolute() else _from_hub(model)


def _tiny_random(folder: Path) -> Path:
    if not folder.exists():
        with contextlib.suppress(FileExistsError), appearing_whole(folder) as unfinished:  # another was faster
            write_tiny_random(unfinished)
    return folder


def _from_hub(name: str) -> Path:
    from huggingface_hub import list_repo_files, snapshot_download  # which takes a tenth of a second to import
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, wanted = name.partition("@")
    revision = wanted or None
    try:
        try:
            patterns = wanted_files(list_repo_files(repository, revision=revision))
        except (HfHubHTTPError, OSError):  # no network: what was downloaded before, or the reason why there is nothing
            patterns = _PATTERNS
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelNotFoundError(
            f"{name}: is neither {' nor '.join(BUILT_IN)}, nor a folder, nor a model found on the hub: {error}"
        ) from error


def wanted_files(names: Sequence[str]) -> list[str]:
    """Of a repository's files, those that rendering reads, and of several precisions the full one alone.

    SDXL's own repository holds each weight in float32 and again in float16: 14 GB, and 7 GB that nobody would read.
    """
    useful = [name for name in names if any(fnmatch(name, pattern) for pattern in _PATTERNS)]
    weights = [name for name in useful if name.endswith(".safetensors")]
    full = [name for name in weights if _FULL_PRECISION.fullmatch(name.rpartition("/")[2])]
    has_full = {name.partition("/")[0] for name in full}
    variants = [name for name in weights if name.partition("/")[0] not in has_full]
    return [name for name in useful if name not in weights] + full + variants


@cache
def cache_folder() -> Path:
    """This user's own: weights are only data, but what strangers can write, nobody should load.

    Where the home cannot be written, it is a folder of this user's among the temporary ones, with a warning.
    """
    try:
        folder = user_cache()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
        problem = f"{folder} cannot be written"
    except (OSError, RuntimeError) as error:  # RuntimeError: this user has no home
        problem = str(error)
    folder = Path(tempfile.gettempdir()) / f"promptmill-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        until_the_end = contextlib.ExitStack()
        atexit.register(until_the_end.close)
        folder = until_the_end.enter_context(scratch_folder("cache")).folder
    logger.warning("no folder to keep compiled programs in: %s; they go to %s", problem, folder)
    return folder
