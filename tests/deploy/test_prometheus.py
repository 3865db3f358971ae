"""Rules and alerts are valid and tested, use existing metrics, and have a section in the runbook."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from prometheus_client.utils import floatToGoString

from scpalm.app.queue.transport import LANES
from scpalm.app.telemetry.metrics import DURATION_BUCKETS, Metrics
from scpalm.app.telemetry.request_metrics import ANSWER_BUCKETS, SIZES
from scpalm.model.tasks.registry import task_names
from tests.deploy.files import DEPLOY, PROMETHEUS, load, rules, tool

ALERTS = [rule["alert"] for rule in rules("alerts.yml")]
# These are collected at scrape time, so their names are listed here instead of starting an app.
COLLECTED = {"scpalm_queue_rows", "scpalm_queue_oldest_seconds", "scpalm_jobs"}


def known_metrics() -> set[str]:
    families = Metrics(["/embed"], ["json"], LANES).registry.collect()
    suffixes = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",)}
    names = {family.name + suffix for family in families for suffix in suffixes.get(family.type, ("",))}
    return names | COLLECTED


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"\bscpalm_\w+", expression))


def test_promtool_accepts_rules_and_config() -> None:
    assert "rules found" in tool("promtool", "check", "rules", "rules.yml", "alerts.yml", folder=PROMETHEUS)
    assert "is valid" in tool("promtool", "check", "config", "prometheus.yml", folder=PROMETHEUS)


def test_promtool_runs_the_unit_tests() -> None:
    assert "SUCCESS" in tool("promtool", "test", "rules", "rules_test.yml", folder=PROMETHEUS)


def test_every_alert_fires_in_a_unit_test() -> None:
    fired = {
        check["alertname"]
        for test in load(PROMETHEUS / "rules_test.yml")["tests"]
        for check in test.get("alert_rule_test", ())
        if check["exp_alerts"]
    }
    assert fired == set(ALERTS)


def test_rules_use_existing_metrics_and_records() -> None:
    every = [*rules("rules.yml"), *rules("alerts.yml")]
    records = {rule["record"] for rule in rules("rules.yml")}
    for rule in every:
        assert metrics_in(rule["expr"]) <= known_metrics(), rule
        assert set(re.findall(r"\bscpalm:[\w:]+", rule["expr"])) <= records, rule


def test_the_objective_is_a_bucket_of_the_histogram() -> None:
    for name, buckets in (("queue", DURATION_BUCKETS), ("answer", ANSWER_BUCKETS)):
        pattern = rf'scpalm_{name}_duration_seconds_bucket{{[^}}]*le="([^"]+)"'
        used = {bound for rule in rules("rules.yml") for bound in re.findall(pattern, rule["expr"])}
        assert used and used <= {floatToGoString(bound) for bound in buckets}


def test_every_size_has_an_objective_in_every_window() -> None:
    slow = [rule["expr"] for rule in rules("rules.yml") if rule["record"].startswith("scpalm:slow:")]
    assert len(slow) == 4
    for expression in slow:
        assert set(re.findall(r'size="(\w+)"', expression)) == set(SIZES)


def test_errors_of_every_task_count() -> None:
    for rule in rules("rules.yml"):
        if rule["record"].startswith("scpalm:errors:"):
            for pattern in re.findall(r'endpoint=~"([^"]+)"', rule["expr"]):
                assert all(re.fullmatch(pattern, f"/{task}") for task in task_names()), rule


def sections() -> Iterator[tuple[str, str]]:
    text = (DEPLOY / "RUNBOOK.md").read_text()
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        yield title.strip(), body


@pytest.mark.parametrize("rule", rules("alerts.yml"), ids=lambda rule: str(rule["alert"]))
def test_every_alert_has_a_severity_and_a_runbook_section(rule: dict[str, dict[str, str]]) -> None:
    name = str(rule["alert"])
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["runbook_url"] == f"deploy/RUNBOOK.md#{name.lower()}"
    body = dict(sections()).get(name, "")
    for part in ("**Means**", "**Look**", "**Do**"):
        assert part in body, f"RUNBOOK.md, {name}: {part} is missing"


def test_the_runbook_has_no_sections_for_removed_alerts() -> None:
    assert {title for title, _ in sections() if title.startswith("Scpalm")} == set(ALERTS)
