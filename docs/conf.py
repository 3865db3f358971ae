"""Sphinx configuration. The source folder is the repository, so that pages link to each other as they do on GitHub.

make docs
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pygments.lexers.special import TextLexer

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from docs.tools.generated_parts import fill_in  # noqa: E402
from scpalm.model.release import release as scpalm_release  # noqa: E402

project = "scPaLM"
author = "The scPaLM authors"
copyright = "scPaLM, Apache-2.0"
release = scpalm_release()

root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "docs/**/*.md",
    "docs/**/*.ipynb",
    "app/README.md",
    "app/web/README.md",
    "deploy/*.md",
    "model/README.md",
    "training/*.md",
    "training/**/*.md",
    "tests/gpu/*.md",
    "README.md",
    "CHANGELOG.md",
    "CODE_OF_CONDUCT.md",
    "CONTRIBUTING.md",
]
# scpalm/ holds links to app/, model/ and training/, whose pages would appear twice.
exclude_patterns = [".*", "build", "dist", "scpalm", "**/node_modules", "**/.ipynb_checkpoints"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
# Links to other files of the repository lead to files, not to pages.
myst_ref_domains = ["std", "py"]
nb_execution_mode = "off"
suppress_warnings = ["myst.header"]

nitpicky = True
# No inventories of other projects are loaded: the documentation builds without a network.
nitpick_ignore_regex = [
    ("py:.*", r"(anndata|numpy|pandas|matplotlib|scipy|typing|collections|pathlib|httpx|fsspec|zarr)\..*"),
    # Types of the package that users do not make themselves.
    (
        "py:.*",
        r"(scpalm\.model\..*|CellReader|Declaration|InputReport|LabelledBy|LabelledCells|Output|Progress|WorseError)",
    ),
    (
        "py:.*",
        r"(Source|Stream|AnnData|Path|NDArray|Axes|Figure|Any|Self|Unpack|Answer|TracebackType|optional|np\..*|pd\..*)",
    ),
]

default_role = "code"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "sphinx_book_theme"
html_title = f"scPaLM {release}"
html_additional_pages = {"index": "redirect.html"}
templates_path = ["tools/templates"]
html_theme_options = {
    "navbar_persistent": [],
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
}
html_show_sourcelink = False


def setup(app: Any) -> None:
    """Show Mermaid diagrams as text, which GitHub draws, and fill in the parts that are made from the code."""
    app.add_lexer("mermaid", TextLexer)
    app.connect("source-read", fill_in)
