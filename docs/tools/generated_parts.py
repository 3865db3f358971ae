"""Parts of pages that are made from the code when Sphinx reads them: ``<!-- made from the code: NAME -->``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from docs.tools import command_pages, problem_list

_MARK = re.compile(r"<!-- made from the code: (\S+) -->")
_PARTS: dict[str, Callable[[], str]] = {
    "scpalm": lambda: command_pages.markdown("scpalm"),
    "scpalm-train": lambda: command_pages.markdown("scpalm-train"),
    "problems": problem_list.tables,
}


def fill_in(app: Any, page: str, source: list[str]) -> None:
    """Put the parts into the text of a page: a handler of Sphinx's event ``source-read``."""
    source[0] = _MARK.sub(lambda mark: _PARTS[mark[1]](), source[0])
