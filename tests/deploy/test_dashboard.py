"""The dashboard uses existing metrics and the provisioned data source, and compose mounts it correctly."""

from __future__ import annotations

import json
import re

from tests.deploy.dashboard import panels, queries
from tests.deploy.files import DEPLOY, compose, load, rules
from tests.deploy.test_prometheus import known_metrics, metrics_in

GRAFANA = DEPLOY / "grafana"


def test_queries_use_existing_metrics_and_records() -> None:
    records = {rule["record"] for rule in rules("rules.yml")}
    for title, expression in queries():
        assert metrics_in(expression) <= known_metrics(), title
        assert set(re.findall(r"\bscpalm:[\w:]+", expression)) <= records, title


def test_all_documented_metrics_are_on_the_dashboard() -> None:
    expressions = [text for _, text in queries()] + [rule["expr"] for rule in rules("rules.yml")]
    used = {re.sub(r"_(bucket|sum|count)$", "", name) for text in expressions for name in metrics_in(text)}
    promised = """
        request_duration_seconds answer_duration_seconds parse_duration_seconds queue_duration_seconds
        inference_duration_seconds
        batch_rows batch_fill_ratio batch_requests rows_total queue_rows queue_oldest_seconds rejected_total
        dropped_total device_busy_seconds_total device_memory_bytes jobs redeliveries_total genes_matched_ratio
        model_info
    """
    assert {f"scpalm_{name}" for name in promised.split()} <= used


def test_panels_do_not_overlap_and_use_the_provisioned_source() -> None:
    (source,) = load(GRAFANA / "provisioning" / "datasources" / "prometheus.yml")["datasources"]
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
        assert panel["datasource"]["uid"] == source["uid"] and panel["description"], panel["title"]
    assert source["url"] == "http://prometheus:9090"


def test_compose_mounts_the_provisioned_dashboards() -> None:
    (provider,) = load(GRAFANA / "provisioning" / "dashboards" / "scpalm.yml")["providers"]
    mounts = dict(volume.split(":")[:2] for volume in compose()["services"]["grafana"]["volumes"])
    assert mounts["./deploy/grafana/dashboards"] == provider["options"]["path"]
    home = compose()["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.startswith(provider["options"]["path"])
    assert json.loads((GRAFANA / "dashboards" / home.rsplit("/", 1)[1]).read_text())["uid"] == "scpalm"
