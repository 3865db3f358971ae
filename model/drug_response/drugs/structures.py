"""Drugs of the published table whose structure is not that of the named drug.

All 223 rows were checked by formula and mass against the name. Tables of the shipped head have the corrected
structures. A head trained with ``--structures published`` learned each drug's responses together with the faulty
graph, so its table keeps it. A row is marked here only while it has the faulty SMILES.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Standing = Literal["unknown", "doubtful"]


@dataclass(frozen=True)
class Doubt:
    """What is wrong with the structure of one drug.

    Attributes:
        standing: ``unknown``: the structure is another compound's. ``doubtful``: a part of it is wrong.
        reason: what is wrong, for users.
        published: the SMILES in the published table.
        true_smiles: the drug's own structure, or "" for what is no small molecule.
        true_id: the drug's own PubChem id, where the table has another; 0 where we do not know it.
    """

    standing: Standing
    reason: str
    published: str
    true_smiles: str = ""
    true_id: int = 0


# PubChem id in the table -> what is wrong with it.
DOUBTS: dict[int, Doubt] = {
    5384616: Doubt(
        "unknown",
        "CID 5384616 is a C9H6N5 radical; sirolimus is CID 5284616, C51H79NO13. The model learned Rapamycin's "
        "responses under that graph.",
        "N#C[N]C(=Nc1ccccc1)NC#N",
        "COC1CC(CCC1O)CC(C)C1CC(=O)C(C)C=C(C)C(O)C(OC)C(=O)C(C)CC(C)C=CC=CC=C(C)C(OC)CC2CCC(C)C(O)(O2)"
        "C(=O)C(=O)N2CCCCC2C(=O)O1",
        5284616,
    ),
    85668777: Doubt(
        "unknown",
        "Cetuximab is an antibody and has no small-molecule structure; CID 85668777 is an indoline dye, C17H23NO2.",
        "C=C1N(CCCCCC(=O)O)c2ccccc2C1(C)C",
    ),
    4263900: Doubt(
        "unknown",
        "CID 4263900 is an isoquinoline, C20H22ClN3O5; QS11 is a purine, C36H33N5O2.",
        "COc1cc2c(cc1OC)CN(C(C)C(=O)Nc1cc([N+](=O)[O-])ccc1Cl)CC2",
        "OCC(Cc1ccccc1)Nc1nc(Oc2ccc3c(c2)CCC3)nc2c1ncn2Cc1ccc(-c2ccccc2)cc1",
    ),
    20635522: Doubt(
        "doubtful",
        "CID 20635522 lacks one methyl group: C31H39N5O4S2; BMS-509744 is C32H41N5O4S2.",
        "COc1cc(C)c(Sc2cnc(NC(=O)c3ccc(CNC(C)C(C)C)cc3)s2)cc1C(=O)N1CCN(C(C)=O)CC1",
        "COc1cc(C)c(Sc2cnc(NC(=O)c3ccc(CNC(C)C(C)(C)C)cc3)s2)cc1C(=O)N1CCN(C(C)=O)CC1",
    ),
    53394750: Doubt(
        "doubtful",
        "The trifluoroacetate of the salt lost two fluorines (OOC#CF) and is part of the graph; the base is right.",
        "CN1CCc2c(c3ccccc3n2Cc2ccc(C(=O)NO)cc2)C1.OOC#CF",
        "CN1CCc2c(c3ccccc3n2Cc2ccc(C(=O)NO)cc2)C1",
    ),
}


def doubt_of(pubchem_id: int | None, smiles: str) -> Doubt | None:
    """What is wrong with the structure of a row of the table, or None."""
    doubt = DOUBTS.get(pubchem_id) if pubchem_id is not None else None
    return doubt if doubt is not None and doubt.published == smiles else None
