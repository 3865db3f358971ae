"""The examples in the docstrings of the Python API run, and each docstring is complete."""

from __future__ import annotations

import doctest
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import matplotlib
import pytest

import scpalm
import scpalm.pl
import scpalm.tl
from scpalm.model.genes.values.declared import Declaration

METHODS = ("embed", "impute", "pathways", "ic50", "annotate", "integrate", "umap")
FUNCTIONS: dict[str, Any] = {
    "scpalm.load": scpalm.load,
    "scpalm.adapt": scpalm.adapt,
    "scpalm.Engine.stream": scpalm.Engine.stream,
    "scpalm.Engine.map_onto": scpalm.Engine.map_onto,
    "scpalm.tl.engine": scpalm.tl.engine,
    **{f"scpalm.Engine.{name}": getattr(scpalm.Engine, name) for name in METHODS},
    **{f"scpalm.tl.{name}": getattr(scpalm.tl, name) for name in METHODS},
    **{f"scpalm.pl.{name}": getattr(scpalm.pl, name) for name in ("annotation", "coverage", "pathways", "ic50")},
    **{f"scpalm.Client.{name}": getattr(scpalm.Client, name) for name in ("models", "jobs", "resume", "cancel")},
}
# The methods of Client need a server; tests/e2e/test_client.py calls them. Those of Engine are the functions of tl.
# The example of adapt takes seconds; tests/model/adapter/test_adapt.py does the same.
OTHERS = ("scpalm.load", "scpalm.Engine.stream", "scpalm.Engine.map_onto", "scpalm.tl.engine")
RUN = [name for name in FUNCTIONS if name in OTHERS or name.startswith("scpalm.pl.")]


@pytest.fixture(scope="module")
def names(real_cells: anndata.AnnData) -> dict[str, Any]:
    """What the examples use."""
    adata = real_cells.copy()
    half = adata.n_obs // 2
    adata.obs["cell_type"] = ["one"] * half + ["two"] * (adata.n_obs - half)
    adata.obs["leiden"] = adata.obs["cell_type"].to_numpy()
    adata.obs["donor"] = ["a", "b"] * half
    integrated = adata.copy()
    engine = scpalm.tl.engine()
    engine.integrate(integrated, "donor")
    cells = adata.copy()
    for function in (scpalm.tl.annotate, scpalm.tl.pathways):
        function(adata)
    scpalm.tl.ic50(adata, by="cell_type")
    return {
        "cells": cells,
        "adata": adata,
        "new": adata.copy(),
        "integrated": integrated,
        "engine": engine,
        "scpalm": scpalm,
    }


@pytest.mark.parametrize("name", RUN)
def test_the_example_of_a_docstring_runs(
    name: str, names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    names["adata"].write_h5ad("cells.h5ad")
    from scpalm.model.mapping import MapOptions

    _run(inspect.getdoc(FUNCTIONS[name]) or "", {**names, "MapOptions": MapOptions}, name)


@pytest.mark.parametrize(
    "thing", [scpalm, scpalm.tl, scpalm.RequestSpec, Declaration], ids=["scpalm", "tl", "spec", "declared"]
)
def test_the_example_of_a_module_or_class_runs(thing: Any, names: dict[str, Any]) -> None:
    _run(
        inspect.getdoc(thing) or "",
        {**names, "RequestSpec": scpalm.RequestSpec, "Declaration": Declaration},
        str(thing),
    )


def _run(text: str, given: dict[str, Any], name: str) -> None:
    test = doctest.DocTestParser().get_doctest(text, dict(given), name, None, 0)
    assert test.examples, "no example"
    printed: list[str] = []
    failed = doctest.DocTestRunner(verbose=False).run(test, out=printed.append).failed
    assert failed == 0, "".join(printed)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_docstring_names_every_parameter_and_error(name: str) -> None:
    function: Callable[..., Any] = FUNCTIONS[name]
    text = inspect.getdoc(function) or ""
    parameters = [parameter for parameter in inspect.signature(function).parameters if parameter != "self"]
    missing = [one for one in parameters if not re.search(rf"^    \**{one}: ", text, re.MULTILINE)]
    assert missing == []
    assert [section for section in ("Raises:", "Example:") if section not in text] == []
    assert "Returns:" in text or inspect.signature(function).return_annotation in (None, "None")


@pytest.mark.parametrize("name", METHODS)
def test_an_example_of_tl_runs_and_the_docstring_names_every_field_that_it_writes(
    name: str, names: dict[str, Any]
) -> None:
    adata = names["cells"].copy()
    text = inspect.getdoc(getattr(scpalm.tl, name)) or ""
    _run(text, {**names, "adata": adata}, name)
    _assert_fields_are_named(adata, text)


def test_the_docstring_of_ic50_names_the_fields_of_single_cells(names: dict[str, Any]) -> None:
    adata = names["cells"][:5].copy()
    scpalm.tl.ic50(adata, ["Cisplatin"])
    _assert_fields_are_named(adata, inspect.getdoc(scpalm.tl.ic50) or "")


def _assert_fields_are_named(adata: anndata.AnnData, text: str) -> None:
    written = [*adata.obsm, *adata.layers, *(key for key in adata.obs if "scpalm" in key), *adata.uns]
    assert written
    unnamed = [key for key in written if key not in text.replace("{by}", "cell_type") and not key.endswith("_upper")]
    assert [key for key in unnamed if key != "scpalm"] == []
