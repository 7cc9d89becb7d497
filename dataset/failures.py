"""`failures.jsonl`: a line for each index of a packed run that has no image, with the reason where one is known.

With it the manifest can be made anew when Redis has long forgotten the run.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from promptmill.dataset.stored_manifest import StoredManifest
from promptmill.producer.job import canonical_json
from promptmill.producer.layout import FAILURES
from promptmill.producer.outputs.output import ObjectNotFound, Output

_COLUMNS = ("index", "id", "state", "reason")


def put_failures(output: Output, scratch: Path, *, renew: bool = False) -> None:
    """Write the file by the manifest that is there, if there are any; `renew`: in place of an earlier one.

    Raises OutputError, ManifestError.
    """
    file = scratch / FAILURES
    with StoredManifest(output) as manifest, file.open("w", encoding="utf-8", newline="\n") as lines:
        lines.writelines(failure_lines(manifest))
    if file.stat().st_size or (renew and output.exists(FAILURES)):
        output.put_file(FAILURES, file, content_type="application/jsonl", broken=lambda existing: renew)


def failure_lines(manifest: StoredManifest) -> Iterator[str]:
    """A line of JSON for each row without an image."""
    for row in manifest.rows(_COLUMNS):
        if row["state"] != "done":
            yield f"{canonical_json(row)}\n"


def read_failures(output: Output) -> dict[int, str]:
    """The reasons of failed jobs by index; none where there is no such file. Raises ValueError, KeyError, TypeError for
    one that is not as it was written, OutputError."""
    try:
        rows = [json.loads(line) for line in output.get(FAILURES).splitlines()]
    except ObjectNotFound:
        return {}
    return {int(row["index"]): str(row["reason"]) for row in rows if row["state"] == "failed"}
