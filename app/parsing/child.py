"""What a parser's child process does: the only place where uploaded bytes are looked at."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scpalm.app.codecs.compression import decompress
from scpalm.app.codecs.registry import CHUNK_CELLS, Answer, Codec, DecodeOptions, codec_for, writer_for
from scpalm.app.errors import TooLargeError, UnsupportedMediaTypeError
from scpalm.app.parsing.upload import Upload
from scpalm.model.errors import OverLimitError
from scpalm.model.genes.prepare import Prepared, Preparer
from scpalm.model.genes.vocabulary import Alignment, Coverage, Vocabulary

_REMEMBERED = 8  # gene lists; a lab sends the same one with every request, and matching it costs more than the rest
_REMEMBERED_GENES = 100_000  # longer lists are matched each time, so that what is remembered stays small


class _RememberingVocabulary(Vocabulary):
    """Matches a gene list once, and knows it again."""

    _alignments: OrderedDict[tuple[tuple[str, ...], tuple[str, ...]], Alignment]

    def align(self, genes: Sequence[str], ensembl_ids: Sequence[str] | None = None) -> Alignment:
        if len(genes) > _REMEMBERED_GENES:
            return super().align(genes, ensembl_ids)
        if not hasattr(self, "_alignments"):
            self._alignments = OrderedDict()
        key = tuple(genes), tuple(ensembl_ids or ())
        if key not in self._alignments:
            self._alignments[key] = super().align(genes, ensembl_ids)
        self._alignments.move_to_end(key)
        if len(self._alignments) > _REMEMBERED:
            self._alignments.popitem(last=False)
        return self._alignments[key]


_vocabulary: Vocabulary | None = None


def load_vocabulary(genes: Path) -> None:
    """Runs once in each process. Raises BundleError."""
    global _vocabulary
    _vocabulary = _RememberingVocabulary.load(genes)


@dataclass(frozen=True, eq=False)
class Opened:
    """What is known of an upload before its cells are read.

    Attributes:
        num_cells: of all. coverage: genes known. target: ``[genes_in]`` vocabulary position of each column, or -1.
        extras: what was wanted of the body beside its cells, as far as it has it.
    """

    num_cells: int
    coverage: Coverage
    target: NDArray[np.int32]
    extras: Mapping[str, object] = field(default_factory=dict)


def parse(scratch: Path, upload: Upload) -> Iterator[tuple[Opened | Prepared, ...]]:
    """First what is known of the upload, then its cells as rows, CHUNK_CELLS at a time, each part when it is ready.

    The first part comes together with what is known: many uploads are one part, and each turn between processes costs.
    ``scratch`` may be made and used for files. Raises InputError or ServiceError, also between parts.
    """
    assert _vocabulary is not None, "load_vocabulary comes first"
    codec = _codec(upload.media_type)
    options = DecodeOptions(upload.layer, upload.max_cells, upload.max_bytes, upload.header_bytes)
    preparer: Preparer | None = None
    opened: tuple[Opened, ...] = ()
    try:
        body = _body(upload, scratch, as_file=codec.reads_files)
        for matrix in codec.decode(body, options):
            if preparer is None:
                preparer = Preparer(_vocabulary, matrix.genes, matrix.ensembl_ids, upload.declared)
                extras = _extras(codec, body, upload, options)
                num_cells = matrix.cells_in_all or matrix.num_cells
                opened = (Opened(num_cells, preparer.coverage, preparer.target, extras),)
            for part in matrix.parts(CHUNK_CELLS):
                yield *opened, preparer.prepare(part)
                opened = ()
        if opened:
            yield opened
    except OverLimitError as error:
        raise TooLargeError(str(error), field=error.field) from error


def _extras(codec: Codec, body: bytes | Path, upload: Upload, options: DecodeOptions) -> dict[str, object]:
    found: dict[str, object] = {name: text for name, text in upload.fields.items() if name in upload.extras}
    return found | codec.members(body, upload.extras, options) if upload.extras else found


def encode(scratch: Path, answer: Answer, media_type: str, upload: Upload | None, target: Path) -> bytes | None:
    """The answer as bytes, or None when it was written to ``target``. Raises InputError or ServiceError."""
    codec = writer_for(media_type)
    assert codec is not None, "the pool checks it"
    original: Path | None = None
    if upload is not None and codec.reads_files and _codec(upload.media_type) is codec:
        body = _body(upload, scratch, as_file=True)
        original = body if isinstance(body, Path) else None
    return codec.encode(answer, target, original)


def _codec(media_type: str) -> Codec:
    codec = codec_for(media_type)
    if codec is None:
        raise UnsupportedMediaTypeError(f"'{media_type[:100]}' is not understood.", field="Content-Type")
    return codec


def _body(upload: Upload, scratch: Path, *, as_file: bool) -> bytes | Path:
    """The body without its content encoding; a file if ``as_file``, else as it is."""
    if not upload.content_encoding and (isinstance(upload.body, Path) or not as_file):
        return upload.body
    scratch.mkdir()
    target = scratch / "body"
    if upload.content_encoding:
        decompress(upload.body, upload.content_encoding, target, upload.max_bytes)
    elif isinstance(upload.body, bytes):
        target.write_bytes(upload.body)
    return target
