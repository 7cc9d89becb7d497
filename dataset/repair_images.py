"""The images of a repair: from the shards that hold them, else rendered anew."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from promptmill.dataset.aside import Aside
from promptmill.dataset.findings import Finding
from promptmill.dataset.images import ImageError, look_at
from promptmill.dataset.manifest import Row, whole_image
from promptmill.dataset.repair_shards import ShardRow, shard_rows
from promptmill.dataset.restore import images_in
from promptmill.dataset.steps import Render, Step
from promptmill.dataset.subject import Subject
from promptmill.dataset.verify_images import check_images
from promptmill.producer.job import canonical_json
from promptmill.producer.layout import IMAGES, image_metadata
from promptmill.producer.outputs.output import ObjectNotFound

_COLUMNS = ("index", "id", "state", "sha256", "worker", "render_s")


class ImageRepair:
    """State: what the steps have found out. `changed` are indexes whose images are others than the manifest says."""

    def __init__(self, subject: Subject, render: Render, aside: Aside, accept: bool, scratch: Path) -> None:
        self._subject, self._render, self._aside = subject, render, aside
        self._accept, self._scratch = accept, scratch
        self.changed: set[int] = set()
        self.failures: dict[int, str] = {}
        self.left = 0

    def steps(self) -> Iterator[Step]:
        wrong: dict[int, Finding] = {}
        for finding in check_images(self._subject):
            if finding.name.startswith(f"{IMAGES}/") and finding.index is not None:
                if finding.kind != "redis":
                    wrong[finding.index] = finding
            else:
                self.left += 1
                yield Step(finding.name, "left", finding.problem, finding.index)
        rows = self._rows(wrong)
        known = [index for index in wrong if index not in rows or rows[index]["sha256"] is not None]
        yield from self._unpacked([wrong[index] for index in wrong.keys() - set(known)])
        restored = set()
        for step in self._from_shards([rows[index] for index in known if index in rows]):
            restored.add(step.index)
            yield step
        to_render = {index for index in known if index not in restored}
        to_render |= {index for index in self.changed if wrong[index].kind in ("gone", "damaged")}
        yield from self._rendered(sorted(to_render), rows) if to_render else ()

    def _rows(self, wrong: dict[int, Finding]) -> dict[int, Row]:
        manifest = self._subject.manifest
        rows = manifest.rows(_COLUMNS) if manifest is not None and wrong else iter(())
        return {row["index"]: row for row in rows if row["index"] in wrong}

    def _unpacked(self, findings: Sequence[Finding]) -> Iterator[Step]:
        """Images that the run was packed without: there or not, to have them means to pack anew."""
        for finding in findings:
            self.left += 1
            if self._accept and finding.index is not None:
                self.changed.add(finding.index)
            else:
                told = f"{finding.problem}; the run was packed without it: --accept packs it anew with it"
                yield Step(finding.name, "left", told, finding.index)

    def _from_shards(self, rows: Sequence[Row]) -> Iterator[Step]:
        found, extension = set[int](), self._subject.plan.encoding.extension
        for shard in shard_rows(self._subject.output) if rows else ():
            inside = [
                row for row in rows if shard["first"] <= row["index"] < shard["end"] and row["index"] not in found
            ]
            for index, data in (
                images_in(self._subject.output, shard, inside, extension, self._scratch) if inside else ()
            ):
                found.add(index)
                yield self._put(next(row for row in inside if row["index"] == index), data, shard)

    def _put(self, row: Row, data: bytes, shard: ShardRow) -> Step:
        facts, run, index = look_at(data), str(self._subject.run.get("run", "")), row["index"]
        name = self._subject.plan.image_name(next(self._subject.plan.at([index])).id)
        to = self._aside.take(name)
        record = json.loads(canonical_json(dict(facts.record)))
        who = {"worker": row.get("worker"), "render_s": row.get("render_s")}
        metadata = image_metadata(str(facts.job_id), run, index, record, **who)
        self._subject.output.put_once(
            name, data, content_type=self._subject.plan.encoding.row.content_type, metadata=metadata
        )
        return Step(name, "restored", f"from {shard['name']}{f'; what was there is now {to}' if to else ''}", index)

    def _rendered(self, indexes: Sequence[int], rows: dict[int, Row]) -> Iterator[Step]:
        plan = self._subject.plan
        taken = {planned.index: self._aside.take(plan.image_name(planned.id)) for planned in plan.at(indexes)}
        self.failures = dict(self._render(plan, indexes))
        for planned in plan.at(indexes):
            name, index, to = plan.image_name(planned.id), planned.index, taken[planned.index]
            aside = f"what was there is now {to}" if to else ""
            expected = rows[index]["sha256"] if index in rows else None
            try:
                facts = whole_image(self._subject.output.get(name), plan.whole(planned), decode=True)
            except (ObjectNotFound, ImageError) as error:
                self.left += 1
                self.changed.add(index)
                reason = self.failures.get(index, str(error))
                yield Step(name, "left", f"could not be rendered: {reason}", index)
                continue
            if expected is not None and facts.sha256 != expected:
                self.left += 1
                self.changed.add(index)
                told = "was rendered anew, with other bytes than before (other settings, version or accelerator)"
                yield Step(name, "left" if not self._accept else "rendered", told, index)
            else:
                yield Step(name, "rendered", aside, index)
