from __future__ import annotations

from typing import Any

import numpy as np


def assert_same_plain(found: Any, expected: Any) -> None:
    """Two nested notes hold the same keys and values; arrays also have the same dtype."""
    if isinstance(expected, dict):
        assert set(found) == set(expected)
        for key, value in expected.items():
            assert_same_plain(found[key], value)
    elif isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(np.asarray(found, dtype=expected.dtype), expected, strict=True)
        assert (np.asarray(found).dtype.kind in "OUST") == (expected.dtype == object)
    else:
        assert found == expected and isinstance(found, str) == isinstance(expected, str)
