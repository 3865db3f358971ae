"""Open a census and read cells from it: columns of obs as a stream, and counts of given cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from scpalm.training.corpus.census.choice import CellBatch
from scpalm.training.corpus.errors import CorpusError

ORGANISM = "homo_sapiens"
MEASUREMENT = "RNA"
COUNTS = "raw"
TISSUE = "tissue_general"
DATASET = "dataset_id"
PRESENCE = "feature_dataset_presence_matrix"
INSTALL = "Install it with: pip install 'scpalm[census]'."


@dataclass(frozen=True)
class CensusQuery:
    """Which cells to take, and from where.

    Attributes:
        value_filter: a SOMA query on obs, such as ``tissue_general == "lung" and is_primary_data == True``.
        uri: a census or a human experiment in TileDB-SOMA, e.g. a folder; None: the public census.
        version: of the public census. layer: matrix of X with the counts.
        max_cells: number of cells to choose, balanced by ``tissue_general``; None: all. seed: of this choice.
    """

    value_filter: str
    uri: str | None = None
    version: str = "stable"
    layer: str = COUNTS
    max_cells: int | None = None
    seed: int = 0


@contextmanager
def open_census(query: CensusQuery) -> Iterator[CensusReader]:
    """Open a census. Raises CorpusError if it cannot be read, also when that happens within the block."""
    try:
        import tiledbsoma
    except ImportError as error:
        raise CorpusError(f"--census needs the package tiledbsoma. {INSTALL}") from error
    source = query.uri or f"the census {query.version}"
    try:
        opened, release = _open(query)
        with opened:
            yield CensusReader(opened, release, query)
    except tiledbsoma.SOMAError as error:
        raise CorpusError(f"{source}: {str(error).splitlines()[0]}") from error


def _open(query: CensusQuery) -> tuple[Any, str]:
    import tiledbsoma

    if query.uri is not None:
        return tiledbsoma.open(query.uri), query.uri
    try:
        import cellxgene_census
    except ImportError as error:
        raise CorpusError(f"The public census needs the package cellxgene-census. {INSTALL}") from error
    release = str(cellxgene_census.get_census_version_description(query.version)["release_build"])
    return cellxgene_census.open_soma(census_version=release), release


class CensusReader:
    """An opened census.

    Attributes:
        release: its date of release, or its URI.
    """

    def __init__(self, opened: Any, release: str, query: CensusQuery) -> None:
        self.release, self._query = release, query
        whole = "census_data" in opened
        self._experiment = opened["census_data"][ORGANISM] if whole else opened
        if "obs" not in self._experiment or MEASUREMENT not in self._experiment.ms:
            raise CorpusError(f"{release} is neither a census nor an experiment with the measurement '{MEASUREMENT}'.")
        self._measurement = self._experiment.ms[MEASUREMENT]
        self._joinid_of = _datasets(opened["census_info"]["datasets"]) if whole else {}
        layers = list(self._measurement.X.keys())
        if query.layer not in layers:
            raise CorpusError(f"{release} has no counts '{query.layer}' in X. There is: {', '.join(layers)}.")
        self._genes = self._read_genes()

    def cells(self) -> Iterator[CellBatch]:
        """The cells that pass the filter, batch by batch. Raises CorpusError, also for a column that is missing."""
        obs = self._experiment.obs
        known = obs.schema.names
        if TISSUE not in known:
            raise CorpusError(f"{self.release} has no column '{TISSUE}' in obs. There is: {', '.join(known)}.")
        columns = ["soma_joinid", TISSUE, *([DATASET] if DATASET in known else [])]
        for table in obs.read(column_names=columns, value_filter=self._query.value_filter):
            frame = table.select(columns).to_pandas()
            dataset = frame[DATASET] if DATASET in frame else pd.Series("census", index=frame.index)
            yield CellBatch(
                frame["soma_joinid"].to_numpy(np.int64),
                frame[TISSUE].astype(str).to_numpy(object),
                dataset.astype(str).to_numpy(object),
            )

    def block(self, joinid: NDArray[np.int64], dataset: str) -> AnnData:
        """Raw counts ``[B, genes of the data set]`` and all columns of obs of these cells (ascending numbers).

        ``obs.tissue`` is the coarse ``tissue_general``; the census' own ``tissue`` becomes ``tissue_detail``.
        """
        obs = self._read_obs(joinid)
        counts = self._read_counts(joinid)
        var = self._genes
        present = self._present(dataset)
        if present is not None:
            counts, var = counts[:, present], var[present]
        return AnnData(counts, obs=obs, var=var)

    def _read_genes(self) -> pd.DataFrame:
        """Genes in the order of their numbers, with Ensembl ids as index where there are any."""
        table = pd.concat([part.to_pandas() for part in self._measurement.var.read()]).sort_values("soma_joinid")
        ids = next((name for name in ("feature_id", "var_id") if name in table), None)
        if ids is None:
            raise CorpusError(f"{self.release} has no column 'feature_id' in var. There is: {', '.join(table)}.")
        genes = pd.DataFrame(index=pd.Index(table[ids].astype(str)))
        if "feature_name" in table:
            genes["feature_name"] = table["feature_name"].astype(str).to_numpy()
        self._gene_joinid = table["soma_joinid"].to_numpy(np.int64)
        return genes

    def _read_obs(self, joinid: NDArray[np.int64]) -> pd.DataFrame:
        parts = [part.to_pandas() for part in self._experiment.obs.read(coords=(joinid,))]
        obs = pd.concat(parts).set_index("soma_joinid").loc[joinid]
        for name in obs:
            if isinstance(obs[name].dtype, pd.CategoricalDtype) or obs[name].dtype == object:
                obs[name] = obs[name].astype(str)  # also missing values, which h5ad cannot hold among strings
        if "tissue" in obs:
            obs = obs.rename(columns={"tissue": "tissue_detail"})
        obs["tissue"] = obs[TISSUE].astype(str)
        obs.index = obs.index.astype(str).rename("cell")
        return obs

    def _read_counts(self, joinid: NDArray[np.int64]) -> sparse.csr_matrix:
        rows, columns, values = [], [], []
        for table in self._measurement.X[self._query.layer].read((joinid,)).tables():
            rows.append(np.searchsorted(joinid, table["soma_dim_0"].to_numpy()).astype(np.int32))
            columns.append(np.searchsorted(self._gene_joinid, table["soma_dim_1"].to_numpy()).astype(np.int32))
            values.append(table["soma_data"].to_numpy().astype(np.float32))
        entries = (_joined(values, np.float32), (_joined(rows, np.int32), _joined(columns, np.int32)))
        counts = sparse.csr_matrix(entries, shape=(len(joinid), len(self._genes)))
        counts.sort_indices()
        return counts

    def _present(self, dataset: str) -> NDArray[np.bool_] | None:
        """``[genes]`` bool, the genes that the data set measured; None if the census does not say so."""
        number = self._joinid_of.get(dataset)
        if number is None or PRESENCE not in self._measurement:
            return None
        table = self._measurement[PRESENCE].read((number,)).tables().concat()
        measured = table["soma_dim_1"].to_numpy()[table["soma_data"].to_numpy() != 0]
        return np.asarray(np.isin(self._gene_joinid, measured))


def _datasets(table: Any) -> dict[str, int]:
    parts = [part.to_pandas() for part in table.read(column_names=["soma_joinid", DATASET])]
    frame = pd.concat(parts)
    return dict(zip(frame[DATASET].astype(str), frame["soma_joinid"].astype(int), strict=True))


def _joined(parts: Sequence[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *parts])
