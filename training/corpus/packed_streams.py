"""Streams of numbers in a packed corpus: written and read in the same order, compressed as a whole."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_DTYPES: dict[str, type[np.generic]] = {
    "gene": np.uint32,
    "cells_of_gene": np.uint32,
    "half": np.float16,
    "step": np.uint8,
    "step_large": np.uint32,
    "count": np.uint8,
    "count_large": np.uint32,
}
# A byte of this value stands for a number that follows in the stream of large numbers.
_ESCAPE = 255


class Streams:
    """Named streams of numbers."""

    def __init__(self) -> None:
        self._parts: dict[str, list[NDArray[Any]]] = defaultdict(list)
        self._whole: dict[str, NDArray[Any]] = {}
        self._next: dict[str, int] = defaultdict(int)

    def add(self, name: str, numbers: NDArray[Any]) -> None:
        """Append numbers of the stream's type."""
        self._parts[name].append(numbers.astype(_DTYPES[name], copy=False))

    def add_numbers(self, name: str, numbers: NDArray[np.int64]) -> None:
        """Append numbers from 0 on: as a byte each, or in the stream of large numbers from 255 on."""
        self.add(name, np.minimum(numbers, _ESCAPE).astype(np.uint8))
        self.add(f"{name}_large", numbers[numbers >= _ESCAPE])

    def take(self, name: str, count: int) -> NDArray[Any]:
        """The next numbers. Raises ValueError if the stream has fewer."""
        start = self._next[name]
        numbers = self._whole[name][start : start + count]
        if len(numbers) != count:
            raise ValueError(f"the stream '{name}' is too short")
        self._next[name] += count
        return numbers

    def take_numbers(self, name: str, count: int) -> NDArray[np.int64]:
        """The next numbers of ``add_numbers``."""
        numbers = self.take(name, count).astype(np.int64)
        large = numbers == _ESCAPE
        numbers[large] = self.take(f"{name}_large", int(large.sum()))
        return numbers

    def require_end(self) -> None:
        """Raises ValueError if numbers were left."""
        for name, numbers in self._whole.items():
            if self._next[name] != len(numbers):
                raise ValueError(f"the stream '{name}' is too long")

    def compressed(self, level: int) -> dict[str, NDArray[np.generic]]:
        """Every stream as bytes, and its length in bytes."""
        codec = pa.Codec("zstd", compression_level=level)
        out: dict[str, NDArray[np.generic]] = {}
        for name, dtype in _DTYPES.items():
            raw = np.concatenate([np.empty(0, dtype), *self._parts[name]]).tobytes()
            out[f"{name}.zst"] = np.frombuffer(codec.compress(raw, asbytes=True), np.uint8)
            out[f"{name}.bytes"] = np.array(len(raw))
        return out

    @classmethod
    def decompressed(cls, arrays: dict[str, NDArray[Any]]) -> Streams:
        """Read what ``compressed`` made. Raises KeyError, ValueError or ArrowException for other content."""
        codec, streams = pa.Codec("zstd"), cls()
        for name, dtype in _DTYPES.items():
            raw = codec.decompress(arrays[f"{name}.zst"].tobytes(), int(arrays[f"{name}.bytes"]), asbytes=True)
            streams._whole[name] = np.frombuffer(raw, dtype)
        return streams
