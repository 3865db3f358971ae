"""Inputs of the branches for each cell line, standardised with the lines of the training rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from scpalm.model.bundle import Bundle
from scpalm.model.drug_response.cell_inputs import CellInputs, Panel, Part, Standardizer, bulk_matrix, mutation_features
from scpalm.model.drug_response.network import CellTensors
from scpalm.model.engine import load
from scpalm.model.genes.prepare import Preparer
from scpalm.model.genes.rows import Rows
from scpalm.model.genes.values.declared import Declaration
from scpalm.training.drug_response.config import Inputs, Setting
from scpalm.training.drug_response.data.tables import Tables, TablesError

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LineEmbeddings:
    """h_C of the lines of ``tables``, and the panel it was computed from.

    Attributes:
        panel: the genes of the tables in the bundle's vocabulary. rows: the lines, as a session reads them.
        h_c: ``[L, D]``. codes: ``[L, N]`` pathway codes that it was made from. genes: ``[L, P]`` log1p CP10K.
    """

    panel: Panel
    rows: Rows
    h_c: Floats
    codes: NDArray[np.int32]
    genes: Floats


def embed_lines(tables: Tables, bundle: Bundle, *, threads: int | None = None) -> LineEmbeddings:
    """Encode the bulk profiles with the frozen encoder, through the code that the service runs."""
    preparer = Preparer(bundle.vocabulary, tables.genes, Declaration("log_cp10k"))
    rows = preparer.prepare(bulk_matrix(tables.expression, tables.genes, tables.lines.tolist())).rows
    panel = Panel(tables.genes, bundle.vocabulary)
    rows = panel.only(rows)
    encoded = load(bundle, "cpu", threads=threads).session.encode(rows)
    return LineEmbeddings(panel, rows, encoded.h_C, encoded.codes, panel.values(rows))


@dataclass(frozen=True, eq=False)
class LineFeatures:
    """Z-scores of all L lines for one set of training lines.

    Attributes:
        tensors: one ``[L, width]`` per branch. standards: of each branch, by name.
        cell_inputs: computes the same features for a user's cell; None for inputs that are not served.
    """

    tensors: CellTensors
    standards: dict[str, Standardizer]
    cell_inputs: CellInputs | None

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(part.shape[1] for part in self.tensors.branches)


PARTS: dict[Inputs, tuple[Part, ...]] = {"h_C": ("h_C",), "genes": ("genes",), "h_C+genes": ("h_C", "genes")}


def line_features(
    tables: Tables, lines: LineEmbeddings, inputs: Inputs, setting: Setting, train_lines: NDArray[np.int64]
) -> LineFeatures:
    """Features of every line. Raises TablesError when the tables lack the inputs."""
    raw: dict[str, Floats] = {"cell": _cell(tables, lines, inputs, train_lines)}
    if setting in ("mutation", "methylation"):
        raw["mutation"] = mutation_features(tables.mutation)
    if setting == "methylation":
        raw["methylation"] = tables.methylation
    standards = {name: Standardizer.fit(values[train_lines]) for name, values in raw.items()}
    scores = tuple(torch.from_numpy(standards[name].apply(values)) for name, values in raw.items())
    served = CellInputs(PARTS[inputs], lines.panel, standards["cell"]) if inputs in PARTS else None
    return LineFeatures(CellTensors(scores), standards, served)


def _cell(tables: Tables, lines: LineEmbeddings, inputs: Inputs, train_lines: NDArray[np.int64]) -> Floats:
    if inputs == "scfoundation":
        if tables.scfoundation is None:
            raise TablesError("inputs=scfoundation needs the file scfoundation_embedding.parquet.")
        return tables.scfoundation
    if inputs == "pca":
        genes = Standardizer.fit(lines.genes[train_lines]).apply(lines.genes)
        rank = min(lines.h_c.shape[1], len(train_lines), genes.shape[1])
        axes = np.linalg.svd(genes[train_lines], full_matrices=False)[2][:rank]
        return (genes @ axes.T).astype(np.float32)
    made: dict[Part, Floats] = {"h_C": lines.h_c, "genes": lines.genes}
    return np.concatenate([made[part] for part in PARTS[inputs]], axis=1)
