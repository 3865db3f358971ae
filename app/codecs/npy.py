"""Write the main output as a ``.npy`` file, for scripts that need a single array."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np

from scpalm.app.codecs.registry import register_writer
from scpalm.app.codecs.result import Result
from scpalm.app.storage.values import StoredValues


@register_writer
class NpyWriter:
    """Writes the main output ``[cells, width]``: numbers, or text for labels. Further outputs are left out."""

    media_type = "application/x-npy"
    suffix = ".npy"
    extends_files = False

    def encode(self, result: Result, target: Path, original: Path | None = None) -> bytes | None:
        main = result.outputs[0]
        values = main.values if main.spec.categories is None else main.spec.texts(main.load()).astype(np.str_)
        if isinstance(values, StoredValues):
            shutil.copyfile(values.path, target)  # large results are already stored as .npy
            return None
        buffer = io.BytesIO()
        np.save(buffer, values, allow_pickle=False)
        return buffer.getvalue()
