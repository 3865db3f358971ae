"""The parts of the game day that need no processes. The whole: `python -m tests.chaos.game_day`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.chaos.game_day import FAULTS, Fault, deployment, run_fault, section
from tests.chaos.prometheus import scaled, scaled_rules
from tests.deploy.files import PROMETHEUS, rules, tool
from tests.redis_server import needs_redis


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.broken.__name__)
def test_the_run_book_names_the_cause_of_each_fault(fault: Fault) -> None:
    assert fault.alert in {rule["alert"] for rule in rules("alerts.yml")}
    assert fault.cause in section(fault.alert)


def test_a_section_ends_where_the_next_one_starts() -> None:
    assert "ScpalmErrorBudgetBurnsSlowly" not in section("ScpalmApiDown")
    assert section("NoSuchAlert") == ""


@pytest.mark.parametrize(
    ("expression", "shorter"),
    [
        ("rate(a[30m])", "rate(a[30s])"),
        ("rate(a[1m])", "rate(a[5s])"),
        ("max_over_time(b[1h:1m])", "max_over_time(b[60s:1s])"),
        ('scpalm:queue_oldest_seconds:max{lane="bulk"} > 14400', 'scpalm:queue_oldest_seconds:max{lane="bulk"} > 240'),
        ("scpalm:errors:ratio1h > 14.4 * 0.001", "scpalm:errors:ratio1h > 14.4 * 0.001"),
    ],
)
def test_a_minute_lasts_a_second(expression: str, shorter: str) -> None:
    assert scaled(expression) == shorter


def test_the_shorter_rules_are_valid_and_complete(tmp_path: Path) -> None:
    for name in ("rules.yml", "alerts.yml"):
        text = (PROMETHEUS / name).read_text()
        (tmp_path / name).write_text(scaled_rules(text))
        before, after = yaml.safe_load(text), yaml.safe_load((tmp_path / name).read_text())
        assert [len(group["rules"]) for group in before["groups"]] == [len(group["rules"]) for group in after["groups"]]
    tool("promtool", "check", "rules", "rules.yml", "alerts.yml", folder=tmp_path)


@pytest.mark.slow
@needs_redis
def test_every_fault_fires_its_alert(tmp_path: Path) -> None:
    with deployment(tmp_path) as made:
        for fault in FAULTS:
            run_fault(made, fault)
