"""Imputation, pathways and combined results of the real model, over HTTP and from the command line."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import anndata
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.e2e.conftest import BUNDLE, Server
from tests.e2e.test_serve import H5AD, as_json


def ask(server: Server, path: str, cells: anndata.AnnData) -> dict[str, object]:
    answer = httpx.post(f"{server.url}{path}", json=as_json(cells), timeout=120)
    assert answer.status_code == 200, answer.text
    members: dict[str, object] = answer.json()
    return members


def npy(server: Server, path: str, cells: anndata.AnnData) -> NDArray[np.float32]:
    answer = httpx.post(
        f"{server.url}{path}", json=as_json(cells), headers={"Accept": "application/x-npy"}, timeout=120
    )
    assert answer.status_code == 200, answer.text
    values: NDArray[np.float32] = np.load(io.BytesIO(answer.content))
    return values


def test_an_imputed_value_is_independent_of_other_genes_and_cells(server: Server, cells: Path) -> None:
    data = anndata.read_h5ad(cells)
    symbols = httpx.get(f"{server.url}/models/mini/genes").json()["symbols"]
    everything = npy(server, "/impute", data)
    assert everything.shape == (150, len(symbols)) and everything.dtype == np.float32 and everything.min() >= 0
    chosen = [symbols[100], symbols[3], symbols[-1]]
    some = npy(server, f"/impute?genes={','.join(chosen)}", data[7:9].copy())
    np.testing.assert_array_equal(some, everything[7:9][:, [100, 3, len(symbols) - 1]])
    assert ask(server, f"/impute?genes={chosen[1]}", data[:2].copy())["columns"] == [chosen[1]]
    # Counts at the depth of the cell: invert the log values.
    counts = npy(server, f"/impute?scale=counts&genes={','.join(chosen)}", data[7:9].copy())
    depth = np.asarray(data.X[7:9].sum(axis=1)).reshape(-1, 1)
    np.testing.assert_allclose(counts, np.expm1(some) * depth / 1e4, rtol=1e-5)


def test_combined_results_equal_those_of_the_single_routes(server: Server, cells: Path) -> None:
    data = anndata.read_h5ad(cells)[:20].copy()
    gene = data.var_names[0]
    together = ask(server, f"/embed?also=pathways,impute&genes={gene}", data)
    assert together["values"] == ask(server, "/embed", data)["values"]
    for name, path in (("pathways", "/pathways"), ("impute", f"/impute?genes={gene}")):
        part = together[name]
        assert isinstance(part, dict) and part["values"] == ask(server, path, data)["values"]
    codes = np.array(ask(server, "/pathways", data)["values"])
    shares = np.array(ask(server, "/pathways?summary=true", data)["values"])
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(shares[0, codes[0, 0]], (codes[0] == codes[0, 0]).mean(), rtol=1e-5)


def test_service_and_command_line_add_the_layer_to_the_uploaded_file(
    server: Server, cells: Path, tmp_path: Path
) -> None:
    data = anndata.read_h5ad(cells)
    data.var_names = ["nobody", *data.var_names[1:]]
    data.write_h5ad(tmp_path / "in.h5ad")
    with (tmp_path / "in.h5ad").open("rb") as file:
        answer = httpx.post(f"{server.url}/impute", content=file, headers={"Content-Type": H5AD}, timeout=120)
    assert answer.status_code == 200, answer.text
    (tmp_path / "out.h5ad").write_bytes(answer.content)
    served = anndata.read_h5ad(tmp_path / "out.h5ad").layers["scpalm_imputed"]
    assert served.shape == data.shape and np.isnan(served[:, 0]).all() and np.isfinite(served[:, 1:]).all()
    gene = data.var_names[5]
    np.testing.assert_array_equal(served[:3, 5], npy(server, f"/impute?genes={gene}", data[:3].copy())[:, 0])
    command = [
        sys.executable,
        "-m",
        "scpalm.app.cli",
        "impute",
        str(tmp_path / "in.h5ad"),
        "-o",
        str(tmp_path / "cli.h5ad"),
    ]
    subprocess.run([*command, "--bundle", str(BUNDLE)], check=True, cwd=Path(__file__).parents[2], capture_output=True)
    np.testing.assert_array_equal(anndata.read_h5ad(tmp_path / "cli.h5ad").layers["scpalm_imputed"], served)


@pytest.mark.parametrize(
    ("path", "status", "word"),
    [
        ("/impute?genes=CD3D,NOSUCHGENE", 422, "NOSUCHGENE"),
        ("/embed?also=everything", 422, "everything"),
        ("/impute?scale=tpm", 422, "scale"),
    ],
)
def test_invalid_options_are_named(server: Server, cells: Path, path: str, status: int, word: str) -> None:
    data = anndata.read_h5ad(cells)[:2].copy()
    answer = httpx.post(f"{server.url}{path}", json=as_json(data), timeout=60)
    assert answer.status_code == status and word in answer.json()["detail"]


def test_the_packaged_model_says_which_inputs_it_used(server: Server, cells: Path) -> None:
    from scpalm.model.bundle import Bundle
    from scpalm.model.drug_response.session import drug_response_of

    head = drug_response_of(Bundle.load(BUNDLE))
    body = as_json(anndata.read_h5ad(cells)[:3].copy())
    random = np.random.default_rng(0)
    calls, shares = (
        random.integers(0, 2, (3, len(head.mutation_names))),
        random.random((3, len(head.methylation_names))),
    )
    sent = {
        "mutation": {"genes": list(head.mutation_names), "values": calls.tolist()},
        "methylation": {"genes": list(head.methylation_names), "values": shares.tolist()},
    }
    found, used = {}, {}
    for setting, members in (
        ("expression", {}),
        ("mutation", {"mutation": sent["mutation"]}),
        ("methylation", sent),
    ):
        answer = httpx.post(f"{server.url}/ic50?drugs=Cisplatin", json={**body, **members}, timeout=120)
        assert answer.status_code == 200, answer.text
        about = answer.json()["drug_response"]
        wanted = head.setting_of(mutation="mutation" in members, methylation="methylation" in members)
        assert about["inputs"] == about["inputs_used"][-1] == wanted
        assert list(about.get("inputs_not_used", {})) == ([] if wanted == setting else [setting])
        found[setting], used[setting] = np.array(answer.json()["values"], np.float32), wanted
    read = used["methylation"] == "methylation"
    assert (np.abs(found["methylation"] - found["mutation"]).max() > 0) == read
    assert np.abs(found["mutation"] - found["expression"]).max() > 0
