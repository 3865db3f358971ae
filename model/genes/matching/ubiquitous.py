"""Genes that nearly every human cell expresses. If they do not stand out, the names are not those of the columns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scpalm.model.genes.vocabulary import Vocabulary

# Among the most expressed genes of all tissues and technologies: of ribosomes, mitochondria, cytoskeleton, metabolism.
UBIQUITOUS = (
    "ACTB",
    "ACTG1",
    "B2M",
    "CALM1",
    "CALM2",
    "CFL1",
    "COX4I1",
    "COX6C",
    "COX7C",
    "EEF1A1",
    "EEF1B2",
    "EEF2",
    "EIF1",
    "FAU",
    "FTH1",
    "FTL",
    "GAPDH",
    "GNAS",
    "H3-3B",
    "HNRNPA1",
    "HNRNPA2B1",
    "HSP90AB1",
    "HSPA8",
    "LDHA",
    "MYL6",
    "MT-ATP6",
    "MT-CO1",
    "MT-CO2",
    "MT-CO3",
    "MT-CYB",
    "MT-ND1",
    "MT-ND2",
    "MT-ND4",
    "NACA",
    "NPM1",
    "OAZ1",
    "PABPC1",
    "PFN1",
    "PPIA",
    "PTMA",
    "RACK1",
    "RPL10",
    "RPL10A",
    "RPL11",
    "RPL13",
    "RPL15",
    "RPL19",
    "RPL3",
    "RPL30",
    "RPL32",
    "RPL37A",
    "RPL4",
    "RPL5",
    "RPL6",
    "RPL7A",
    "RPL8",
    "RPLP0",
    "RPLP1",
    "RPS11",
    "RPS12",
    "RPS14",
    "RPS18",
    "RPS19",
    "RPS2",
    "RPS23",
    "RPS24",
    "RPS27A",
    "RPS3",
    "RPS3A",
    "RPS4X",
    "RPS6",
    "RPS8",
    "SERF2",
    "SLC25A5",
    "TMSB10",
    "TMSB4X",
    "TPT1",
    "TUBA1B",
    "UBA52",
    "UBB",
    "UBC",
    "VIM",
    "YBX1",
)
_FEW_CELLS, _MOST_CELLS = 16, 32
_FEW_UBIQUITOUS, _FEW_OTHERS = 40, 1000
# Probability that such a gene is seen in more cells than another one: 0.75 or more in real files of 32 cells, 0.62 or
# less after their names were shifted or shuffled.
_STANDS_OUT = 0.65

MISNAMED = (
    "Genes that nearly all human cells express (ACTB, RPL10, MT-CO1 ...) are seen no more often than others. Check "
    "that the names belong to the columns, and that the values are counts of human cells."
)


def names_fit(
    vocabulary: Vocabulary, measured: NDArray[np.bool_], indptr: NDArray[np.int64], genes: NDArray[np.int32]
) -> bool:
    """Whether ubiquitous genes stand out in the first cells; True if there are too few cells or genes to tell.

    Args:
        vocabulary: G genes.
        measured: ``[G]``, genes that have a column.
        indptr: ``[B + 1]`` boundaries of the cells.
        genes: ``[entries]`` expressed genes of each cell.
    """
    num_cells = min(len(indptr) - 1, _MOST_CELLS)
    if num_cells < _FEW_CELLS:
        return True
    known = [vocabulary.by_symbol[name] for name in UBIQUITOUS if name in vocabulary.by_symbol]
    ubiquitous = np.zeros(len(vocabulary), bool)
    ubiquitous[known] = True
    seen = np.bincount(genes[: int(indptr[num_cells])], minlength=len(vocabulary))
    first, others = seen[measured & ubiquitous], seen[measured & ~ubiquitous]
    if len(first) < _FEW_UBIQUITOUS or len(others) < _FEW_OTHERS:
        return True
    # The area under the curve: for each number of cells, how many other genes were seen in fewer, and as many.
    sizes = np.bincount(others, minlength=num_cells + 1)
    below = np.cumsum(sizes) - sizes
    return float((below[first] + sizes[first] / 2).mean() / len(others)) >= _STANDS_OUT
