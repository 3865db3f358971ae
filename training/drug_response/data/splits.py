"""Divide the rows into training, validation, calibration and test.

Test rows are given by the split; the rest is divided by seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from scpalm.training.drug_response.data.tables import Tables
from scpalm.training.runs.config import ConfigError

SplitName = Literal["published", "pair-dedup", "cell-line", "drug"]
Rows = NDArray[np.int64]
VALIDATION_SHARE = 0.05
CALIBRATION_SHARE = 0.03
# The calibration rows of a split are the same for every seed: no member of an ensemble may have seen them.
CALIBRATION_SEED = 20_240


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers.

    ``train`` fits weights and statistics, ``validation`` (by seed) selects the epoch, ``calibration`` sets the width of
    intervals, ``test`` is scored once.
    """

    name: SplitName
    seed: int
    train: Rows
    validation: Rows
    calibration: Rows
    test: Rows


def make_split(tables: Tables, name: str, seed: int) -> Split:
    """The rows of a split.

    ``published``: scFoundation's. ``pair-dedup``: the same, without test rows whose pair is in its training rows under
    a second GDSC id. ``cell-line`` and ``drug``: one line in ten of each type, or one drug in ten, by seed, out of
    the published train and test rows. Raises ConfigError for another name, ValueError when a part would be empty.
    """
    if name not in get_args(SplitName):
        raise ConfigError(f"Unknown split '{name}': choose {', '.join(get_args(SplitName))}.")
    random = np.random.default_rng([seed, 1])
    if name in ("published", "pair-dedup"):
        rest, test = (np.flatnonzero(tables.published_split == part) for part in ("train", "test"))
        if name == "pair-dedup":
            test = test[~np.isin(tables.pair_of[test], tables.pair_of[rest])]
        group, calibration_random = tables.pair_of, np.random.default_rng(CALIBRATION_SEED)
    else:
        used = np.flatnonzero(tables.published_split != "unused")
        group = tables.line_of if name == "cell-line" else tables.drug_of
        strata = tables.types[np.unique(tables.line_of[used])] if name == "cell-line" else None
        held = np.isin(group[used], _tenth(np.unique(group[used]), strata, random))
        rest, test = used[~held], used[held]
        calibration_random = np.random.default_rng([CALIBRATION_SEED, seed])
    rest, calibration = _carve(rest, group, CALIBRATION_SHARE, calibration_random)
    train, validation = _carve(rest, group, VALIDATION_SHARE, random)
    for part, rows in (("training", train), ("validation", validation), ("calibration", calibration), ("test", test)):
        if not len(rows):
            raise ValueError(f"Split '{name}' has no {part} row in these tables.")
    return Split(name, seed, train, validation, calibration, test)  # type: ignore[arg-type]


def _tenth(groups: Rows, strata: NDArray[np.str_] | None, random: np.random.Generator) -> Rows:
    if strata is None:
        return random.permutation(groups)[: max(1, len(groups) // 10)]
    chosen: list[Rows] = []
    for stratum in np.unique(strata):
        members = random.permutation(groups[strata == stratum])
        chosen.append(members[: int(np.ceil(len(members) / 10)) if len(members) > 1 else 0])
    return np.concatenate(chosen)


def _carve(rows: Rows, group: Rows, share: float, random: np.random.Generator) -> tuple[Rows, Rows]:
    """Split off a share of whole groups (pairs, lines or drugs); returns the rest and the share."""
    groups = np.unique(group[rows])
    out = np.isin(group[rows], random.permutation(groups)[: max(1, round(share * len(groups)))])
    return rows[~out], rows[out]
