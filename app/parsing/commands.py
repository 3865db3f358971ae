"""What the service tells a parser process about an upload, and its answer about maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scpalm.app.codecs.compression import check_encoding
from scpalm.app.codecs.registry import readable_types, reader_for
from scpalm.app.errors import UnsupportedMediaTypeError
from scpalm.app.parsing.messages import Message
from scpalm.app.parsing.upload import Upload
from scpalm.app.parsing.wire import pack_upload
from scpalm.model.io.hdf5.view_facts import ViewFacts


def command(kind: str, upload: Upload, scratch: Path) -> Message:
    """A command about an upload. ``scratch``: path for a folder of this command."""
    content, arrays = pack_upload(upload)
    return Message(kind, {"upload": content, "scratch": str(scratch)}, arrays)


def refuse_unknown(upload: Upload) -> None:
    """Raise UnsupportedMediaTypeError if there is no reader for an upload, or its content encoding is unknown."""
    if reader_for(upload.media_type) is None:
        raise UnsupportedMediaTypeError(
            f"Cells cannot be read from '{upload.media_type[:100]}'. Use one of: {', '.join(readable_types())}.",
            field="Content-Type",
        )
    check_encoding(upload.content_encoding)


def read_view_facts(reply: Message) -> ViewFacts:
    """What an upload has for a picture of its cells; anything else in the reply is left out."""
    maps = {
        name: array
        for name, array in reply.arrays.items()
        if array.dtype == np.float32 and array.ndim == 2 and array.shape[1] == 2
    }
    colors = {
        str(column): {str(category): str(color) for category, color in found.items()}
        for column, found in reply.content.get("colors", {}).items()
    }
    return ViewFacts([str(name) for name in reply.content.get("obs", ())], maps, colors)
