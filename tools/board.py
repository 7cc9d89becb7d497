"""Write Grafana's board and the cluster's alert rules: `python -m tools.board`.

PANELS is the board; deploy/monitoring/alerts.yml is where the rules are written, and a cluster with the Prometheus
operator takes the same rules as a PrometheusRule. tests/deploy/test_board.py compares.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import yaml

DEPLOY = Path(__file__).parents[1] / "deploy"
BOARD = DEPLOY / "monitoring" / "board.json"
RULES = DEPLOY / "monitoring" / "alerts.yml"
CLUSTER_RULES = DEPLOY / "kubernetes" / "components" / "monitoring" / "prometheusrule.yaml"

COLUMNS = 24  # of Grafana's grid
HEIGHT = 8
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WINDOW = "[$__rate_interval]"

NUMBERS_PER_ROW = 6
GRAPHS_PER_ROW = 3


@dataclass(frozen=True)
class Panel:
    """One panel: its queries by legend, the unit as Grafana calls it, `number` for a figure in the place of a graph."""

    title: str
    queries: dict[str, str]
    unit: str = "short"
    help: str = ""
    number: bool = False
    stacked: bool = False
    most: float | None = None


def _rate(metric: str, by: str = "instance", labels: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{labels}{WINDOW}))"


RUNS = 'run=~"$run"'

FARM = (
    Panel("Redis", {"up": "min(promptmill_redis_up)"}, number=True, help="1: it answered the exporter."),
    Panel("Jobs waiting", {"waiting": 'sum(promptmill_queue_jobs{state="waiting"}) or vector(0)'}, number=True),
    Panel("Workers", {"workers": "sum(promptmill_workers)"}, number=True),
    Panel("Images/s", {"images/s": "sum(promptmill_worker_images_per_second)"}, number=True),
    Panel("Images left", {"left": f'sum(promptmill_run_images{{{RUNS},image="left"}})'}, number=True),
    Panel("Latest ETA", {"ETA": f"max(promptmill_run_eta_seconds{{{RUNS}}})"}, "s", number=True),
    Panel(
        "Images of runs",
        {"{{run}} {{image}}": f"sum by (run, image) (promptmill_run_images{{{RUNS}}})"},
        help="done, failed, cancelled and left; the same counts as promptmill status.",
    ),
    Panel("Rate of runs", {"{{run}}": f"max by (run) (promptmill_run_images_per_second{{{RUNS}}})"}),
    Panel("ETA of runs", {"{{run}}": f"max by (run) (promptmill_run_eta_seconds{{{RUNS}}})"}, "s"),
    Panel(
        "Queue by priority",
        {"{{priority}} {{state}}": "sum by (priority, state) (promptmill_queue_jobs)"},
        stacked=True,
        help="Jobs that wait, that a worker holds, and of paused runs. What to scale workers by.",
    ),
    Panel("Queue by shape", {"{{shape}}": "sum by (shape) (promptmill_queue_jobs)"}, stacked=True),
    Panel("Failures by reason", {"{{run}}: {{reason}}": f"sum by (run, reason) (promptmill_run_failures{{{RUNS}}})"}),
    Panel(
        "Since the last image",
        {"{{run}}": f"time() - max by (run) (promptmill_run_last_image_timestamp_seconds{{{RUNS}}})"},
        "s",
    ),
    Panel(
        "Age of runs",
        {"{{run}}": f'time() - max by (run) (promptmill_run_created_timestamp_seconds{{{RUNS},state="running"}})'},
        "s",
    ),
    Panel("Entries that nobody could read", {"entries": "max(promptmill_malformed_entries_total)"}),
)

WORKERS = (
    Panel("Workers by state", {"{{state}}": "sum by (state) (promptmill_workers)"}, stacked=True),
    Panel("Images/s of workers", {"{{worker}}": "max by (worker) (promptmill_worker_images_per_second)"}, stacked=True),
    Panel("Images of workers", {"{{worker}}": "max by (worker) (promptmill_worker_images_total)"}),
    Panel("Devices", {"{{platform}}": "sum by (platform) (promptmill_worker_devices)"}, stacked=True),
    Panel("What does not work there", {"{{worker}}": "max by (worker) (promptmill_worker_problems)"}),
    Panel("Jobs that ended", {"{{result}}": _rate("promptmill_jobs_total", "result")}, "ops", stacked=True),
)

HOSTS = (
    Panel(
        "Devices busy",
        {"{{instance}}": _rate("promptmill_device_busy_seconds_total")},
        "percentunit",
        most=1,
        number=True,
    ),
    Panel(
        "End to end over the bare program",
        {
            "{{instance}}": _rate("promptmill_jobs_total", labels='{result="succeeded"}')
            + " / max by (instance) (promptmill_bare_images_per_second)"
        },
        "percentunit",
        most=1,
        number=True,
        help="Images/s that landed over what the compiled program alone would render. 1 is the speed of light.",
    ),
    Panel(
        "How full the batches are",
        {"{{instance}}": f"{_rate('promptmill_batch_jobs_total')} / {_rate('promptmill_batch_slots_total')}"},
        "percentunit",
        most=1,
        number=True,
    ),
    Panel(
        "The bare program", {"{{instance}} {{shape}}": "max by (instance, shape) (promptmill_bare_images_per_second)"}
    ),
    Panel(
        "Seconds of a stage per job",
        {"{{stage}}": " / ".join(_rate(f"promptmill_stage_{what}", "stage") for what in ("seconds_sum", "jobs_total"))},
        "s",
    ),
    Panel(
        "From a batch's start to a safe image",
        {
            f"{share:.0%}": f"histogram_quantile({share}, {_rate('promptmill_job_seconds_bucket', 'le')})"
            for share in (0.5, 0.95)
        },
        "s",
    ),
    Panel("Batches", {"{{instance}}": _rate("promptmill_batches_total")}, "ops"),
    Panel("Programs made", {"{{instance}}": "sum by (instance) (promptmill_compilations_total)"}),
    Panel("Seconds of making programs", {"{{instance}}": "sum by (instance) (promptmill_compile_seconds_total)"}, "s"),
    Panel("Given back", {"{{instance}}": _rate("promptmill_jobs_total", labels='{result="retried"}')}, "ops"),
    Panel("Leases lost", {"{{instance}}": "sum by (instance) (promptmill_leases_lost_total)"}),
    Panel("Bytes out", {"{{instance}}": _rate("promptmill_output_bytes_total")}, "Bps", stacked=True),
    Panel("Memory of devices", {"{{instance}} {{device}} {{memory}}": "promptmill_device_memory_bytes"}, "bytes"),
    Panel("Memory of hosts", {"{{instance}}": "process_resident_memory_bytes"}, "bytes"),
    Panel("CPU of hosts", {"{{instance}}": f"rate(process_cpu_seconds_total{WINDOW})"}),
)

PANELS: dict[str, tuple[Panel, ...]] = {
    "Runs and queue": FARM,
    "Workers, as Redis knows them": WORKERS,
    "Workers, as they tell themselves (--metrics-port)": HOSTS,
}


def board() -> dict[str, Any]:
    """The board as Grafana imports it, from version 10 on."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in PANELS.items():
        panels.append(_placed({"type": "row", "title": title, "collapsed": False}, panels, 0, top, COLUMNS, 1))
        top += 1
        for number in (True, False):
            shown = [panel for panel in row if panel.number is number]
            width = COLUMNS // (NUMBERS_PER_ROW if number and len(shown) > GRAPHS_PER_ROW else GRAPHS_PER_ROW)
            for at, panel in enumerate(shown):
                line, column = divmod(at * width, COLUMNS)
                panels.append(_placed(_panel(panel), panels, column, top + line * HEIGHT, width, HEIGHT))
            top += -(-len(shown) * width // COLUMNS) * HEIGHT
    return {
        "uid": "promptmill",
        "title": "promptmill",
        "tags": ["promptmill"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_datasource_variable(), _run_variable()]},
        "panels": panels,
    }


def _placed(panel: dict[str, Any], before: list[Any], x: int, y: int, w: int, h: int) -> dict[str, Any]:
    return {"id": len(before) + 1, **panel, "gridPos": {"x": x, "y": y, "w": w, "h": h}}


def _panel(panel: Panel) -> dict[str, Any]:
    custom = {"fillOpacity": 10, "stacking": {"mode": "normal" if panel.stacked else "none"}}
    defaults = {"unit": panel.unit, "min": 0, "custom": {} if panel.number else custom}
    if panel.most is not None:
        defaults["max"] = panel.most
    return {
        "type": "stat" if panel.number else "timeseries",
        "title": panel.title,
        "description": panel.help,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + at), "expr": query, "legendFormat": legend, "datasource": DATASOURCE}
            for at, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def _datasource_variable() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _run_variable() -> dict[str, Any]:
    return {
        "name": "run",
        "label": "Run",
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": "label_values(promptmill_run_images, run)", "refId": "run"},
        "refresh": 2,  # whenever the time range changes
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def board_json() -> str:
    """The text of board.json."""
    return json.dumps(board(), indent=1) + "\n"


def cluster_rules_yaml() -> str:
    """The rules of alerts.yml as a resource of the Prometheus operator."""
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "promptmill"},
        "spec": {"groups": rules["groups"]},
    }
    return "# Written by `python -m tools.board` from deploy/monitoring/alerts.yml.\n" + yaml.safe_dump(
        resource, sort_keys=False, width=120
    )


MADE = {BOARD: board_json, CLUSTER_RULES: cluster_rules_yaml}


@click.command()
def main() -> None:
    """Write the board and the cluster's rules."""
    for path, make in MADE.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(make(), encoding="utf-8")
        click.echo(path)


if __name__ == "__main__":
    main()
