"""multipart/form-data, pushed through chunk by chunk: the field ``file`` goes to disk, other fields stay small."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from scpalm.app.errors import BadRequestError
from scpalm.app.storage.scratch import ensure_folder

FILE_FIELD = "file"
_MAX_PARTS = 64
_MAX_FIELD_BYTES = 1 << 20
_MEND = "Try curl -F file=@cells.h5ad."


class Form:
    """One form on its way in: `write` each chunk, then `finish`. Names that the client gives to files are not used.

    ``directory`` belongs to this form alone.

    Every method raises BadRequestError for a form that cannot be read.
    """

    def __init__(self, content_type: str, directory: Path) -> None:
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise BadRequestError(
                "The form has no boundary. Let your HTTP library set Content-Type.", field="Content-Type"
            )
        self._directory = directory
        self._parts = 0
        self._header = (bytearray(), bytearray())
        self._name = ""
        self._file: IO[bytes] | None = None
        self._path: Path | None = None
        self._fields: dict[str, bytearray] = {}
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise _unreadable(error) from error

    def write(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            self.close()
            raise _unreadable(error) from error

    def finish(self) -> tuple[Path, dict[str, str]]:
        """The file of field ``file``, and the text of the other fields."""
        self.close()
        if not self._ended:
            raise BadRequestError(f"The form ends before its last boundary. Send it whole. {_MEND}", field=FILE_FIELD)
        if self._path is None:
            found = ", ".join(f"'{name[:40]}'" for name in self._fields) or "none"
            raise BadRequestError(f"The form has no field 'file'; its fields: {found}. {_MEND}", field=FILE_FIELD)
        return self._path, {name: bytes(value).decode("utf-8", "replace") for name, value in self._fields.items()}

    def close(self) -> None:
        """Close the file; it stays on disk, in the directory that its owner removes."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _on_part_begin(self) -> None:
        self._name = ""
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise BadRequestError(f"The form has over {_MAX_PARTS} parts. Send one file in the field 'file'. {_MEND}")

    def _on_header_end(self) -> None:
        name, value = (bytes(part) for part in self._header)
        self._header = (bytearray(), bytearray())
        if name.lower() == b"content-disposition":
            self._name = parse_options_header(value)[1].get(b"name", b"").decode("utf-8", "replace")

    def _on_headers_finished(self) -> None:
        if self._name != FILE_FIELD:
            # Sent more than once, a field is one text with a line each.
            self._fields[self._name] = self._fields[self._name] + b"\n" if self._name in self._fields else bytearray()
        elif self._path is not None:
            raise BadRequestError("The form has more than one file. Send one file a request.", field=FILE_FIELD)
        else:
            self._path = ensure_folder(self._directory) / "upload.h5ad"
            self._file = self._path.open("xb")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
            return
        field = self._fields[self._name]
        if len(field) + end - start > _MAX_FIELD_BYTES:
            raise BadRequestError(
                f"The form's field '{self._name[:40]}' is over {_MAX_FIELD_BYTES} bytes. Cells go into 'file'. {_MEND}",
                field=self._name[:40],
            )
        field.extend(data[start:end])

    def _on_part_end(self) -> None:
        self.close()

    def _on_end(self) -> None:
        self._ended = True


def _unreadable(error: FormParserError) -> BadRequestError:
    reason = str(error).split("\n")[0][:200].rstrip(".")
    return BadRequestError(
        f"The form cannot be read: {reason}. Let your HTTP library build it. {_MEND}", field=FILE_FIELD
    )
