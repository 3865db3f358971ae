"""One HTML page of an evaluation: tables of all rows, embedded pictures, and where the numbers come from."""

from __future__ import annotations

import base64
import html
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from scpalm.model.bundle import Bundle, sha256_of
from scpalm.model.errors import UnreadableError
from scpalm.model.output.whole_file import replaced_when_whole
from scpalm.training.evaluation.common.table import claim
from scpalm.training.metrics.rows import METRICS, Row, summarise

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:72em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;margin:1em 0}th,td{padding:.25em .7em;border-bottom:1px solid #ddd;text-align:left}"
    "td.n{text-align:right;font-variant-numeric:tabular-nums}img{max-width:100%}small{color:#555}"
)
_OURS = ("embedding", "h_C", "scpalm")


def read_rows(path: Path) -> list[Row]:
    """Read rows that ``evaluate --json`` wrote. Raises UnreadableError for anything else."""
    hint = "Name files that `scpalm-train evaluate ... --json` wrote."
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnreadableError("not-rows", f"{path} cannot be read as JSON ({error}).", hint=hint) from error
    if not isinstance(rows, list) or not all(isinstance(r, dict) and {"dataset", "method"} <= r.keys() for r in rows):
        raise UnreadableError("not-rows", f"{path} is not a list of rows with 'dataset' and 'method'.", hint=hint)
    return rows


def write_report(out: Path, rows: Sequence[Row], bundle: Bundle, pictures: Sequence[Path] = ()) -> None:
    """Write the page, whole or not at all; it needs no other file.

    ``rows`` may mix tasks. Each task and data set gets a table of means and sds over seeds, with the model's lines in
    bold.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    seeds: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        seeds.setdefault(_key(row), set()).add(str(row.get("seed", 0)))
    for row in summarise(rows):
        groups.setdefault(_key(row), []).append(row)
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        f"<title>Evaluation of {_text(bundle.name)}</title><style>{_STYLE}</style>",
        f"<h1>Evaluation of {_text(bundle.name)} {_text(bundle.version)}</h1>",
        f"<p>Bundle manifest sha256 <code>{sha256_of(bundle.path / 'manifest.json')}</code>, weights sha256 "
        f"<code>{_text(bundle.manifest['files'].get('weights.safetensors', {}).get('sha256', 'none'))}</code>. "
        f"Machine: {_text(platform.machine())}, {os.cpu_count()} cores, {_text(platform.system())}, "
        f"Python {_text(platform.python_version())}. Mean and sd over seeds.</p>",
    ]
    for key, group in groups.items():
        task, dataset = key
        numbers = ", ".join(sorted(seeds[key], key=lambda text: (len(text), text)))
        cells = group[0].get("cells", "")
        parts.append(
            f"<h2>{_text(task)}: {_text(dataset)}</h2><small>{_text(cells)} cells; seeds {_text(numbers)}</small>"
        )
        parts.append(_table(group))
    for picture in pictures:
        data = base64.b64encode(picture.read_bytes()).decode()
        parts.append(f"<figure><img src='data:image/png;base64,{data}' alt='{_text(picture.stem)}'>")
        parts.append(f"<figcaption>{_text(picture.stem)}</figcaption></figure>")
    with replaced_when_whole(out) as partial:
        partial.write_text("\n".join(parts) + "\n", encoding="utf-8")


def _key(row: Row) -> tuple[str, str]:
    return str(row.get("task", "clustering")), str(row["dataset"])


def _table(group: Sequence[Row]) -> str:
    columns = [metric for metric in METRICS if any(metric in row for row in group)]
    head = "".join(f"<th>{_text(name)}</th>" for name in ("method", *columns, "claim"))
    lines = [f"<tr>{head}</tr>"]
    for row in group:
        name = _text(row["method"])
        cells = [f"<td>{f'<b>{name}</b>' if row['method'] in _OURS else name}</td>"]
        for metric in columns:
            text = ""
            if metric in row:
                text = f"{float(row[metric]):.3f}"
                if float(row.get(f"{metric}_sd", 0.0)):
                    text += f" ± {float(row[f'{metric}_sd']):.3f}"
            cells.append(f"<td class='n'>{text}</td>")
        lines.append(f"<tr>{''.join(cells)}<td>{claim(row)}</td></tr>")
    return f"<table>{''.join(lines)}</table>"


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)
