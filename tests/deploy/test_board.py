"""Grafana's board: what the script writes, names that there are, panels that do not overlap."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.programs import metrics_in, metrics_of_the_page
from tools.board import BOARD, COLUMNS, MADE

PARSED: dict[str, Any] = json.loads(BOARD.read_text(encoding="utf-8"))
PANELS = [panel for panel in PARSED["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]


@pytest.mark.parametrize("path", MADE, ids=lambda path: path.name)
def test_a_file_is_what_the_script_writes(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == MADE[path](), "run `python -m tools.board`"


def test_the_board_names_metrics_that_there_are() -> None:
    named = set().union(*map(metrics_in, QUERIES))
    assert named and named - metrics_of_the_page() == set()


def test_every_metric_is_on_the_board() -> None:
    shown = set().union(*map(metrics_in, QUERIES))
    parts = ("_bucket", "_sum", "_count")
    told = {name for name in metrics_of_the_page() if not name.endswith(parts)}
    assert {name for name in told if not {name, *(name + part for part in parts)} & shown} == set()


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in PARSED["panels"]}) == len(PARSED["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in PARSED["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= COLUMNS and not cells & taken, panel["title"]
        taken |= cells


def test_every_query_asks_the_prometheus_that_is_chosen() -> None:
    asked = [one["datasource"]["uid"] for panel in PANELS for one in (panel, *panel["targets"])]
    assert set(asked) == {"${datasource}"}
    assert {variable["name"] for variable in PARSED["templating"]["list"]} == {"datasource", "run"}
