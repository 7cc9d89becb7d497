"""Objects of a packed run made anew from the others: each is proven by the digest that it had.

run.json, data/shards.json, ...    their copies in `_SUCCESS`
a file of the plan                 the manifest, which has every field, label and choice
an image                           the shard that holds it
"""

import hashlib
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from promptmill.dataset.manifest import JOB_COLUMNS, Row
from promptmill.dataset.seal import PIECE_BYTES, Seal, sha256_of
from promptmill.dataset.stored_manifest import ManifestError, StoredManifest
from promptmill.producer.errors import JobError
from promptmill.producer.job import Job
from promptmill.producer.outputs.output import ObjectNotFound, Output
from promptmill.producer.plan_builder import pack_lines
from promptmill.producer.plan_lines import plan_line


def text_of(seal: Seal, name: str) -> bytes | None:
    """The object's bytes by its copy in the seal, None where there is none, or it is not what the digest says."""
    copy = seal.copies.get(name, "").encode()
    return copy if hashlib.sha256(copy).hexdigest() == seal.sha256.get(name) else None


def page_of(manifest: StoredManifest, number: int) -> bytes | None:
    """A file of the plan by the manifest's row group, None where that cannot be read, or says less."""
    try:
        return pack_lines([_plan_line(row) for row in manifest.rows(group=number)])
    except (ManifestError, JobError, TypeError, ValueError, KeyError, IndexError):
        return None


def _plan_line(row: Row) -> str:
    job = Job(**{name: row[name] for name in JOB_COLUMNS if row[name] is not None})
    drawn = f',"template":{row["template"]},"choices":{row["choices"]}' if row["template"] else ""
    return plan_line(row["id"], row["index"], job.to_json(), row["labels"], drawn)


def images_in(
    output: Output, shard: Mapping[str, Any], rows: Sequence[Row], extension: str, scratch: Path
) -> Iterator[tuple[int, bytes]]:
    """The images of these rows, as the shard holds them, by index: those that are what the manifest says."""
    beside = {image["sha256"]: image["name"] for image in shard.get("images", ())}
    for row in rows:
        if row["sha256"] in beside and sha256_of(output, beside[row["sha256"]]) == row["sha256"]:
            yield row["index"], output.get(beside[row["sha256"]])
    if not shard["name"].endswith(".tar"):
        return
    with tempfile.TemporaryFile(dir=scratch) as file:
        try:
            at = 0
            while piece := output.read(shard["name"], at, PIECE_BYTES):
                file.write(piece)
                at += len(piece)
        except ObjectNotFound:
            return
        file.seek(0)
        wanted = {f"{row['index']:09d}.{extension}": row for row in rows}
        for name, data in _members(file, wanted):
            if hashlib.sha256(data).hexdigest() == wanted[name]["sha256"]:
                yield wanted[name]["index"], data


def _members(file: Any, wanted: Mapping[str, Row]) -> Iterator[tuple[str, bytes]]:
    """As far as the tar can be read."""
    try:
        with tarfile.open(fileobj=file) as tar:
            for member in tar:
                content = tar.extractfile(member) if member.name in wanted and member.isreg() else None
                if content is not None:
                    yield member.name, content.read()
    except (tarfile.TarError, OSError, ValueError, EOFError):
        return
