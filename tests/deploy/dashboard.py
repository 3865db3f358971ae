"""The panels of the dashboard and their queries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.deploy.files import DEPLOY

FILE = DEPLOY / "grafana" / "dashboards" / "scpalm.json"


def panels() -> list[dict[str, Any]]:
    """All panels except row titles, in order."""
    return [panel for panel in json.loads(FILE.read_text())["panels"] if panel["type"] != "row"]


def queries(rate_interval: str = "5m") -> Iterator[tuple[str, str]]:
    """Yield the title of each panel with each of its queries, with Grafana's variable filled in."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$__rate_interval", rate_interval)
