"""Every command line in the documentation is accepted by the parser of its program; nothing is run."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from scpalm.app.cli.main import cli
from scpalm.training.cli.main import app as training_cli

ROOT = Path(__file__).parents[2]
GROUPS: dict[str, Any] = {
    "scpalm": typer.main.get_command(cli),
    "scpalm-train": typer.main.get_command(training_cli),
}
MODULES = {"scpalm.app.cli": "scpalm", "scpalm.training.cli": "scpalm-train"}
_LEFT_OUT = {"node_modules", ".ipynb_checkpoints"}
_END = {"&&", "||", "|", ">", "&", ";"}
# A program, after variables and a folder: SCPALM_PORT=1 .venv/bin/scpalm, or python -m scpalm.app.cli.
_LINE = re.compile(
    r"(?:^|\s)(?:[\w./]*/)?(?:(?P<name>scpalm|scpalm-train)|-m (?P<module>scpalm\.\w+\.cli))(?P<rest>(?:\s.*)?)$"
)


def pages() -> list[Path]:
    """The Markdown files and notebooks of the repository."""
    inner = ("app", "deploy", "docs", "model", "training")
    found = [*ROOT.glob("*.md"), *(path for name in inner for path in (ROOT / name).rglob("*.*"))]
    return sorted(path for path in found if path.suffix in (".md", ".ipynb") and not _LEFT_OUT & set(path.parts))


def code_lines(path: Path) -> Iterator[str]:
    """The lines of code blocks, fenced or indented, with continued lines joined."""
    if path.suffix == ".ipynb":
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        yield from (line[1:] for cell in cells for line in cell["source"] if line.startswith("!"))
        return
    fence = ""
    text = re.sub(r"\\\n\s*", " ", path.read_text(encoding="utf-8"))
    for line in text.splitlines():
        if found := re.match(r"\s*```(\w*)", line):
            fence = "" if fence else found[1] or "plain"
        elif fence in ("sh", "bash", "console", "plain") or (not fence and line.startswith("    ")):
            yield line.strip()


def commands_of(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Program and arguments of each command."""
    for line in code_lines(path):
        if line.startswith(("#", "scpalm:", "|")) or not (found := _LINE.search(line.partition(" # ")[0])):
            continue
        before = line[: found.start()].split()
        if not before or all("=" in word for word in before) or found["module"] or before[-1] in _END:
            words = shlex.split(found["rest"], comments=True)
            end = next((number for number, word in enumerate(words) if word in _END), len(words))
            yield found["name"] or MODULES[found["module"]], words[:end]


def accept(command: Any, name: str, words: list[str], parent: Any = None) -> None:
    """Parse as the program does, without a run. Raises a usage error."""
    context = command.make_context(name, list(words), parent=parent)
    if hasattr(command, "commands"):
        rest = [*context._protected_args, *context.args]
        inner_name, inner, inner_words = command.resolve_command(context, rest)
        accept(inner, inner_name, inner_words, context)


CASES = [(path, program, words) for path in pages() for program, words in commands_of(path)]


def test_commands_are_found_in_pages_of_all_kinds() -> None:
    found = {path.relative_to(ROOT).parts[:2] for path, _, _ in CASES}
    assert {
        ("README.md",),
        ("docs", "howto"),
        ("docs", "operate"),
        ("docs", "tutorials"),
        ("training", "README.md"),
    } <= found


@pytest.mark.parametrize(
    ("path", "program", "words"),
    CASES,
    ids=[f"{path.relative_to(ROOT)}: {shlex.join(words)[:60]}" for path, _, words in CASES],
)
def test_a_command_is_accepted(
    path: Path, program: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if words in (["--help"], ["--version"]) or words[1:] == ["--help"]:
        return
    accept(GROUPS[program], program, words)


@pytest.mark.parametrize("line", ["scpalm embed cells.h5ad -o x.npy --no-such-option", "scpalm no-such-command"])
def test_a_wrong_command_is_refused(line: str) -> None:
    program, *words = line.split()
    with pytest.raises(Exception, match="no-such"):
        accept(GROUPS[program], program, words)
