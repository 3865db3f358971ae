"""The vote: cells of a group share the label that most of them have."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def vote(
    labels: NDArray[np.int32], groups: NDArray[np.int32], num_labels: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The label of each cell's group, and the share of the group that voted for it.

    A tie goes to the lower code. A cell without a group (-1) keeps its own label, with share 1.

    Args:
        labels: ``[B]`` codes from 0 to ``num_labels - 1``.
        groups: ``[B]`` codes of the groups, -1 for none.
        num_labels: number of labels.

    Example:
        >>> vote(np.array([0, 0, 1], np.int32), np.array([0, 0, 0], np.int32), 2)[0].tolist()
        [0, 0, 0]
    """
    winner = labels.copy()
    share = np.ones(len(labels), dtype=np.float32)
    grouped = groups >= 0
    if not grouped.any():
        return winner, share
    num_groups = int(groups.max()) + 1
    counts = np.bincount(groups[grouped] * num_labels + labels[grouped], minlength=num_groups * num_labels)
    votes = counts.reshape(num_groups, num_labels)  # [groups, labels]
    best = votes.argmax(axis=1)
    shares = votes.max(axis=1) / np.maximum(votes.sum(axis=1), 1)
    winner[grouped] = best[groups[grouped]]
    share[grouped] = shares[groups[grouped]]
    return winner, share
