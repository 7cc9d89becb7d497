"""Mend a run: put back what is broken or missing, each object as the bytes that it was, and touch nothing else.

    run.json, data/shards.json    from their copies in `_SUCCESS`
    the plan                      from the manifest
    images                        from the shards, else rendered anew
    the manifest, shards          built anew of plan and images
    _SUCCESS                      of all of these

What is put back is proven by its digest. Nothing is deleted: whatever stands in the way, or is not the run's, is moved
to `set-aside/0001/`. What would come out with other bytes than before is left, and said; where that is accepted,
manifest, shards and seal are made anew around it.
"""

import hashlib
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path

from promptmill.dataset.aside import Aside
from promptmill.dataset.beside import scratch_beside
from promptmill.dataset.card import CARD
from promptmill.dataset.croissant import CROISSANT
from promptmill.dataset.failures import failure_lines, read_failures
from promptmill.dataset.findings import Finding, LedgerFacts
from promptmill.dataset.finish import card_licence, finish, has_own_card, sealed_names
from promptmill.dataset.listing import Listing, foreign_images, read_listing
from promptmill.dataset.manifest import MANIFEST, write_manifest
from promptmill.dataset.pack import RECORD, SHARDS_JSON
from promptmill.dataset.repair_images import ImageRepair
from promptmill.dataset.repair_shards import broken_shards, mend_shard, options_of, shard_rows
from promptmill.dataset.restore import page_of, text_of
from promptmill.dataset.scores import SCORES, Scores, ScoresError, stored_scores, write_scores
from promptmill.dataset.seal import SUCCESS, seal_text, sha256_of
from promptmill.dataset.steps import Render, Step
from promptmill.dataset.stored_manifest import ManifestError, StoredManifest, open_manifest, scores_in
from promptmill.dataset.subject import Subject
from promptmill.dataset.verify import check_sheet, read_any_seal, read_shards
from promptmill.producer.errors import PlanError
from promptmill.producer.layout import FAILURES, REJECTS, RUN_JSON
from promptmill.producer.outputs.output import Output, OutputUrlError
from promptmill.producer.plan import Plan
from promptmill.producer.plan_files import load_plan, page_names, read_run

__all__ = ["Step", "repair"]

OTHER_BYTES = "comes out with other bytes than before: --accept makes manifest and shards anew"


def repair(
    output: Output, render: Render, *, ledger: LedgerFacts | None = None, accept: bool = False
) -> Iterator[Step]:
    """Mend a run's output, and yield what was done as it is done; what could not be is `left`.

    `render` is called once at most, with the indexes whose images cannot be had otherwise. Raises OutputError.
    """
    with scratch_beside(output, "repair") as scratch:
        yield from _Repair(output, render, ledger, accept, scratch.folder).steps()


class _Repair:
    def __init__(self, output: Output, render: Render, ledger: LedgerFacts | None, accept: bool, scratch: Path) -> None:
        self._output, self._render, self._ledger = output, render, ledger
        self._accept, self._scratch = accept, scratch
        self._aside = Aside(output)
        self._seal, findings = read_any_seal(output)
        self._packed = bool(self._seal.sha256 or findings)
        self._changed: set[int] = set()  # indexes whose images are others than the manifest says
        self._left = 0  # things that packing anew would mend
        self._failures: dict[int, str] = {}

    def steps(self) -> Iterator[Step]:
        yield from self._texts()
        yield from self._pages()
        try:
            plan, run = load_plan(self._output), read_run(self._output) or {}
        except PlanError as error:
            yield Step(RUN_JSON, "left", str(error))
            return
        with plan:
            yield from self._strangers(plan, run)
            self._failures = self._known_failures()
            manifest = self._open_manifest()
            with manifest or nullcontext():
                yield from self._images(plan, run, manifest)
                yield from self._made_of_the_manifest(manifest)
            yield from self._packed_again(plan) if self._packed else ()

    # What is written in `_SUCCESS`, or in the manifest.

    def _texts(self) -> Iterator[Step]:
        for name in self._seal.copies:
            if self._is_broken(name):
                text = text_of(self._seal, name)
                if text is None:
                    yield Step(name, "left", "its copy in _SUCCESS is another one")
                else:
                    yield self._replaced(name, text, "from its copy in _SUCCESS")

    def _pages(self) -> Iterator[Step]:
        try:
            pages = page_names(read_run(self._output) or {})
        except (PlanError, KeyError, TypeError, ValueError):
            return  # told when the plan is loaded
        broken = [number for number, name in enumerate(pages) if self._is_broken(name)]
        manifest = self._open_manifest() if broken else None
        with manifest or nullcontext():
            for number in broken:
                name, page = pages[number], None if manifest is None else page_of(manifest, number)
                if page is not None and hashlib.sha256(page).hexdigest() == self._seal.sha256[name]:
                    yield self._replaced(name, page, "from the manifest")
                else:
                    yield Step(name, "left", "the manifest does not tell what it was")

    def _is_broken(self, name: str) -> bool:
        expected = self._seal.sha256.get(name)
        return expected is not None and sha256_of(self._output, name) != expected

    def _replaced(self, name: str, data: bytes, source: str) -> Step:
        to = self._aside.take(name)
        self._output.put_once(name, data, content_type=_CONTENT_TYPES.get(Path(name).suffix, _ANY_TYPE))
        return Step(name, "restored", f"{source}{_and_aside(to)}")

    def _open_manifest(self) -> StoredManifest | None:
        try:
            return None if self._is_broken(MANIFEST) else open_manifest(self._output)
        except ManifestError:
            return None

    def _known_failures(self) -> dict[int, str]:
        known = dict(self._ledger.failures) if self._ledger else {}
        try:
            return known | read_failures(self._output)
        except (ValueError, KeyError, TypeError):
            return known

    # What is not the run's.

    def _strangers(self, plan: Plan, run: dict[str, object]) -> Iterator[Step]:
        shards = {shard["name"] for shard in read_shards(self._output)}
        pages = {*page_names(run), *self._seal.sha256}
        listing = read_listing(self._output, pages, shards, plan, run)
        with closing(listing.images):
            for finding in self._foreign(listing, plan, bool(shards)):
                yield self._set_aside(finding)
            for finding in check_sheet(self._output, listing):
                yield self._set_aside(finding)

    def _foreign(self, listing: Listing, plan: Plan, shards_known: bool) -> Iterator[Finding]:
        for finding in [*listing.findings, *foreign_images(listing, plan)]:
            # Without a list of shards none can be told from a foreign one.
            if finding.kind == "foreign" and (shards_known or not finding.name.startswith("data/")):
                yield finding

    def _set_aside(self, finding: Finding) -> Step:
        try:
            to = self._aside.take(finding.name)
        except OutputUrlError as error:
            return Step(finding.name, "left", f"{finding.problem}, and cannot be moved: {error}")
        return Step(finding.name, "set aside", f"{finding.problem}: now {to}")

    # What is made of others.

    def _images(self, plan: Plan, run: dict[str, object], manifest: StoredManifest | None) -> Iterator[Step]:
        known = LedgerFacts(plan.digest, b"", {} if manifest else self._failures)
        subject = Subject(self._output, plan, run, manifest, known, self._seal.sha256)
        mending = ImageRepair(subject, self._render, self._aside, self._accept, self._scratch)
        yield from mending.steps()
        self._changed, self._left = mending.changed, mending.left
        self._failures |= mending.failures

    def _made_of_the_manifest(self, manifest: StoredManifest | None) -> Iterator[Step]:
        if manifest is not None and self._is_broken(FAILURES):  # too long for a copy
            text = "".join(failure_lines(manifest)).encode()
            if hashlib.sha256(text).hexdigest() == self._seal.sha256[FAILURES]:
                yield self._replaced(FAILURES, text, "from the manifest")
            else:
                yield Step(FAILURES, "left", "the manifest does not tell what it was")
        if manifest is not None and self._is_broken(SCORES):
            file = self._scratch / SCORES
            write_scores(file, scores_in(manifest))
            if _digest(file) == self._seal.sha256[SCORES]:
                yield self._replaced(SCORES, file.read_bytes(), "from the manifest")
            else:
                yield Step(SCORES, "left", "the manifest does not tell what it was")

    def _packed_again(self, plan: Plan) -> Iterator[Step]:
        if not self._left:
            yield from self._manifest(plan)
        broken = [name for _, names in broken_shards(self._output) for name in names]
        if not self._left:
            yield from self._shards()
        elif not self._accept:
            yield from (Step(name, "left", "what it is made of is left") for name in broken)
        if self._left and self._accept:
            yield from self._accepted(plan, broken)
        elif not self._left and not self._seal.sha256:
            to = self._aside.take(SUCCESS)
            self._output.put_once(SUCCESS, seal_text(self._output, sealed_names(self._output)))
            yield Step(SUCCESS, "rebuilt", f"of the digests of what is there{_and_aside(to)}")

    def _manifest(self, plan: Plan) -> Iterator[Step]:
        manifest = self._open_manifest()
        if manifest is not None:
            with manifest:
                return
        file, expected = self._scratch / MANIFEST, self._seal.sha256.get(MANIFEST)
        write_manifest(file, self._output, plan, self._failures, self._scores(plan))
        if _digest(file) == expected:
            to = self._aside.take(MANIFEST)
            self._output.put_file(MANIFEST, file, content_type=_CONTENT_TYPES[".parquet"])
            yield Step(MANIFEST, "rebuilt", f"of plan and images{_and_aside(to)}")
        else:
            self._left += 1
            if not self._accept:
                yield Step(MANIFEST, "left", OTHER_BYTES)

    def _scores(self, plan: Plan) -> Scores:
        try:
            return stored_scores(self._output, plan.jobs)
        except ScoresError:
            return {}

    def _shards(self) -> Iterator[Step]:
        broken = broken_shards(self._output)
        manifest = self._open_manifest() if broken else None
        with manifest or nullcontext():
            if manifest is None:
                return
            for row, names in broken:
                for step in mend_shard(self._output, manifest.indexed(), row, names, self._aside, self._scratch):
                    self._left += step.action == "left"
                    if step.action == "rebuilt" or not self._accept:
                        yield step

    def _accepted(self, plan: Plan, broken: list[str]) -> Iterator[Step]:
        """Pack anew around what is there by now. Shards with the same images stay."""
        rows, options = shard_rows(self._output), options_of(self._output)
        touched = {row["name"] for row in rows if self._changed & set(range(row["first"], row["end"]))}
        keep = {RUN_JSON, REJECTS, SCORES, *page_names(read_run(self._output) or {})}
        made = {*self._seal.sha256, MANIFEST, RECORD, FAILURES, SHARDS_JSON, CROISSANT, SUCCESS} - keep
        made |= {CARD} if has_own_card(self._output) else set()
        licence = card_licence(self._output)
        for name in sorted({*made, *broken, *touched}):
            to = self._aside.take(name)
            if to:
                yield Step(name, "set aside", f"to be made anew: now {to}")
        finish(self._output, plan, self._failures, options=options, partial=True, licence=licence)
        yield Step(SUCCESS, "rebuilt", "with manifest and shards of what is there now")


_ANY_TYPE = "application/octet-stream"
_CONTENT_TYPES = {
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".parquet": "application/vnd.apache.parquet",
    ".tar": "application/x-tar",
    ".zst": "application/zstd",
}


def _and_aside(to: str) -> str:
    return f"; what was there is now {to}" if to else ""


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
