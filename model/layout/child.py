"""The process that computes one layout: ``python -P -m scpalm.model.layout.child``, started by `process.py`.

Standard input: one line of JSON, then the embedding. Standard output: one line of JSON for each step of progress, then
a last line that describes the result, then positions and clusters.
"""

from __future__ import annotations

import json
import os
import sys
from typing import BinaryIO

import numpy as np

from scpalm.model.layout.layout import LayoutOptions, lay_out

_NICENESS = 5  # requests come first
_SHARE_STEP = 0.01


def run(source: BinaryIO, target: BinaryIO) -> None:
    """Read one request from ``source`` and write its result to ``target``."""
    request = json.loads(source.readline())
    shape = tuple(request["shape"])
    embedding = np.frombuffer(source.read(4 * shape[0] * shape[1]), np.float32).reshape(shape)
    last = 0.0

    def report(share: float) -> None:
        nonlocal last
        if share - last >= _SHARE_STEP:
            last = share
            _write_line(target, {"share": round(share, 3)})

    layout = lay_out(embedding, LayoutOptions(**request["options"]), report)
    _write_line(target, {"num_laid_out": layout.num_laid_out})
    target.write(np.ascontiguousarray(layout.positions, np.float32).tobytes())
    target.write(np.ascontiguousarray(layout.clusters, np.int32).tobytes())
    target.flush()


def _write_line(target: BinaryIO, content: dict[str, object]) -> None:
    target.write(json.dumps(content).encode() + b"\n")
    target.flush()


if __name__ == "__main__":
    os.nice(_NICENESS)
    run(sys.stdin.buffer, sys.stdout.buffer)
