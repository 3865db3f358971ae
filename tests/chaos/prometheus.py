"""A real Prometheus with the rules of deploy/prometheus, in which a minute lasts a second."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import yaml

from tests.chaos.cluster import wait_until
from tests.deploy.files import PROMETHEUS, load
from tests.redis_server import free_port

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# Prometheus scrapes every second, and a rate needs several samples.
_SHORTEST_WINDOW = 5


def _shorter(found: re.Match[str]) -> str:
    seconds = int(found[1]) * _SECONDS[found[2]] / 60
    return f"{max(_SHORTEST_WINDOW, round(seconds))}s"


def scaled(expression: str) -> str:
    """A rule's expression with windows of a sixtieth: ``[5m]`` becomes ``[5s]``, and ``[1h:1m]`` ``[60s:1s]``."""

    def window(found: re.Match[str]) -> str:
        length = re.sub(r"^(\d+)([smhd])", _shorter, found[1])
        return f"[{length}{':1s' if found[2] else ''}]"

    shorter = re.sub(r"\[(\d+[smhd])(:\d+[smhd])?\]", window, expression)
    # The ages of work in the queue are seconds.
    return re.sub(
        r"(queue_oldest_seconds:max\{[^}]*\} > )(\d+)", lambda found: f"{found[1]}{int(found[2]) // 60}", shorter
    )


def scaled_rules(text: str) -> str:
    """A file of rules with shorter windows and waits, evaluated every second."""
    rules = yaml.safe_load(text)
    for group in rules["groups"]:
        group["interval"] = "1s"
        for rule in group["rules"]:
            rule["expr"] = scaled(rule["expr"])
            if "for" in rule:
                rule["for"] = re.sub(
                    r"^(\d+)([smhd])$", lambda found: f"{int(found[1]) * _SECONDS[found[2]] // 60}s", rule["for"]
                )
    return yaml.safe_dump(rules)


class Prometheus:
    """One process, which scrapes the targets that `watch` names."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._targets = folder / "targets.json"
        self.watch({})
        settings = load(PROMETHEUS / "prometheus.yml")
        files = settings["rule_files"]
        for name in files:
            (folder / name).write_text(scaled_rules((PROMETHEUS / name).read_text()))
        jobs = [job["job_name"] for job in settings["scrape_configs"]]
        found = {"files": [str(self._targets)], "refresh_interval": "1s"}
        relabel = [{"source_labels": ["kind"], "target_label": "job"}]
        scrape = {"job_name": jobs[0], "file_sd_configs": [found], "relabel_configs": relabel}
        every = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config = {"global": every, "rule_files": files, "scrape_configs": [scrape]}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        program = shutil.which("prometheus")
        assert program is not None, "prometheus is not installed (Debian: apt install prometheus)"
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program,
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log,
                stderr=log,
            )
        wait_until(self._is_ready, 30, (folder / "log").read_text)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready").status_code == 200
        except httpx.HTTPError:
            return False

    def watch(self, targets: Mapping[str, Sequence[str]]) -> None:
        """Scrape these URLs from now on, by job."""
        groups = [
            {"targets": [url.removeprefix("http://") for url in urls], "labels": {"kind": job}}
            for job, urls in targets.items()
        ]
        new = self._targets.with_suffix(".new")
        new.write_text(json.dumps(groups))
        new.replace(self._targets)

    def value(self, query: str) -> float | None:
        """The value of a query without labels; None if there is none."""
        found = httpx.get(f"{self.url}/api/v1/query", params={"query": query}).json()["data"]["result"]
        return float(found[0]["value"][1]) if found else None

    def alerts(self, *states: str) -> set[str]:
        """Names of the alerts in these states; by default of those that fire."""
        found = httpx.get(f"{self.url}/api/v1/alerts").json()["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in found if alert["state"] in (states or ("firing",))}

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)
