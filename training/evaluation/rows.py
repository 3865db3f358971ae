"""Rows of an evaluation: one number of each metric for one dataset, method and seed."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

Row = dict[str, str | int | float | bool]


def write_rows(path: Path | str, rows: Sequence[Row]) -> None:
    """Write rows as a JSON list, one row a line; the file appears whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not-a-number is no JSON: better to fail here than in the reader's parser.
    lines = ",\n".join(json.dumps(row, allow_nan=False, ensure_ascii=False) for row in rows)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(f"[\n{lines}\n]\n" if rows else "[]\n", encoding="utf-8")
    os.replace(partial, path)
