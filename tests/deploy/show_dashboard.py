"""Run the services of compose under load, run all queries of the dashboard, and draw it.

    PYTHONPATH=. python tests/deploy/show_dashboard.py [--seconds 180] [--out deploy/grafana/dashboard.png]

This needs a real Prometheus, but not Grafana.
"""

from __future__ import annotations

import argparse
import io
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import typer

from scpalm.app.cli.main import cli
from scpalm.model.bundle import Bundle
from tests.bench.bench_service import real_cells
from tests.deploy.dashboard import panels, queries
from tests.deploy.load import Load
from tests.deploy.stack import Stack

RATE_INTERVAL = "15s"


def services() -> list[str]:
    """The services that run without a GPU: API and two workers, or a single process if there is no worker command."""
    split = "worker" in typer.main.get_command(cli).commands  # type: ignore[attr-defined]
    return ["redis", "worker-cpu", "worker-cpu", "api", "prometheus"] if split else ["single", "prometheus"]


def ask(url: str, path: str, **parameters: Any) -> list[dict[str, Any]]:
    """Send a query to Prometheus. Raises AssertionError with its error message."""
    answer = httpx.get(f"{url}/api/v1/{path}", params=parameters, timeout=30).json()
    assert answer["status"] == "success", f"{parameters}: {answer.get('error')}"
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def empty_queries(url: str) -> list[str]:
    """The queries without a finite value, each with the title of its panel."""
    empty = []
    for title, query in queries(RATE_INTERVAL):
        found = ask(url, "query", query=query)
        if not any(math.isfinite(float(series["value"][1])) for series in found):
            empty.append(f"{title}: {query}")
    return empty


def draw(url: str, start: float, end: float, out: Path) -> None:
    """Draw all panels, with the values of their queries during the load."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from PIL import Image

    shown = panels()
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in shown)
    figure = pyplot.figure(figsize=(18, height * 0.36))
    for panel in shown:
        place = panel["gridPos"]
        box = (place["x"] / 24 + 0.022, 1 - (place["y"] + place["h"]) / height + 0.022)
        axes = figure.add_axes((*box, place["w"] / 24 - 0.034, place["h"] / height - 0.042))
        axes.set_title(panel["title"], fontsize=10, loc="left")
        series = [
            (target["legendFormat"], one)
            for target in panel["targets"]
            for one in ask(
                url,
                "query_range",
                query=target["expr"].replace("$__rate_interval", RATE_INTERVAL),
                start=start,
                end=end,
                step=2,
            )
        ]
        if panel["type"] == "stat":
            text = f"{float(series[0][1]['values'][-1][1]):.4g}" if series else "none"
            axes.text(0.5, 0.4, text, ha="center", va="center", fontsize=22)
            axes.set_axis_off()
            continue
        for legend, one in series:
            for name, value in one["metric"].items():
                legend = legend.replace(f"{{{{{name}}}}}", value)
            points = [(float(at) - start, float(value)) for at, value in one["values"]]
            axes.plot(*zip(*points, strict=True), label=legend, linewidth=1)
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.2)
        axes.legend(fontsize=7, loc="upper left", ncols=2, framealpha=0.5)
    out.parent.mkdir(parents=True, exist_ok=True)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=75)
    # 48 colours are enough, and reduce the file to a fifth.
    Image.open(picture).convert("P", palette=Image.Palette.ADAPTIVE, colors=48).save(out, optimize=True)


def run(seconds: float, folder: Path, out: Path | None) -> list[str]:
    """Run a load for ``seconds`` and return the empty queries. Draws the dashboard if ``out`` is given."""
    cells, _ = real_cells(Bundle.load())
    chosen = services()
    with Stack(chosen, folder, Path(sys.executable).parent) as stack:
        front = next(name for name in stack.services if name.startswith(("api", "single")))
        prometheus = stack.url("prometheus-0")
        start = time.time()
        with Load(stack.url(front), cells) as load:
            time.sleep(seconds)
            empty = empty_queries(prometheus)
        print(
            f"{', '.join(stack.services)}: {load.statuses} in {seconds:.0f} s; "
            f"alerts: {ask(prometheus, 'query', query='ALERTS')}"
        )
        if out is not None:
            draw(prometheus, start, time.time(), out)
    return empty


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        empty = run(options.seconds, Path(folder), options.out)
    total = len(list(queries()))
    print(f"{total - len(empty)} of {total} queries of {len(panels())} panels have numbers", *empty, sep="\n")
    sys.exit(1 if empty else 0)


if __name__ == "__main__":
    main()
