"""Which mutated genes have an effect on which drugs, beyond what expression already explains."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from scpalm.model.drug_response.drugs.drug import Drug

Floats = NDArray[np.float32]
MIN_MUTATED = 5  # training lines
# An effect enters above this z-score. Pairs of a driver gene and a drug of that pathway need less evidence.
ANY_PAIR, KNOWN_PAIR = 3.5, 1.0
# Driver genes by the targets that they act on (Iorio et al. 2016, Cell 166:740; Garnett et al. 2012, Nature 483:570).
_MAPK = ("MEK1", "MEK2", "BRAF", "RAF", "ERK1", "ERK2")
_PI3K = ("PI3K", "PI3Kalpha", "PI3Kbeta", "AKT1", "AKT2", "MTORC1", "MTORC2", "MTOR", "PDK1")
PATHWAYS: dict[str, tuple[str, ...]] = {
    "BRAF": _MAPK,
    "NRAS": _MAPK,
    "KRAS": (*_MAPK, "EGFR"),
    "HRAS": _MAPK,
    "NF1": _MAPK,
    "PIK3CA": _PI3K,
    "PTEN": _PI3K,
    "TSC1": _PI3K,
    "TSC2": _PI3K,
    "TP53": ("MDM2",),
    "RB1": ("CDK4", "CDK6"),
    "CDKN2A": ("CDK4", "CDK6"),
    "BRCA1": ("PARP1", "PARP2"),
    "BRCA2": ("PARP1", "PARP2"),
    "ATM": ("PARP1", "CHEK1"),
    "ERBB2": ("EGFR",),
}


def known_pairs(genes: list[str], drugs: tuple[Drug, ...]) -> NDArray[np.bool_]:
    """``[genes, D]``: whether the gene is a target of the drug, or a driver of the pathway of one of its targets."""
    out = np.zeros((len(genes), len(drugs)), dtype=bool)
    for number, drug in enumerate(drugs):
        targets = set(re.findall(r"[A-Za-z0-9]+", drug.targets))
        out[:, number] = [gene in targets or bool(targets & set(PATHWAYS.get(gene, ()))) for gene in genes]
    return out


def centred_calls(calls: NDArray[np.integer], lines: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Calls ``[L, genes]`` minus the frequency ``[genes]`` among ``lines``, 0 where unknown; and the frequency."""
    known = calls >= 0
    frequency = np.where(known, calls, 0)[lines].sum(axis=0) / np.maximum(known[lines].sum(axis=0), 1)
    return np.where(known, calls - frequency, 0).astype(np.float32), frequency.astype(np.float32)


def effect_variances(
    calls: Floats, weights: Floats, information: Floats, known: NDArray[np.bool_], present: Floats
) -> Floats:
    """Prior variances ``[G, D]`` of the effects that enter; those of ``present`` stay.

    Args:
        calls: ``[L, G]`` centred calls of the training lines.
        weights: ``[L, D]`` solution without the new effects.
        information: ``[G, D]`` inverse variance of each effect's estimate, given the kernel.
        known: ``[G, D]`` pairs that pharmacology suggests.
        present: ``[G, D]`` variances so far, 0 for none.

    The score of an effect is ``calls' weights``; its estimate is the score over the information, and the variance is
    what the estimate has beyond its own error (empirical Bayes).
    """
    score = calls.T @ weights
    z = score / np.sqrt(information)
    entering = (np.abs(z) > np.where(known, KNOWN_PAIR, ANY_PAIR)) & (present == 0)
    variance = np.square(score / information)
    return np.where(entering, np.maximum(variance - 1 / information, 0), present).astype(np.float32)
