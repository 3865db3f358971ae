"""Compare states of trainers bit for bit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def assert_same_state(one: object, other: object, where: str = "state") -> None:
    """Assert that every tensor and number is equal, NaN included; the message names the first difference."""
    if isinstance(one, Tensor):
        assert isinstance(other, Tensor), where
        assert one.dtype == other.dtype and one.shape == other.shape, where
        assert torch.equal(one.nan_to_num(0.5), other.nan_to_num(0.5)), where
    elif isinstance(one, Mapping):
        assert isinstance(other, Mapping) and one.keys() == other.keys(), where
        for key in one:
            assert_same_state(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert isinstance(other, list | tuple) and len(one) == len(other), where
        for position, pair in enumerate(zip(one, other, strict=True)):
            assert_same_state(*pair, f"{where}[{position}]")
    else:
        assert one == other, where
