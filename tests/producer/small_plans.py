"""Plans of a few jobs, and what of them lies in an output."""

import json
from typing import Any

import zstandard

from promptmill.producer.job import Job
from promptmill.producer.outputs.output import Output
from promptmill.producer.plan import Plan
from tests.plans import plan_of_jobs

PLAN_FILE_JOBS = 4


def some_jobs(count: int, word: str = "image") -> list[Job]:
    return [Job(prompt=f"{word} {n}", seed=n, width=64, height=64) for n in range(count)]


def ids(plan: Plan) -> list[str]:
    return [job.id for job in plan]


def plan_of(count: int, word: str = "image") -> Plan:
    return plan_of_jobs(some_jobs(count, word))


def plan_lines_of(output: Output) -> list[dict[str, Any]]:
    names = sorted(output.list("plan/"))
    text = "".join(zstandard.ZstdDecompressor().decompress(output.get(name)).decode() for name in names)
    return [json.loads(line) for line in text.splitlines()]


def contents(output: Output) -> dict[str, bytes]:
    return {name: output.get(name) for name in output.list()}
