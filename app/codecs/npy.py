"""The route's own values as a ``.npy`` file: for scripts that want one array and nothing else. Not read."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from scpalm.app.codecs.codec import Answer, DecodeOptions
from scpalm.app.storage.values import StoredValues
from scpalm.model.io.matrix import CellMatrix


class NpyCodec:
    """Writes the first task's values ``[cells, width]``; what `also` asked for has no place in it."""

    name = "npy"
    media_type = "application/x-npy"
    media_types: tuple[str, ...] = ()
    suffix = ".npy"
    reads_files = False

    def decode(self, body: bytes | Path, options: DecodeOptions) -> Iterator[CellMatrix]:
        raise TypeError("npy is written, not read")

    def members(self, body: bytes | Path, names: Sequence[str], options: DecodeOptions) -> dict[str, object]:
        return {}  # never read

    def encode(self, answer: Answer, target: Path, original: Path | None = None) -> bytes | None:
        values = answer.parts[0].values
        if isinstance(values, StoredValues):
            shutil.copyfile(values.path, target)  # large results are kept in this very format
            return None
        buffer = io.BytesIO()
        np.save(buffer, values, allow_pickle=False)
        return buffer.getvalue()
