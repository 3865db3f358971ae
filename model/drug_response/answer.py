"""What a response says about its predictions, in words: drugs, inputs, domain and how to read the numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scpalm.model.drug_response.drugs.drug_search import FoundDrug
from scpalm.model.drug_response.kernel.head import KNOWN_LINE
from scpalm.model.drug_response.predictions import Predictions, Setting
from scpalm.model.drug_response.session import UNITS, DrugResponseSession

# Values of the output `domain`.
DOMAIN_WORDS = (
    "a training line",
    "inside: as near to a training line as these are to each other",
    "outside: farther from every training line than these are from each other; read with care",
    "outside: too few counts, as in a single cell; sum the cells of a type",
)


def domain_codes(found: Predictions) -> NDArray[np.int32]:
    """``[C]`` position in ``DOMAIN_WORDS`` of each cell; -1 for cells without an answer."""
    codes = np.where(found.cell_outside, 2, 1)
    if found.relative is not None:
        codes = np.where(found.cell_distance < KNOWN_LINE, 0, codes)
        codes = np.where(found.relative.sparse, 3, codes)
    return np.where(np.isnan(found.cell_distance), -1, codes).astype(np.int32)


def line_names(head: DrugResponseSession) -> tuple[str, ...]:
    """Names of the training lines: DepMap id and TCGA type."""
    return tuple(f"{line.id} {line.type}".strip() for line in head.kernel.lines) if head.kernel else ()


def described(head: DrugResponseSession, found: FoundDrug, similarity: float, *, outside: bool) -> dict[str, object]:
    """What the response says of a drug; what was changed or is doubtful only where there is something to say."""
    drug = found.drug
    about: dict[str, object] = {
        "name": drug.name,
        "pubchem_id": drug.pubchem_id,
        "smiles": drug.smiles,
        "in_training": drug.in_training,
        "similarity_to_training": round(similarity, 3),
        "outside_training_domain": outside,
    }
    if head.kernel is not None:
        about["mean_of_training_lines"] = round(head.kernel.mean_of(drug), 4)
    if found.asked != drug.name:
        about["asked"] = found.asked
    if found.changes:
        about["standardised"] = list(found.changes)
    if drug.doubt is not None:
        about["structure"], about["structure_note"] = drug.doubt.standing, drug.doubt.reason
    return about


def about_inputs(head: DrugResponseSession, setting: Setting, sent: Sequence[str]) -> dict[str, object]:
    """Which inputs the predictions used, and why not others.

    ``sent``: names of the optional inputs in the request.
    """
    used = {"expression": ["expression"], "mutation": ["expression", "mutation"]}.get(
        setting, ["expression", "mutation", "methylation"]
    )
    about: dict[str, object] = {"inputs": setting, "inputs_used": used}
    if unused := [name for name in sent if name not in used]:
        about["inputs_not_used"] = dict.fromkeys(
            unused, "It did not improve predictions of lines that were left out of training."
        )
    return about


def how_to_read(head: DrugResponseSession, setting: Setting) -> dict[str, object]:
    """Units, intervals, domain and terms."""
    about: dict[str, object] = {
        "units": UNITS,
        "interval": {"level": head.level_of(setting), "lower": "ic50_lower", "upper": "ic50_upper"},
        "cell_distance_of_training": head.domain.cell_distance,
        "training_tissues": list(head.tissues),
        "no_answer": f"null (NaN): the cell expresses none of the {len(head.panel)} genes the model uses.",
        "terms": head.terms,
    }
    if head.kernel is not None:
        about["relative"] = (
            "ic50_relative: difference to the drug's mean over the training lines; ic50_percentile: share of those "
            "lines that are predicted at least as sensitive; ic50_rank: rank of the drug by its difference, 1 for the "
            "most sensitive. ln IC50 itself ranks potency, which is nearly the same for all cells."
        )
        about["domain"] = (
            "cell_distance: 1 minus the correlation with the nearest training line over the measured genes."
        )
    return about
