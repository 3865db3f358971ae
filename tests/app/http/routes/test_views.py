"""What the cells of a job look like over HTTP, with the fake session."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from tests.app.fakes import Client
from tests.app.http.routes.test_jobs import ASYNC, accepted, wait

NPY = {"Accept": "application/x-npy, application/json"}
NUM_CELLS = 40


@pytest.fixture
def cells() -> AnnData:
    """40 cells of 30 genes with groups, numbers and a map."""
    counts = np.random.default_rng(0).poisson(0.5, (NUM_CELLS, 30)).astype(np.float32)
    counts[:, 0] = 1
    cells = AnnData(sparse.csr_matrix(counts))
    cells.obs_names = [f"cell{n}" for n in range(NUM_CELLS)]
    cells.var_names = [f"GENE{n}" for n in range(30)]
    cells.obs["group"] = [("b", "a", "")[n % 3] for n in range(NUM_CELLS)]
    cells.obs["cluster"] = [str(n % 11) for n in range(NUM_CELLS)]
    cells.obs["depth"] = np.linspace(0, 1, NUM_CELLS)
    cells.obs["group"] = cells.obs["group"].astype("category")
    cells.uns["group_colors"] = np.array(["#aabbcc", "#00ff00ff", "#123456"], dtype=object)
    cells.uns["cluster_colors"] = np.array(["red"], dtype=object)  # not as many as there are clusters
    cells.uns["depth_colors"] = np.array(["#<script>"], dtype=object)
    cells.obsm["X_umap"] = np.random.default_rng(1).normal(size=(NUM_CELLS, 3)).astype(np.float32)
    return cells


@pytest.fixture
def job(own_client: Client, cells: AnnData, tmp_path: Path) -> str:
    """The location of a finished job with the embedding and codes of these cells."""
    cells.write_h5ad(tmp_path / "cells.h5ad")
    with (tmp_path / "cells.h5ad").open("rb") as file:
        location = accepted(own_client.post("/embed?also=pathways", files={"file": file}, headers=ASYNC))
    assert wait(own_client, location)["state"] == "succeeded"
    return location


def column(client: Client, job: str, source: str, name: str, **headers: str) -> Any:
    answer = client.get(f"{job}/column", params={"source": source, "name": name}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def log1p_cp10k(cells: AnnData) -> np.ndarray[Any, Any]:
    counts = cells.X.toarray().astype(np.float64)
    return np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))


def test_the_view_says_what_there_is(own_client: Client, job: str) -> None:
    view = own_client.get(f"{job}/view").json()
    assert view["num_cells"] == NUM_CELLS
    assert [output["name"] for output in view["outputs"]] == ["embed", "pathways"]
    assert view["obs"] == ["group", "cluster", "depth"] and view["maps"] == ["X_umap"]
    assert view["colors"] == {"group": {"": "#aabbcc", "a": "#00ff00", "b": "#123456"}}
    assert view["note"]["input"]["detected"] == "counts" and view["note"]["coverage"]["genes_matched"] == 30
    assert own_client.get(f"{job}/cells").json() == [f"cell{n}" for n in range(NUM_CELLS)]


def test_a_gene_has_its_measured_values(own_client: Client, job: str, cells: AnnData) -> None:
    for gene in (0, 7, 29):
        answer = column(own_client, job, "gene", f"GENE{gene}", **NPY)
        assert answer.headers["content-type"] == "application/x-npy"
        np.testing.assert_allclose(np.load(io.BytesIO(answer.content)), log1p_cp10k(cells)[:, gene], rtol=1e-6)
    assert column(own_client, job, "gene", "GENE0").json()["kind"] == "numbers"


def test_columns_of_the_file_are_texts_or_numbers(own_client: Client, job: str, cells: AnnData) -> None:
    groups = column(own_client, job, "obs", "group", **NPY).json()
    assert groups["categories"] == ["a", "b"]
    assert groups["values"][:3] == [1, 0, -1], "a missing text is no category"
    clusters = column(own_client, job, "obs", "cluster").json()
    assert clusters["categories"] == [str(n) for n in range(11)], "few whole numbers are categories, in order"
    depth = np.load(io.BytesIO(column(own_client, job, "obs", "depth", **NPY).content))
    np.testing.assert_array_equal(depth, cells.obs["depth"].to_numpy(np.float32))
    positions = np.load(io.BytesIO(column(own_client, job, "map", "X_umap", **NPY).content))
    np.testing.assert_array_equal(positions, cells.obsm["X_umap"][:, :2])


def test_a_code_has_its_share_of_tokens(own_client: Client, job: str) -> None:
    result = own_client.get(f"{job}/result", headers={"Accept": "application/json"}).json()
    codes = np.array(result["pathways"]["values"])
    share = column(own_client, job, "code", "0").json()["values"]
    np.testing.assert_allclose(share, (codes == 0).mean(axis=1), rtol=1e-6)


def test_profiles_are_sums_of_counts(own_client: Client, job: str, cells: AnnData) -> None:
    found = own_client.get(f"{job}/profiles", params={"source": "obs", "name": "group"}).json()
    assert found["obs_names"] == ["a", "b"] and found["values"] == "counts"
    table = sparse.csr_matrix((found["data"], found["indices"], found["indptr"]), shape=(2, len(found["genes"])))
    for row, name in enumerate(found["obs_names"]):
        expected = np.asarray(cells[cells.obs["group"] == name, found["genes"]].X.sum(axis=0)).ravel()
        np.testing.assert_array_equal(table.toarray()[row], expected)
    assert found["num_cells"] == [int((cells.obs["group"] == name).sum()) for name in ("a", "b")]


def test_a_selection_is_compared_with_the_rest(own_client: Client, job: str, cells: AnnData) -> None:
    rows = list(range(10))
    found = own_client.post(f"{job}/selection", json={"rows": rows}).json()["genes"]
    inside, outside = log1p_cp10k(cells)[:10].mean(axis=0), log1p_cp10k(cells)[10:].mean(axis=0)
    best = int((inside - outside).argmax())
    assert found[0]["gene"] == f"GENE{best}"
    assert found[0]["inside"] == pytest.approx(inside[best], abs=1e-4)
    assert found[0]["outside"] == pytest.approx(outside[best], abs=1e-4)
    codes = own_client.post(f"{job}/selection", json={"rows": rows, "compare": "codes"}).json()["codes"]
    assert all(one["inside"] > one["outside"] for one in codes)
    wrong: object
    for wrong in ({"rows": [NUM_CELLS]}, {"rows": [-1]}, {"rows": []}, {"rows": [0], "compare": "x"}, [], "rows"):
        assert own_client.post(f"{job}/selection", json=wrong).status_code == 422, wrong
    assert own_client.post(f"{job}/selection", content=b" " * (17 << 20)).status_code == 413


def test_more_tasks_need_no_second_upload(own_client: Client, job: str) -> None:
    first, again = (accepted(own_client.post(f"{job}/more?task=embed")) for _ in range(2))
    assert first == again
    assert wait(own_client, first)["state"] == "succeeded"
    whole, alone = (own_client.get(f"{path}/result", headers={"Accept": "application/json"}) for path in (job, first))
    assert whole.json()["values"] == alone.json()["values"]


@pytest.mark.parametrize(
    ("source", "name", "status"),
    [
        ("gene", "NO_GENE", 404),
        ("result", "umap", 404),
        ("code", "99999", 404),
        ("code", "x", 404),
        ("map", "X_tsne", 404),
        ("obs", "nothing", 422),
        ("elsewhere", "x", 422),
    ],
)
def test_unknown_columns_are_refused(own_client: Client, job: str, source: str, name: str, status: int) -> None:
    answer = own_client.get(f"{job}/column", params={"source": source, "name": name})
    assert answer.status_code == status and answer.headers["content-type"] == "application/problem+json"


def test_unknown_jobs_are_refused(own_client: Client) -> None:
    for path in ("view", "cells", "column?source=gene&name=GENE0", "profiles?source=obs&name=group"):
        assert own_client.get(f"/jobs/none/{path}").status_code == 404


def test_umap_adds_a_map_and_clusters(own_client: Client, cells: AnnData, tmp_path: Path) -> None:
    cells.write_h5ad(tmp_path / "cells.h5ad")
    with (tmp_path / "cells.h5ad").open("rb") as file:
        content = own_client.post("/umap", files={"file": file}).content
        file.seek(0)
        location = accepted(own_client.post("/umap", files={"file": file}, headers=ASYNC))
    assert wait(own_client, location)["state"] == "succeeded"
    (tmp_path / "at_once.h5ad").write_bytes(content)
    (tmp_path / "job.h5ad").write_bytes(own_client.get(f"{location}/result").content)
    at_once, from_job = (anndata.read_h5ad(tmp_path / name) for name in ("at_once.h5ad", "job.h5ad"))
    assert at_once.obsm["X_scpalm_umap"].shape == (NUM_CELLS, 2)
    assert at_once.obs["scpalm_cluster"].cat.categories[0] == "0"
    assert "X_scpalm_umap_embedding" not in at_once.obsm, "a hidden output is no result"
    np.testing.assert_array_equal(at_once.obsm["X_scpalm_umap"], from_job.obsm["X_scpalm_umap"])
    assert list(at_once.obs["scpalm_cluster"]) == list(from_job.obs["scpalm_cluster"])
