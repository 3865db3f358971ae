"""Writes the parts of the documentation that are made from the code: the map of rooms and the table of settings.

python docs/tools/render.py            # rewrite them
python docs/tools/render.py --check    # exit with 1 and name the files that are out of date
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import grimp

from scpalm.app.settings import setting_lines

DOCS = Path(__file__).parents[1]
PACKAGES = ("app", "training", "model")


def _room(module: str) -> str | None:
    """``app.http`` for ``scpalm.app.http.body``; None for modules outside the three packages."""
    parts = module.split(".")[1:3]
    return ".".join(parts) if len(parts) == 2 and parts[0] in PACKAGES else None


def rooms_map() -> str:
    """A Mermaid diagram of the rooms and their imports, without those that follow from others."""
    graph = grimp.build_graph("scpalm")
    imports: dict[str, set[str]] = {}
    for module in graph.modules:
        if (room := _room(module)) is not None:
            found = (_room(other) for other in graph.find_modules_directly_imported_by(module))
            imports.setdefault(room, set()).update(other for other in found if other not in (None, room))
    lines = ["```mermaid", "flowchart TD"]
    for package in PACKAGES:
        lines.append(f"  subgraph {package}")
        lines += [
            f"    {_id(room)}[{room.split('.')[1]}]" for room in sorted(imports) if room.startswith(f"{package}.")
        ]
        lines.append("  end")
    for room, others in sorted(imports.items()):
        inside = {other for other in others if other.split(".")[0] == room.split(".")[0]}
        lines += [f"  {_id(room)} --> {_id(other)}" for other in sorted(_direct(inside, imports))]
    for package in PACKAGES[:2]:
        lines.append(f"  {package} --> model")
    return "\n".join([*lines, "```"])


def _id(room: str) -> str:
    return room.replace(".", "_")


def _direct(others: set[str], imports: dict[str, set[str]]) -> set[str]:
    """Those of ``others`` that none of the rest leads to."""
    return others - set().union(*(_reachable(other, imports) for other in others))


def _reachable(room: str, imports: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    rest = list(imports.get(room, ()))
    while rest:
        if (other := rest.pop()) not in found:
            found.add(other)
            rest += imports.get(other, ())
    return found


def settings_table() -> str:
    """A row for each ``SCPALM_*`` variable."""
    rows = ["| variable | default | what it does |", "|---|---|---|"]
    for label, text in setting_lines():
        name, _, default = label.rstrip("]").partition(" [")
        rows.append(f"| `{name}` | {default} | {text.replace('|', chr(92) + '|')} |")
    return "\n".join(rows)


PARTS: tuple[tuple[str, str, Callable[[], str]], ...] = (
    ("architecture.md", "map", rooms_map),
    ("settings.md", "settings", settings_table),
)


def outdated(*, rewrite: bool) -> list[str]:
    """Names of the files whose generated part differs from the code; with ``rewrite`` they are rewritten."""
    names = []
    for file_name, part, make in PARTS:
        path = DOCS / file_name
        before = path.read_text(encoding="utf-8")
        pattern = re.compile(rf"(<!-- {part}: begin[^>]*-->\n).*?(<!-- {part}: end -->)", re.DOTALL)
        content = make()
        after = pattern.sub(lambda match, content=content: f"{match[1]}{content}\n{match[2]}", before)  # type: ignore[misc]
        if content not in after:
            raise SystemExit(f"{path} has no <!-- {part}: begin --> and <!-- {part}: end -->.")
        if after != before:
            names.append(file_name)
            if rewrite:
                path.write_text(after, encoding="utf-8")
    return names


if __name__ == "__main__":
    check = "--check" in sys.argv[1:]
    names = outdated(rewrite=not check)
    print(
        "\n".join(
            f"docs/{name} {'is out of date: python docs/tools/render.py' if check else 'rewritten'}" for name in names
        )
    )
    sys.exit(bool(names) if check else 0)
