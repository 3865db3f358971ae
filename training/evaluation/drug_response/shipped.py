"""Score the head of a bundle through the code that the service runs: rows, encoder, panel, arrays."""

from __future__ import annotations

import numpy as np

from scpalm.model.bundle import Bundle
from scpalm.model.drug_response.session import DrugResponseSession
from scpalm.training.drug_response.data.splits import make_split
from scpalm.training.drug_response.data.tables import Tables
from scpalm.training.drug_response.features import embed_lines
from scpalm.training.evaluation.drug_response.metrics import coverage
from scpalm.training.evaluation.drug_response.report import reference_rows, score_rows
from scpalm.training.metrics.rows import Row


def shipped_rows(tables: Tables, bundle: Bundle) -> list[Row]:
    """Rows of each setting of the bundle and of the references, on ``published`` and ``pair-dedup`` test rows.

    Raises BundleError when the bundle has no head.
    """
    session, lines = DrugResponseSession(bundle), embed_lines(tables, bundle)
    number = {drug.pubchem_id: place for place, drug in enumerate(session.drugs.drugs)}
    drugs = [
        session.drugs.drugs[number[drug.pubchem_id]] if drug.pubchem_id in number else drug for drug in tables.drugs
    ]
    rows: list[Row] = []
    for split_name in ("published", "pair-dedup"):
        split = make_split(tables, split_name, 0)
        rows += reference_rows(tables, split_name, [0])
        pairs = tables.line_of[split.test], tables.drug_of[split.test]
        measured = tables.ln_ic50[split.test]
        for setting in session.settings:
            answer = session.predict(
                lines.h_c,
                lines.rows,
                drugs,
                mutation=None if setting == "expression" else tables.mutation,
                methylation=tables.methylation if setting == "methylation" else None,
            )
            held = coverage(answer.lower[pairs], answer.upper[pairs], measured)
            width = float(np.mean(answer.upper[pairs] - answer.lower[pairs]))
            row: Row = {
                "dataset": f"drug response, {split_name}, test",
                "method": f"shipped head, {setting}",
                "seed": -1,
                "coverage": round(held, 5),
                "level": answer.level,
                "interval_width": round(width, 4),
            }
            rows.append(row | score_rows(tables, split, answer.ln_ic50[pairs], split.test))
    return rows
