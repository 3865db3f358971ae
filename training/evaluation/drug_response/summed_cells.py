"""Judge predictions from summed single cells of known cell lines, next to those from the lines' own bulk profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scpalm.model.drug_response.cell_inputs import bulk_matrix
from scpalm.model.drug_response.predictions import Predictions
from scpalm.model.drug_response.session import DrugResponseSession, drug_response_of
from scpalm.model.engine import Engine
from scpalm.model.genes.prepare import Preparer
from scpalm.model.genes.rows import Rows
from scpalm.model.genes.values.declared import Declaration
from scpalm.model.spec import RequestSpec
from scpalm.training.drug_response.data.tables import Tables
from scpalm.training.drug_response.kernel.export import training_rows
from scpalm.training.drug_response.kernel.fit import Responses
from scpalm.training.evaluation.drug_response.metrics import pcc
from scpalm.training.metrics.rows import Row
from scpalm.training.runs.config import ConfigError

if TYPE_CHECKING:
    from anndata import AnnData


def summed_rows(
    tables: Tables, engine: Engine, files: Sequence[Path], lines: Mapping[str, str], label: str
) -> list[Row]:
    """Rows for each file and line: ``r`` is the correlation over drugs after each drug's mean is removed.

    Args:
        tables: the responses. engine: with a kernel head.
        files: h5ad files of single cells, with the name of the line in ``obs[label]``.
        lines: DepMap id by that name. None of them may be among the head's training lines.

    Raises ConfigError for a line that the head was trained on, or that the tables lack.
    """
    head = drug_response_of(engine.bundle)
    trained = {line.id for line in head.kernel.lines} if head.kernel else set()
    number = {str(line): at for at, line in enumerate(tables.lines)}
    for name, line in lines.items():
        if line in trained or line not in number:
            reason = "is among the training lines of the head" if line in trained else "is not in expression.parquet"
            raise ConfigError(f"{name} ({line}) {reason}.")
    responses = Responses.of(tables, np.arange(tables.num_rows))
    kept = np.setdiff1d(np.unique(tables.line_of[training_rows(tables)]), [number[line] for line in lines.values()])
    measured = responses.measured[kept]
    means = (responses.mean[kept] * measured).sum(axis=0) / np.maximum(measured.sum(axis=0), 1)
    out: list[Row] = []
    for file in files:
        names, summed, genes = _summed(engine, head, file, label)
        for row, name in enumerate(names):
            if name not in lines:
                continue
            at_line = number[lines[name]]
            bulk = head.predict(*_bulk(engine, head, tables, at_line, genes), head.drugs.resolve([]))
            for method, found, at in (("summed cells", summed, row), ("own bulk profile, same genes", bulk, 0)):
                about: Row = {"dataset": f"{file.stem}, {name}", "method": method, "seed": 0}
                out.append(about | _scores(found, at, responses, at_line, means))
    return out


def _scores(found: Predictions, row: int, responses: Responses, line: int, means: NDArray[np.floating]) -> Row:
    known = responses.measured[line]
    answer = responses.mean[line, known]
    inside = (found.lower[row, known] <= answer) & (answer <= found.upper[row, known])
    return {
        "r": round(pcc(found.ln_ic50[row, known] - means[known], answer - means[known]), 4),
        "coverage": round(float(inside.mean()), 4),
        "distance": round(float(found.cell_distance[row]), 3),
    }


def _summed(
    engine: Engine, head: DrugResponseSession, file: Path, label: str
) -> tuple[list[str], Predictions, list[str]]:
    """Names of the groups, their predictions, and the genes of the panel that the file measured."""
    with engine.stream(_single_cells(file), RequestSpec(("ic50",), {"by": label})) as stream:
        (prepared,) = list(stream.reader)
    rows = head.panel.only(prepared.rows)
    measured = np.isfinite(head.panel.values(rows)[0])
    found = head.predict(engine.encode(prepared, tokens=False).embedding, rows, head.drugs.resolve([]))
    return prepared.cells, found, [gene for gene, has in zip(head.panel.genes, measured, strict=True) if has]


def _single_cells(file: Path) -> AnnData:
    """The cells of a file without doublets, where demuxlet found them."""
    import anndata

    cells = anndata.read_h5ad(file)
    return cells[cells.obs["demuxlet_cls"] == "SNG"].copy() if "demuxlet_cls" in cells.obs else cells


def _bulk(
    engine: Engine, head: DrugResponseSession, tables: Tables, line: int, genes: list[str]
) -> tuple[NDArray[np.float32], Rows]:
    columns = [tables.genes.index(gene) for gene in genes]
    matrix = bulk_matrix(tables.expression[[line]][:, columns], genes, [str(tables.lines[line])])
    prepared = Preparer(engine.bundle.vocabulary, genes, Declaration("log_cp10k")).prepare(matrix)
    return engine.encode(prepared, tokens=False).embedding, head.panel.only(prepared.rows)


def summary_lines(rows: Sequence[Row]) -> list[str]:
    """For each file and method: mean r and coverage over its lines; at the end, over all."""
    groups = dict.fromkeys(str(row["dataset"]).rpartition(", ")[0] for row in rows)
    out = []
    for group in [*groups, ""]:
        for method in dict.fromkeys(str(row["method"]) for row in rows):
            own = [row for row in rows if row["method"] == method and str(row["dataset"]).startswith(group)]
            r, held = (np.mean([float(row[name]) for row in own]) for name in ("r", "coverage"))
            out.append(f"{group or 'all'}: {method}: r {r:.3f}, coverage {held:.3f} ({len(own)} lines)")
    return out
