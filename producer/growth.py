"""A run's plan that changes: rows that were appended, another file's rows, an edited file.

`run.json` keeps under `parts` what was submitted: of each its files, the index from which its seeds were counted, the
number of its jobs and their digest; and, without files, ranges of seeds that rows got otherwise (arrivals.py). Under
`earlier` are the digests of the plans that the run had, so that a ledger which still has one of them can follow. Files
of the plan are written once; those that a change makes are named by what they hold. `run.json` comes last, in one step,
and only where it is what the change began from. So a change that was killed has not happened, and the same command
makes it.
"""

import contextlib
import datetime
import enum
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from promptmill.producer.arrivals import Arrivals, arrivals
from promptmill.producer.errors import PlanError
from promptmill.producer.image_formats import Encoding
from promptmill.producer.layout import MANIFEST, RUN_JSON
from promptmill.producer.outputs.output import Output, OutputConflict, Put
from promptmill.producer.plan import Plan
from promptmill.producer.plan_builder import SHAPE_BITS, PlanBuilder, unpack
from promptmill.producer.plan_files import (
    clean_sources,
    describe_run,
    load_plan,
    page_names,
    put_changed_pages,
    read_run,
    write_plan,
)
from promptmill.producer.plan_lines import PlanReader, with_seed
from promptmill.producer.prompts.seeds import next_range
from promptmill.producer.words import are

_ID_AT = slice(len('{"id":"'), len('{"id":"') + 32)  # of a line of the plan


class Change(enum.Enum):
    """What may become of a run's plan when another one is submitted."""

    NONE = "none"
    """Nothing, unless rows were appended."""
    APPEND = "append"
    """What is new comes behind it."""
    REPLACE = "replace"
    """It is the new one. Images that both mean stay."""


@dataclass(frozen=True)
class Difference:
    """Distinct jobs: in the new plan alone, in the old one alone, in both. `known` has a 1 for each index of the new
    plan whose job is in both."""

    new: int
    gone: int
    kept: int
    known: bytearray


@contextlib.contextmanager
def placed(
    run_output: Output, run: str, plan: Plan, sources: Sequence[str] = (), change: Change = Change.NONE
) -> Iterator[Plan]:
    """`place_plan`, with the run's plan closed in the end where it is another one than was given."""
    there = place_plan(run_output, run, plan, sources, change)
    with contextlib.nullcontext(there) if there is plan else there:
        yield there


def place_plan(
    run_output: Output, run: str, plan: Plan, sources: Sequence[str] = (), change: Change = Change.NONE
) -> Plan:
    """Writes the run's plan, or changes it to what this one asks for; returns the run's plan, which may be another one.

    Raises PlanError where that would need a `change` which nobody asked for, OutputError.
    """
    known = read_run(run_output)
    if known is None:
        write_plan(run_output, run, plan, sources)
        return plan
    _take_encoding(plan, run, run_output, known)
    if plan.digest == known.get("digest"):
        plan.common = dict(known["settings"])
        return plan
    parts, sources = parts_of(known), clean_sources(sources)
    if change is not Change.REPLACE:
        if any(part["digest"] == plan.digest for part in parts):
            return load_plan(run_output)
        grown = next((number for number, part in enumerate(parts) if begins_with(plan, part)), None)
        if grown is not None:
            had = int(parts[grown]["jobs"])
            parts[grown] = _part(plan, parts[grown]["sources"], parts[grown])
            return _grow(run_output, known, plan, parts, lambda index: index >= had)
    if change is Change.REPLACE:
        return _replace(run_output, run, known, plan, sources)
    found = _difference_to(run_output, plan)
    if change is Change.NONE:
        raise PlanError(_refusal(run, run_output, sources, found))
    edited = next((number for number, part in enumerate(parts) if part["sources"] == sources), None)
    if sources and edited is None:  # another file: all of its rows, also those that mean a job which is there
        return _grow(run_output, known, plan, [*parts, _part(plan, sources)], lambda index: True)
    if sources and edited is not None:
        parts[edited] = _part(plan, sources, parts[edited])
    else:
        parts.append(_part(plan, sources))
    return _grow(run_output, known, plan, parts, lambda index: not found.known[index], edited=True)


@dataclass(frozen=True)
class Preview:
    """What a submission finds in a run that is there, in distinct jobs; why it would be refused, or None."""

    new: int
    gone: int
    kept: int
    refusal: str | None


def preview(
    run_output: Output, run: str, plan: Plan, sources: Sequence[str] = (), change: Change = Change.NONE
) -> Preview | None:
    """What `place_plan` would find, with nothing written; None for a run that is not there. Raises PlanError."""
    known = read_run(run_output)
    if known is None:
        return None
    found = _difference_to(run_output, plan)
    mine = any(part["sources"] == clean_sources(sources) for part in parts_of(known))
    if change is Change.APPEND and mine:
        found = _difference_beside(run_output, plan, found)
    agrees = plan.digest == known.get("digest") or change is not Change.NONE
    agrees = agrees or any(plan.digest == part["digest"] or begins_with(plan, part) for part in parts_of(known))
    refusal = None if agrees else _refusal(run, run_output, clean_sources(sources), found)
    return Preview(found.new, found.gone, found.kept, refusal)


def _take_encoding(plan: Plan, run: str, run_output: Output, known: Mapping[str, Any]) -> None:
    """The plan's images are written as the run's. Raises PlanError where others were asked for."""
    there = Encoding.of_run(known)
    if plan.asked not in (None, there):
        raise PlanError(
            f"run {run!r} at {run_output.url} has images as {there}, not {plan.asked}: "
            "leave out --image-format, or begin another run (--run)"
        )
    plan.asked = there


def parts_of(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was submitted to the run, in order."""
    whole = {"sources": run["sources"], "start": 0, "jobs": run["jobs"], "digest": run["digest"]}
    if "seeds_end" in run:
        whole["seeds_end"] = run["seeds_end"]
    return [dict(part) for part in run.get("parts", [whole])]


def start_of(run: Mapping[str, Any] | None, sources: Sequence[str], change: Change) -> int:
    """The index from which the seeds of these files' rows are counted in the run."""
    if run is None or change is Change.REPLACE or not sources:
        return 0
    parts = parts_of(run)
    known = next((int(part["start"]) for part in parts if part["sources"] == clean_sources(sources)), None)
    if known is not None or change is not Change.APPEND:
        return known or 0
    return next_range(max(_seeds_end(part) for part in parts))


def changes_since(run: Mapping[str, Any], digest: str) -> Change | None:
    """How the plan of this digest became the run's, NONE where it is; None for a digest that the run never had."""
    if digest == run["digest"]:
        return Change.NONE
    earlier = run.get("earlier", [])
    at = next((at for at, plan in enumerate(earlier) if plan["digest"] == digest), None)
    if at is None:
        return None
    replaced = any(plan["change"] == Change.REPLACE.value for plan in earlier[at:])
    return Change.REPLACE if replaced else Change.APPEND


def begins_with(plan: Plan, part: Mapping[str, Any]) -> bool:
    """Whether the plan's first jobs are those of the part."""
    jobs = int(part["jobs"])
    if plan.jobs <= jobs:
        return False
    digest = hashlib.sha256()
    for number in range(-(-jobs // plan.page_jobs)):
        ids = [line[_ID_AT] for line in unpack(plan.pages[number])]
        digest.update("".join(ids[: jobs - number * plan.page_jobs]).encode())
    return digest.hexdigest() == part["digest"]


def difference(plan: Plan, old: Plan) -> Difference:
    """How two plans differ, by their jobs' ids."""
    known = bytearray(plan.jobs)
    new = gone = kept = 0
    for first_byte in range(256):
        olds = {digest for digest, _ in old.heaps.heap(first_byte)}
        news = set()
        for digest, number in plan.heaps.heap(first_byte):
            news.add(digest)
            known[number >> SHAPE_BITS] = digest in olds
        new, gone, kept = new + len(news - olds), gone + len(olds - news), kept + len(news & olds)
    return Difference(new, gone, kept, known)


def extended(old: Plan, plan: Plan, came: Arrivals) -> Plan:
    """The old plan, and behind it what came of the other."""
    with contextlib.ExitStack() as stack:
        built = PlanBuilder(stack, old.page_jobs)
        shapes: dict[str, int] = {}
        reader = PlanReader(old.common)
        for line in _lines(old):
            _add(built, shapes, reader, line)
        for index, line in enumerate(_lines(plan)):
            if came.new[index]:
                seed = came.seeds.get(index)
                _add(built, shapes, reader, line if seed is None else with_seed(line, seed))
        digest = built.finish()
        grown = Plan(
            built.pages,
            built.heaps,
            digest=digest,
            shape_keys=list(shapes),
            common=old.common,
            page_jobs=built.page_jobs,
            start=plan.start,
            asked=old.asked,
        )
        stack.pop_all()  # from here on, closing the files is the plan's
        return grown


def _lines(plan: Plan) -> Iterator[str]:
    for number in range(len(plan.pages)):
        yield from unpack(plan.pages[number])


def _add(built: PlanBuilder, shapes: dict[str, int], reader: PlanReader, line: str) -> None:
    job = reader.job(line, False)
    shape = shapes.setdefault(job.shape_key, len(shapes))
    _, key, rest = line.partition('"job":')
    built.add(bytes.fromhex(job.id), job.id, shape, f'{{"id":"{job.id}","index":{built.count},{key}{rest}')


def _difference_to(run_output: Output, plan: Plan) -> Difference:
    with load_plan(run_output) as old:
        return difference(plan, old)


def _difference_beside(run_output: Output, plan: Plan, found: Difference) -> Difference:
    """The same where rows that only moved are what they were."""
    with load_plan(run_output) as old:
        new = sum(arrivals(old, plan, lambda index: not found.known[index], 0, edited=True).new)
    moved = found.new - new
    return Difference(new, found.gone - moved, found.kept + moved, found.known)


def _grow(
    run_output: Output,
    known: Mapping[str, Any],
    plan: Plan,
    parts: list[dict[str, Any]],
    takes: Callable[[int], bool],
    *,
    edited: bool = False,
) -> Plan:
    old_jobs = int(known["jobs"])
    if begins_with(plan, known) and plan.page_jobs == known["jobs_per_plan_file"]:
        grown = plan
        grown.common = dict(known["settings"])
    else:
        start = next_range(max(_seeds_end(part) for part in parts))
        with load_plan(run_output) as old:
            came = arrivals(old, plan, takes, start, edited=edited)
            grown = extended(old, plan, came)
        if came.seeds:
            parts.append({"sources": [], "start": start, "jobs": 0, "digest": "", "seeds_end": came.seeds_end})
    same = {"sources": [source for part in parts for source in part["sources"]], "settings": known["settings"]}
    _rewrite(run_output, known, grown, Change.APPEND, parts, old_jobs // grown.page_jobs, same)
    return grown


def _replace(run_output: Output, run: str, known: Mapping[str, Any], plan: Plan, sources: Sequence[str]) -> Plan:
    said = describe_run(run_output, run, plan, sources)
    parts = [_part(plan, said["sources"])]
    said = {name: said[name] for name in ("sources", "settings", "rejected", "jobs_per_plan_file")}
    _rewrite(run_output, known, plan, Change.REPLACE, parts, 0, said)
    return plan


def _part(plan: Plan, sources: Sequence[str], before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What was submitted; `before`: in the place of this, whose seeds the run still has."""
    said = {"sources": list(sources), "start": plan.start, "jobs": plan.jobs, "digest": plan.digest}
    return {**said, "seeds_end": max(plan.seeds_end, _seeds_end(before) if before else 0)}


def _seeds_end(part: Mapping[str, Any]) -> int:
    return int(part.get("seeds_end", part["start"] + part["jobs"]))


def _check_seeds(parts: Sequence[Mapping[str, Any]]) -> None:
    """Raises PlanError where rows of two parts would share seeds: one has grown into the room of another."""
    ordered = sorted(parts, key=lambda part: int(part["start"]))
    for part, behind in pairwise(ordered):
        if int(part["start"]) < int(behind["start"]) < _seeds_end(part):
            mine, others = ", ".join(part["sources"]) or "this part", ", ".join(behind["sources"]) or "another part"
            raise PlanError(
                f"{mine} has grown into the seeds of {others}, and rows would share them by accident: "
                "submit the new rows as a file of their own (--append)"
            )


def _rewrite(
    run_output: Output,
    known: Mapping[str, Any],
    plan: Plan,
    change: Change,
    parts: list[dict[str, Any]],
    from_page: int,
    more: Mapping[str, Any],
) -> None:
    """The changed files of the plan, and then `run.json`. Raises PlanError where that is another one by now."""
    _check_seeds(parts)
    if run_output.exists(MANIFEST):
        raise PlanError(f"{run_output.url} is packed: its plan stays as it is; submit to another run (--run)")
    pages = put_changed_pages(run_output, page_names(known), plan, from_page)
    new = {
        **known,
        **more,
        "jobs": plan.jobs,
        "images": plan.images,
        "plan_files": len(pages),
        "plan_names": pages,
        "digest": plan.digest,
        "shapes": {shape.key: count for shape, count in plan.shapes.items()},
        "parts": parts,
        "earlier": [*known.get("earlier", []), {"digest": known["digest"], "change": change.value}],
        "changed": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    text = json.dumps(new, indent=2, ensure_ascii=False) + "\n"
    try:
        put = run_output.put_once(
            RUN_JSON,
            text.encode(),
            content_type="application/json",
            broken=lambda existing: json.loads(existing.read()) == known,
        )
    except OutputConflict:
        put = Put.CREATED
    if put is not Put.REPLACED:
        raise PlanError(f"{run_output.url}: another submission changed its plan at the same time; submit again")


def _refusal(run: str, run_output: Output, sources: Sequence[str], found: Difference) -> str:
    what = ", ".join(sources) or "this submission"
    return (
        f"run {run!r} at {run_output.url} has another plan than {what}: "
        f"{are(found.new, 'job')} new, {found.gone} gone, {found.kept} kept; --append renders what is new "
        "beside the rest (rows that only moved are not), "
        "--replace-plan makes this the run's plan and keeps the images that both mean, "
        "another name (--run) or output begins another run"
    )
