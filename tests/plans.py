"""Plans for tests, and their jobs as a list."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from promptmill.producer.job import Job
from promptmill.producer.plan import Plan, PlanOptions, plan_jobs, plan_run


def jobs_in(plan: Plan) -> list[Job]:
    return [plan.whole(job) for job in plan]


def plan_of_jobs(jobs: Iterable[Job]) -> Plan:
    return plan_jobs(jobs, PlanOptions())


def read_jobs(paths: Iterable[Path], defaults: Mapping[str, Any], preset: str | None = None) -> list[Job]:
    """The jobs that prompt files mean."""
    with plan_run([str(path) for path in paths], PlanOptions(defaults=defaults, preset=preset)) as plan:
        return jobs_in(plan)
