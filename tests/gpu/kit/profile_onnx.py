"""Which operators of an ONNX graph take the time of one run on the CPU."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

_RUNS = 30


def operator_times(model: Path, feed: Mapping[str, NDArray[np.generic]]) -> tuple[dict[str, float], float]:
    """Milliseconds of each kind of operator, largest first, and of the whole run. One thread; the best of 30 runs.

    The best run of each node counts, because other work on the machine only ever adds time.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        for _ in range(_RUNS):
            session.run(None, dict(feed))
        events = json.loads(Path(session.end_profiling()).read_text())
    runs = [event["dur"] for event in events if event["name"] == "model_run"]
    of_nodes: dict[tuple[str, str], float] = {}
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            node = event["args"]["op_name"], event["name"]
            of_nodes[node] = min(event["dur"], of_nodes.get(node, float("inf")))
    by_operator: dict[str, float] = {}
    for (operator, _), duration in of_nodes.items():
        by_operator[operator] = by_operator.get(operator, 0.0) + duration / 1000
    times = dict(sorted(by_operator.items(), key=lambda item: -item[1]))
    return times, max(min(runs) / 1000, sum(times.values()))


def print_profile(model: Path, feed: Mapping[str, NDArray[np.generic]], name: str, *, most: int = 7) -> None:
    """Print the operators that take most of a run."""
    times, whole = operator_times(model, feed)
    print(f"\n| {name}: {whole:.2f} ms a run | ms | share |\n|---|---|---|")
    top = list(times.items())[:most]
    rest = whole - sum(duration for _, duration in top)
    for operator, duration in [*top, ("other operators, and between them", rest)]:
        print(f"| {operator} | {duration:.2f} | {duration / whole:.0%} |")
