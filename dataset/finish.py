"""The whole of what makes a dataset of a run: manifest, shards, and the seal over both."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from promptmill.dataset.manifest import MANIFEST, write_manifest
from promptmill.dataset.pack import SHARD_SIZE, SHARDS_JSON, Shard, pack
from promptmill.dataset.seal import write_seal
from promptmill.producer.errors import PromptmillError
from promptmill.producer.layout import RUN_JSON
from promptmill.producer.outputs.output import Existing, Output
from promptmill.producer.plan import Plan
from promptmill.producer.plan_files import page_names, read_run


class UnfinishedError(PromptmillError):
    """A run with images that are still to come."""


def finish(
    output: Output,
    plan: Plan,
    failures: Mapping[int, str],
    *,
    shard_size: int = SHARD_SIZE,
    partial: bool = False,
    progress: Callable[[Shard], None] = lambda shard: None,
) -> dict[str, int]:
    """Write manifest, shards and seal of a run; return how many rows have each state. What is there is left as it is.

    Raises UnfinishedError where images are still to come, unless it may be `partial`; OutputConflict where those of
    other images, or other shards, lie there; OutputError, PlanError.
    """
    with tempfile.TemporaryDirectory(prefix="promptmill-pack-") as folder:
        scratch = Path(folder)
        counts = write_manifest(scratch / MANIFEST, output, plan, failures)
        missing = counts.get("missing", 0)
        if missing and not partial:
            raise UnfinishedError(f"{output.url}: {missing} of {plan.jobs} jobs have neither image nor failure")
        _put_manifest(output, scratch / MANIFEST)
        for shard in pack(output, plan, scratch, shard_size):
            progress(shard)
    pages = page_names(read_run(output) or {})
    write_seal(output, [RUN_JSON, *pages, MANIFEST, SHARDS_JSON])
    return counts


def _put_manifest(output: Output, file: Path) -> None:
    def same_rows(existing: Existing) -> bool:  # another version of pyarrow writes the same rows as other bytes
        try:
            there: bool = pq.read_table(pa.BufferReader(existing.read())).equals(pq.read_table(file))
        except pa.ArrowException:
            return False
        return there

    output.put_file(MANIFEST, file, content_type="application/vnd.apache.parquet", ours=same_rows)
