"""A packed run onto the Hugging Face hub: what `load_dataset` and people need of it, the card last."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from promptmill.dataset.card import CARD
from promptmill.dataset.croissant import CROISSANT
from promptmill.dataset.manifest import MANIFEST
from promptmill.dataset.object_file import open_object
from promptmill.dataset.pack import SHARDS_JSON
from promptmill.dataset.seal import SUCCESS
from promptmill.producer.errors import PromptmillError
from promptmill.producer.layout import CONTACT_SHEET, RUN_JSON
from promptmill.producer.outputs.output import Output
from promptmill.producer.words import count

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

COMMIT_FILES, COMMIT_BYTES = 100, 5 * 10**9
"""Of one commit at most: what is stopped goes on after its last commit."""

DESCRIPTIONS = (MANIFEST, SHARDS_JSON, RUN_JSON, CROISSANT, CONTACT_SHEET, CARD)


class PushError(PromptmillError):
    """What cannot be pushed, or a hub that refuses; the text says why."""


@dataclass(frozen=True)
class Upload:
    """An object of the run that goes onto the hub. `sha256` is known of shards."""

    name: str
    bytes: int
    sha256: str | None = None


def uploads(output: Output) -> list[Upload]:
    """What is to go, in order. Raises PushError for a run that is not packed, OutputError."""
    if not output.exists(SUCCESS):
        raise PushError(f"{output.url} is not packed: promptmill pack first")
    found = []
    for shard in json.loads(output.get(SHARDS_JSON))["shards"]:
        found += [Upload(one["name"], one["bytes"], one["sha256"]) for one in (*shard["images"], shard)]
    sizes = {listed.name: listed.size for name in DESCRIPTIONS for listed in output.scan(name)}
    return found + [Upload(name, sizes[name]) for name in DESCRIPTIONS if name in sizes]


def push(
    output: Output,
    repo: str,
    api: "HfApi",
    *,
    private: bool = False,
    revision: str | None = None,
    progress: Callable[[Upload], None] = lambda upload: None,
) -> int:
    """Bring what the dataset repository lacks there, in several commits; return how many files went.

    Raises PushError where the hub cannot be reached, or refuses; OutputError.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    todo = uploads(output)
    refusals: tuple[type[Exception], ...] = (*HfHubHTTPError.__bases__, HFValidationError)  # its HTTP client's too
    try:
        api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
        there = _there(api, repo, revision)
        todo = [upload for upload in todo if upload.sha256 is None or there.get(upload.name) != upload.sha256]
        for batch in _batches(todo):
            what = f"{count(len(batch), 'file')} of {output.url.rpartition('/')[2]}"
            api.create_commit(
                repo,
                [operation(output, upload) for upload in batch],
                commit_message=f"promptmill push: {what}",
                repo_type="dataset",
                revision=revision,
            )
            for upload in batch:
                progress(upload)
    except refusals as error:
        raise PushError(
            f"{repo}: {str(error).strip().splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    return len(todo)


def operation(output: Output, upload: Upload) -> "CommitOperationAdd":
    """The object as huggingface_hub takes it, read piece by piece."""
    from huggingface_hub import CommitOperationAdd

    return CommitOperationAdd(upload.name, open_object(output, upload.name, upload.bytes))


def _there(api: "HfApi", repo: str, revision: str | None) -> dict[str, Any]:
    """The digests of the repository's large files by name."""
    tree = api.list_repo_tree(repo, repo_type="dataset", revision=revision, recursive=True)
    large = ((file.path, getattr(file, "lfs", None)) for file in tree)
    return {path: lfs.sha256 for path, lfs in large if lfs is not None}


def _batches(todo: Iterable[Upload]) -> Iterator[list[Upload]]:
    batch, size = list[Upload](), 0
    for upload in todo:
        if batch and (len(batch) == COMMIT_FILES or size + upload.bytes > COMMIT_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(upload)
        size += upload.bytes
    if batch:
        yield batch
