"""The alert rules, by Prometheus' own tools: they parse, and fire when they should and not before."""

import re
from pathlib import Path

import yaml

from tests.deploy.programs import MONITORING, PACKAGE, metrics_in, metrics_of_the_page, program, succeeds

RULES = [rule for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"] for rule in group["rules"]]


def test_the_rules_are_valid() -> None:
    said = succeeds(program("promtool", PACKAGE), "check", "rules", str(MONITORING / "alerts.yml"))
    assert f"{len(RULES)} rules found" in said


def test_each_rule_fires_for_its_series_and_for_no_other() -> None:
    played = (MONITORING / "alerts_test.yml").read_text()
    fired = re.findall(r"alertname: (\w+)\n +exp_alerts: *(?:&\w+)?\n", played)
    assert set(fired) == {rule["alert"] for rule in RULES}, "each has series for which it fires"
    succeeds(program("promtool", PACKAGE), "test", "rules", "alerts_test.yml", cwd=MONITORING)


def test_the_rules_name_metrics_that_there_are() -> None:
    named = set().union(*(metrics_in(rule["expr"]) for rule in RULES))
    assert named and named - metrics_of_the_page() == set()


def test_each_rule_says_how_bad_it_is_and_what_to_do() -> None:
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning"), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description"}, rule["alert"]


def test_the_scrape_configuration_is_valid(tmp_path: Path) -> None:
    succeeds(program("promtool", PACKAGE), "check", "config", str(MONITORING / "prometheus.yml"))
