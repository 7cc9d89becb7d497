"""`--dry-run` of submit and render: what a run would be and take. It writes nothing, to the output or to Redis."""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from promptmill.producer.words import count
from promptmill.verbs.growing_options import change_of, start_in
from promptmill.verbs.planning import make_plan, name_run, plan_options, source_names, warn

if TYPE_CHECKING:
    from promptmill.producer.estimate import Measured, Work

F = TypeVar("F", bound=Callable[..., Any])

KINDS = ("v5e", "v6e", "h100", "h200", "cpu")  # producer/estimate.py's, which is loaded lazily; a test compares
LEAST = 0.01  # of money and device-hours: less is not told more exactly


class Range(click.ParamType[Any]):
    """A number, or two with a dash between: `1.2-3.0`."""

    name = "FROM-TO"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        low, dash, high = str(value).partition("-")
        try:
            found = float(low), float(high if dash else low)
        except ValueError:
            found = (1.0, 0.0)
        if not 0 <= found[0] <= found[1] < float("inf"):
            self.fail(f"{value!r} is not a number such as 1.2, or a range such as 1.2-3.0", param, ctx)
        return found


_OPTIONS = (
    click.option("--dry-run", is_flag=True, help="Print what the run would contain and cost; write nothing."),
    click.option("--device", type=click.Choice(KINDS), help="For --dry-run: the devices to estimate for.  [all kinds]"),
    click.option("--devices", type=click.IntRange(1), metavar="N", help="For --dry-run: how many of them.  [1]"),
    click.option(
        "--images-per-s",
        type=click.FloatRange(0, min_open=True),
        metavar="RATE",
        help="For --dry-run: images/s that you measured on one device.  [live workers', bench's, published ones]",
    ),
    click.option(
        "--cost-per-device-hour",
        type=Range(),
        default="1.2-3.0",
        show_default=True,
        metavar="FROM-TO",
        help="For --dry-run: price of a device per hour, in any currency.",
    ),
)


def dry_run_options(function: F) -> F:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def dry_run(
    files: Sequence[str], output: str, run: str | None, broker: str | None, as_json: bool, given: Mapping[str, Any]
) -> int:
    """Says what the run would be; exit code 2 where it would not begin, since rows are wrong."""
    from promptmill.producer import estimate
    from promptmill.producer.growth import preview
    from promptmill.producer.outputs.open import open_output
    from promptmill.producer.presence import find_present

    root, change, sources = open_output(output), change_of(given), source_names(files)
    root.reach()
    said_of_rows = plan_options(given, start_in(root, run, sources, change))
    options = dataclasses.replace(said_of_rows, on_error="skip", rejects=None)
    with make_plan(files, options, needed=False) as plan:
        name = name_run(run, plan, files, root, change)
        known = preview(root.child(name), name, plan, sources, change)
        warn(plan, given["preset"])
        present = find_present(plan, root.child(name))
        works = estimate.work_to_do(plan, present)
        found = estimate.estimates(
            works,
            measured=_measured(broker, given) or _benched(works, given),
            device=given["device"],
            devices=given["devices"],
            cost_per_hour=given["cost_per_device_hour"],
        )
        changes = dataclasses.asdict(known) if known else None
        said = {"run": name, "changes": changes, **estimate.describe(plan, present, works, found, plan.packed_bytes)}
    click.echo(json.dumps(said, ensure_ascii=False) if as_json else report(said, given["cost_per_device_hour"]))
    refusals = [_refusal(said, given["on_error"]), known and known.refusal]
    for refusal in filter(None, refusals):
        click.secho(f"the run would not start: {refusal}", err=True)
    return 2 if any(refusals) else 0


def _refusal(said: Mapping[str, Any], on_error: str) -> str | None:
    """What is wrong with the rows."""
    if said["rejected"] and on_error == "stop":
        return "correct these rows, or skip them with --on-error skip"
    return None if said["jobs"] else "there are no prompts"


def _measured(broker: str | None, given: Mapping[str, Any]) -> "Measured | None":
    """A rate that was seen: the one given, or the live workers'; None where a kind of device is asked for."""
    from promptmill.producer.broker import DEFAULT_URL, connect
    from promptmill.producer.errors import BrokerError
    from promptmill.producer.estimate import given_rate, live_rate
    from promptmill.producer.queue.workers import Workers

    if given["images_per_s"]:
        return given_rate(given["images_per_s"], given["devices"])
    if given["device"]:
        return None
    try:
        return live_rate(Workers(connect(broker or DEFAULT_URL)).alive())
    except BrokerError:
        if broker:
            raise
        return None  # nobody said that there is one


def _benched(works: "Mapping[Work, int]", given: Mapping[str, Any]) -> "Measured | None":
    """What `promptmill bench` measured here, where it measured these models; not where a kind of device is named."""
    from promptmill.producer.measured import bench_rate, kept

    return None if given["device"] else bench_rate(works, kept(), given["devices"])


def report(said: Mapping[str, Any], cost_per_hour: tuple[float, float]) -> str:
    """The dry run in words and numbers, for a person."""
    counts = [
        ("run", said["run"]),
        *([("changes", _changes(said["changes"]))] if said["changes"] else []),
        ("rows", f"{said['rows']:,}, {said['rejected']:,} of them wrong"),
        ("jobs", f"{said['jobs']:,}"),
        ("images", f"{said['images']:,} distinct, {count(said['duplicates'], 'duplicate job', commas=True)}"),
        (
            "truncated",
            f"{count(said['truncated'], 'job', commas=True)} with a prompt longer than its windows of 77 tokens",
        ),
        ("to render", f"{said['to_render']:,}, {said['present']:,} are in the output"),
        *[("shape", f"{count:,} of {key}") for key, count in _most(said["shapes"])],
        ("compiles", f"{said['compiles']} in each worker, one per shape"),
        ("storage", f"about {_bytes(said['image_bytes'])} of images, {_bytes(said['plan_bytes'])} of plan"),
    ]
    lines = [f"{name:<10} {text}" for name, text in counts]
    lines += [line for estimate in said["estimates"] for line in _estimate_lines(estimate, cost_per_hour)]
    if not said["estimates"]:
        lines.append("time       unknown: nothing was measured for these models; --images-per-s says what you saw")
    return "\n".join([*lines, *(f"wrong      {error}" for error in said["rejects"])])


def _changes(found: Mapping[str, Any]) -> str:
    """What is new to a run that is there, gone from it, and in both."""
    return f"{count(found['new'], 'job', commas=True)} new, {found['gone']:,} gone, {found['kept']:,} kept"


def _most(shapes: Mapping[str, int], most: int = 10) -> list[tuple[str, int]]:
    listed = Counter(shapes).most_common(most)
    others = len(shapes) - len(listed)
    rest = (count(others, "other shape"), sum(shapes.values()) - sum(dict(listed).values()))
    return [*listed, rest] if others else listed


def _estimate_lines(estimate: Mapping[str, Any], cost_per_hour: tuple[float, float]) -> list[str]:
    cost, price = _range(estimate["cost"], _amount), _range(cost_per_hour, "{:g}".format)
    return [
        f"{estimate['device']:<10} {_time(estimate['seconds'])} on {estimate['devices']}, "
        f"{_amount(estimate['device_hours'])} device-hours, {cost} at {price} per hour",
        f"           by {estimate['basis']}",
    ]


def _range(ends: Sequence[float], words: Callable[[float], str]) -> str:
    """`1.2 to 3`; of equal ends one."""
    return " to ".join(dict.fromkeys(map(words, ends)))


def _amount(amount: float) -> str:
    if amount < LEAST:
        return f"under {LEAST:g}"
    return f"{amount:,.0f}" if amount >= 100 else f"{amount:.3g}"


def _time(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} s"


def _bytes(count: int) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"
