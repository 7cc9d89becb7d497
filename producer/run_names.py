"""Which run of an output a prompt file means when no name is given: the one it was, also grown, edited or moved."""

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from promptmill.producer.errors import PlanError
from promptmill.producer.growth import Change, begins_with, difference, parts_of
from promptmill.producer.outputs.output import Output
from promptmill.producer.plan import Plan, clean_name
from promptmill.producer.plan_files import clean_sources, load_plan, read_run

READERS = 16  # of run.json files at once
MOST_COMPARED = 8  # plans of one file's runs, the newest: an older one is hardly what was edited

STDIN = ["-"]
"""Sources that say nothing: what comes that way may be another thing each time."""


def find_name(root: Output, stem: str, plan: Plan, sources: Sequence[str], change: Change = Change.NONE) -> str:
    """The name of the run in `root` that has this plan, or that it changes; else a new one.

    Raises PlanError where a `change` is asked for, and no run is there that these files were submitted to.
    """
    default = plan.default_name(stem, root.url)
    if read_run(root.child(default)) is not None:
        return default
    runs = _runs_of(root, clean_name(stem))
    for name, run in runs.items():
        if plan.digest in {run.get("digest"), *(part["digest"] for part in parts_of(run))}:
            return name
    for name, run in runs.items():
        if change is not Change.REPLACE and any(begins_with(plan, part) for part in parts_of(run)):
            return name
    mine = clean_sources(sources)
    edited = [name for name, run in runs.items() if any(part["sources"] == mine for part in parts_of(run))]
    kept = {name: _kept(root.child(name), plan) for name in edited[:MOST_COMPARED] if mine != STDIN}
    best = max(kept, key=lambda name: kept[name], default=None)
    if best is not None and (kept[best] or change is not Change.NONE):
        return best
    if change is Change.APPEND:
        raise PlanError(f"{root.url} has no run of {', '.join(sources)}: name the run to append to with --run NAME")
    return default


def _runs_of(root: Output, stem: str) -> dict[str, Mapping[str, Any]]:
    """The runs whose names were made of this stem, the newest first."""
    made = re.compile(rf"{re.escape(stem)}-[0-9a-f]{{6}}")
    names = [name for name in root.children(f"{stem}-") if made.fullmatch(name)]
    with ThreadPoolExecutor(READERS, "runs") as readers:
        runs = [
            (name, run)
            for name, run in zip(names, readers.map(lambda name: _read(root.child(name)), names), strict=True)
            if run is not None
        ]
    return dict(sorted(runs, key=lambda run: str(run[1].get("created")), reverse=True))


def _read(run_output: Output) -> dict[str, Any] | None:
    """None also for what is no run's, or an older version's: nobody asked for it."""
    try:
        run = read_run(run_output)
        return run if run is not None and parts_of(run) else None
    except (PlanError, KeyError):
        return None


def _kept(run_output: Output, plan: Plan) -> int:
    try:
        with load_plan(run_output) as old:
            return difference(plan, old).kept
    except PlanError:
        return 0
