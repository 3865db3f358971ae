"""A small census in TileDB-SOMA, laid out like CELLxGENE Census."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from tests.training.tiny import NUM_GENES, tiny_counts

NUM_CELLS = 240
# The second data set did not measure the genes from 90 on.
FEWER_GENES = 90
DATASETS = ("d-one", "d-two", "d-three")


def census_cells() -> AnnData:
    """240 cells of three tissues and three data sets; every eighth is a copy of another study's cell."""
    counts = tiny_counts(NUM_CELLS, seed=7)
    number = np.arange(NUM_CELLS)
    dataset = np.array(DATASETS)[number // 80]
    counts[dataset == "d-two", FEWER_GENES:] = 0
    cells = AnnData(sparse.csr_matrix(counts))
    cells.obs_names = [f"cell-{i}" for i in number]
    cells.var_names = [f"ENSG{i:011d}" for i in range(NUM_GENES)]
    cells.var["feature_name"] = [f"GENE{i}" for i in range(NUM_GENES)]
    cells.obs["dataset_id"] = pd.Categorical(dataset)
    # 12 cells of the eye, 60 of the lung, 168 of blood.
    cells.obs["tissue_general"] = pd.Categorical(
        np.select([number % 20 == 0, number % 4 == 1], ["eye", "lung"], "blood")
    )
    cells.obs["tissue"] = pd.Categorical(["some detail"] * NUM_CELLS)
    cells.obs["cell_type"] = pd.Categorical(np.where(number % 2, "T cell", "B cell"))
    cells.obs["cell_type_ontology_term_id"] = pd.Categorical(np.where(number % 2, "CL:0000084", "CL:0000236"))
    cells.obs["donor_id"] = pd.Categorical([f"donor-{i % 3}" for i in number])
    cells.obs["is_primary_data"] = number % 8 != 7
    return cells


def write_experiment(path: Path) -> Path:
    """An experiment alone."""
    import tiledbsoma.io

    tiledbsoma.io.from_anndata(str(path), census_cells(), "RNA", X_layer_name="raw")
    return path


def write_census(path: Path) -> Path:
    """The experiment of human cells, the table of data sets, and which genes each data set measured."""
    import pyarrow as pa
    import tiledbsoma

    census: Any
    measurement: Any
    with tiledbsoma.Collection.create(str(path)) as census:
        data, info = census.add_new_collection("census_data"), census.add_new_collection("census_info")
        human = write_experiment(path / "census_data" / "homo_sapiens")
        data.set("homo_sapiens", tiledbsoma.open(str(human)), use_relative_uri=True)
        numbers = range(len(DATASETS))
        schema = pa.schema([("soma_joinid", pa.int64()), ("dataset_id", pa.large_string())])
        table = info.add_new_dataframe(
            "datasets", schema=schema, index_column_names=["soma_joinid"], domain=[[0, len(DATASETS) - 1]]
        )
        table.write(pa.table({"soma_joinid": list(numbers), "dataset_id": list(DATASETS)}, schema=schema))
    present = np.ones((len(DATASETS), NUM_GENES), np.uint8)
    present[1, FEWER_GENES:] = 0
    with tiledbsoma.open(str(human / "ms" / "RNA"), "w") as measurement:
        matrix = measurement.add_new_sparse_ndarray(
            "feature_dataset_presence_matrix", type=pa.uint8(), shape=present.shape
        )
        matrix.write(pa.SparseCOOTensor.from_scipy(sparse.coo_matrix(present)))
    return path
