"""The parser process, the only one that parses uploaded bytes.

The service runs it as ``python -P -m scpalm.app.parsing.child DESCRIPTOR``: a fresh interpreter with limits on memory
and CPU time, which reads and writes its folders alone, and reaches no network.
"""

from __future__ import annotations

import errno
import resource
import sys
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from scpalm.app.codecs.codec import CarriesOptions, DecodeOptions, HasObs, Reader
from scpalm.app.codecs.compression import decompress
from scpalm.app.codecs.registry import reader_for, writer_for
from scpalm.app.errors import ServiceError, StorageFullError, TooLargeError, UnsupportedMediaTypeError
from scpalm.app.parsing.isolation.isolate import MAX_FILE_BYTES, OWN_MEMORY, Folders, isolate
from scpalm.app.parsing.members import checked_members
from scpalm.app.parsing.messages import Message, receive, send
from scpalm.app.parsing.upload import Upload, UploadHead
from scpalm.app.parsing.wire import pack_error, pack_part, unpack_result, unpack_upload
from scpalm.app.storage.scratch import is_full
from scpalm.model.errors import BundleError, InputError, OverLimitError
from scpalm.model.genes.columns import GeneColumns
from scpalm.model.genes.matching.align import align
from scpalm.model.genes.matching.alignment import Alignment
from scpalm.model.genes.prepare import CHUNK_CELLS, Preparer
from scpalm.model.genes.vocabulary import Vocabulary
from scpalm.model.io.grouped import Grouping
from scpalm.model.io.hdf5.view_facts import ViewFacts
from scpalm.model.io.labels import Categories

_MAX_CACHED_LISTS = 8  # clients often repeat a gene list, and matching it is the most expensive step
_MAX_CACHED_GENES = 100_000  # longer lists are not cached, which bounds the memory


class AlignmentCache:
    """Matches gene lists, and keeps the results for recent lists."""

    def __init__(self) -> None:
        self._alignments: OrderedDict[tuple[object, ...], Alignment] = OrderedDict()

    def align(self, vocabulary: Vocabulary, columns: GeneColumns) -> Alignment:
        """See `scpalm.model.genes.matching.align.align`."""
        if len(columns) > _MAX_CACHED_GENES:
            return align(vocabulary, columns)
        key = columns.key
        if key not in self._alignments:
            alignment = align(vocabulary, columns)
            if alignment.names_from:
                return alignment
            self._alignments[key] = alignment
        self._alignments.move_to_end(key)
        if len(self._alignments) > _MAX_CACHED_LISTS:
            self._alignments.popitem(last=False)
        return self._alignments[key]


@dataclass(frozen=True)
class Parser:
    """The commands of a parser process.

    Attributes:
        vocabulary: vocabulary of the model.
        max_cells: maximum number of cells in an upload; None for no limit.
        max_bytes: maximum size of an upload, before and after decompression; None for no limit.
        alignments: matches lists of genes.
    """

    vocabulary: Vocabulary
    max_cells: int | None
    max_bytes: int | None
    alignments: AlignmentCache = field(default_factory=AlignmentCache)

    @classmethod
    def open(cls, setup: Message) -> Parser:
        """Create the parser described by a setup message. Raises BundleError if the genes cannot be loaded."""
        content = setup.content
        return cls(Vocabulary.load(content["genes"]), content["max_cells"], content["max_bytes"])

    def commands(self) -> dict[str, Callable[[Message], Iterator[Message]]]:
        """The commands by the kind of their messages."""
        return {"parse": self.parse, "head": self.head, "view": self.view_facts, "encode": self.encode}

    def parse(self, message: Message) -> Iterator[Message]:
        """Yield the head of an upload and its cells, CHUNK_CELLS at a time, as soon as each part is ready.

        The first message has both head and cells, because every message costs a context switch and most uploads have
        only one part. Raises InputError or ServiceError, possibly after some parts.
        """
        return self._parts(message, with_cells=True)

    def head(self, message: Message) -> Iterator[Message]:
        """Yield the head of an upload, without its cells."""
        return self._parts(message, with_cells=False)

    def view_facts(self, message: Message) -> Iterator[Message]:
        """Yield what the upload has for a picture of its cells: columns of ``obs``, maps and colours."""
        upload = unpack_upload(message.content["upload"], message.arrays)
        reader, scratch = _reader(upload.media_type), Path(message.content["scratch"])
        facts = ViewFacts()
        if isinstance(reader, HasObs):
            options = DecodeOptions(upload.spec.layer, self.max_cells, self.max_bytes, upload.header_bytes, scratch)
            facts = reader.view_facts(self._body(upload, scratch, as_file=reader.reads_files), options)
        colors = {column: dict(found) for column, found in facts.colors.items()}
        yield Message("view", {"obs": list(facts.columns), "colors": colors}, dict(facts.maps))

    def _parts(self, message: Message, *, with_cells: bool) -> Iterator[Message]:
        upload = unpack_upload(message.content["upload"], message.arrays)
        reader = _reader(upload.media_type)
        scratch = Path(message.content["scratch"])
        options = DecodeOptions(upload.spec.layer, self.max_cells, self.max_bytes, upload.header_bytes, scratch)
        preparer: Preparer | None = None
        head: UploadHead | None = None
        try:
            body = self._body(upload, scratch, as_file=reader.reads_files)
            further = reader.further(body, options) if isinstance(reader, CarriesOptions) else None
            spec = upload.spec.with_body_options(further or {})
            spec.check_options()
            wanted = (*upload.obs_columns, *spec.obs_columns)
            options = replace(options, layer=spec.layer)
            grouping = _grouping(reader, body, spec.sum_by, options)
            matrices = reader.decode(body, options)
            if grouping is not None:
                matrices = iter([grouping.sums(matrices, spec.declaration)])
            for matrix in matrices:
                if preparer is None:
                    preparer = Preparer(
                        self.vocabulary, matrix.gene_columns, spec.declaration, align=self.alignments.align
                    )
                    num_cells = matrix.cells_in_all or matrix.num_cells
                    members = self._members(upload, reader, body, options) if further is None else further
                    members = checked_members(members, spec.members, grouping.num_cells if grouping else num_cells)
                    obs = _obs_columns(reader, body, wanted, options) if wanted else {}
                    if grouping is not None:
                        members, obs = grouping.tables(members), {**obs, spec.sum_by: grouping.as_rows()}
                    head = UploadHead(num_cells, preparer.coverage, preparer.file_target, members, obs)
                    if not with_cells:
                        yield pack_part(head, preparer.measured, None)
                        return
                for part in matrix.parts(CHUNK_CELLS):
                    yield pack_part(head, preparer.measured, preparer.prepare(part))
                    head = None
        except OverLimitError as error:
            raise TooLargeError(str(error), field=error.field) from error

    def _members(self, upload: Upload, reader: Reader, body: bytes | Path, options: DecodeOptions) -> dict[str, object]:
        names = upload.spec.members
        return reader.members(body, names, options) if names or reader.hidden else {}

    def encode(self, message: Message) -> Iterator[Message]:
        """Yield the encoded result; it is empty if written to the target file. Raises InputError, ServiceError."""
        content = message.content
        writer = writer_for(content["media_type"])
        assert writer is not None, "ParserPool.encode checks the media type"
        original: Path | None = None
        if content["upload"] is not None and writer.extends_files:
            upload = unpack_upload(content["upload"], message.arrays)
            reader = _reader(upload.media_type)
            # Groups of cells are not the rows of the uploaded file.
            if writer.media_type in reader.media_types and not upload.spec.sum_by:
                body = self._body(upload, Path(content["scratch"]), as_file=True)
                original = body if isinstance(body, Path) else None
        result = unpack_result(content["result"], message.arrays)
        encoded = writer.encode(result, Path(content["target"]), original)
        if encoded is not None and len(encoded) > content["most_bytes"]:
            Path(content["target"]).write_bytes(encoded)
            encoded = None
        yield Message("encoded", {"in_file": encoded is None}, {"bytes": np.frombuffer(encoded or b"", np.uint8)})

    def _body(self, upload: Upload, scratch: Path, *, as_file: bool) -> bytes | Path:
        """The decompressed body, as a file if ``as_file``."""
        if not upload.content_encoding and (isinstance(upload.body, Path) or not as_file):
            return upload.body
        scratch.mkdir(exist_ok=True)
        target = scratch / "body"
        if upload.content_encoding:
            decompress(upload.body, upload.content_encoding, target, self.max_bytes)
        elif isinstance(upload.body, bytes):
            target.write_bytes(upload.body)
        return target


def _obs_columns(
    reader: Reader, body: bytes | Path, names: Sequence[str], options: DecodeOptions
) -> dict[str, Categories]:
    if isinstance(reader, HasObs):
        return reader.obs_columns(body, names, options)
    raise InputError(
        "no-obs",
        f"The body has no table obs with a column '{names[0][:50]}'.",
        hint="Send an h5ad file.",
        field=names[0][:50],
    )


def _grouping(reader: Reader, body: bytes | Path, column: str, options: DecodeOptions) -> Grouping | None:
    """The groups whose counts are summed; None if the request is about cells. Raises InputError."""
    return Grouping(column, _obs_columns(reader, body, (column,), options)[column]) if column else None


def _reader(media_type: str) -> Reader:
    reader = reader_for(media_type)
    if reader is None:
        raise UnsupportedMediaTypeError(f"'{media_type[:100]}' is not supported.", field="Content-Type")
    return reader


# --- main loop of the process


def serve(descriptor: int, open_parser: Callable[[Message], Parser] = Parser.open) -> None:
    """Set up, then run commands until the parent closes the connection."""
    with Connection(descriptor) as connection:
        try:
            setup = receive(connection)
            # Before anything else, because threads that exist already would stay free.
            missing = isolate(Folders.from_dict(setup.content["folders"]))
            try:
                parser = open_parser(setup)
            except BundleError as error:
                send(connection, pack_error(error))
                return
            send(connection, Message("done", {"missing_isolation": missing}))
            _limit_memory(setup.content["memory_bytes"])
            commands = parser.commands()
            while True:
                message = receive(connection)
                _limit_cpu(setup.content["seconds"])
                _run(connection, commands[message.kind], message)
        except (EOFError, OSError):
            return


def _run(connection: Connection, command: Callable[[Message], Iterator[Message]], message: Message) -> None:
    try:
        for part in command(message):
            send(connection, part)
        last = Message("done")
    except (InputError, ServiceError, BundleError) as error:
        last = pack_error(error)
    except OSError as error:
        if error.errno == errno.EFBIG:
            last = pack_error(TooLargeError(f"It would need a file over {MAX_FILE_BYTES >> 30} GiB. Send fewer cells."))
        elif not is_full(error):
            last = Message("fault", {"detail": traceback.format_exc()})
        else:
            last = pack_error(
                StorageFullError(
                    "The disk for uploads (SCPALM_SPOOL_DIR) is full. Try again later, or send fewer cells.",
                    retry_after=10,
                )
            )
    except MemoryError:
        last = Message("memory", {"detail": "it needs more memory than the service allows per file"})
    except Exception:
        last = Message("fault", {"detail": traceback.format_exc()})
    send(connection, last)


def _limit_memory(headroom: int) -> None:
    try:
        with open(OWN_MEMORY) as file:
            held = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:  # there is neither /proc nor a reliable limit on address space outside Linux
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = held + headroom if hard == resource.RLIM_INFINITY else min(held + headroom, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _limit_cpu(seconds: float) -> None:
    # The limit counts CPU time since the process started, so every command raises it.
    usage = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(usage.ru_utime + usage.ru_stime + seconds) + 1
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


if __name__ == "__main__":
    serve(int(sys.argv[1]))
