"""Parse multipart/form-data chunk by chunk. Files go to disk; other fields stay in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from scpalm.app.errors import BadRequestError
from scpalm.app.storage.scratch import ensure_folder
from scpalm.model.errors import ParameterError

FILE_FIELD = "file"
_MAX_PARTS = 64
_MAX_TEXT_BYTES = 1 << 20  # of all fields but the file
_HINT = "For example: curl -F file=@cells.h5ad."


class Form:
    """One incoming form: `write` each chunk, then `finish`. File names sent by the client are ignored.

    ``directory`` must not be shared with another form. ``check_name`` raises the error for an unknown field,
    before its content is kept. ``files`` are fields that may be files in addition to ``file``. Every method raises
    BadRequestError for a malformed form.
    """

    def __init__(
        self,
        content_type: str,
        directory: Path,
        check_name: Callable[[str], None] = lambda _: None,
        files: Sequence[str] = (),
    ) -> None:
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise BadRequestError(
                "Content-Type has no boundary. Let your HTTP library set Content-Type.", field="Content-Type"
            )
        self._directory = directory
        self._check_name = check_name
        self._parts = 0
        self._text_bytes = 0
        self._header = (bytearray(), bytearray())
        self._name = ""
        self._file: IO[bytes] | None = None
        self._file_fields = (FILE_FIELD, *files)
        self._paths: dict[str, Path] = {}
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
        """Parse the next chunk."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            self.close()
            raise _unreadable(error) from error
        except (BadRequestError, ParameterError):
            self._fields.clear()  # the rest of the body is still read, so that the client sees the answer
            raise

    def finish(self) -> tuple[dict[str, Path], dict[str, str]]:
        """The paths of the uploaded files by field, among them ``file``; and the text of the other fields."""
        self.close()
        if not self._ended:
            raise BadRequestError(f"The form ends before its closing boundary. {_HINT}", field=FILE_FIELD)
        if FILE_FIELD not in self._paths:
            found = ", ".join(f"'{name[:40]}'" for name in self._fields) or "none"
            raise BadRequestError(f"The form has no field 'file'. Its fields: {found}. {_HINT}", field=FILE_FIELD)
        return self._paths, {name: bytes(value).decode("utf-8", "replace") for name, value in self._fields.items()}

    def close(self) -> None:
        """Close the file. It stays on disk; the caller removes the directory."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _on_part_begin(self) -> None:
        self._name = ""
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise BadRequestError(
                f"The form has more than {_MAX_PARTS} parts. Send one file in the field 'file'. {_HINT}"
            )

    def _on_header_end(self) -> None:
        name, value = (bytes(part) for part in self._header)
        self._header = (bytearray(), bytearray())
        if name.lower() == b"content-disposition":
            options = parse_options_header(value)[1]
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
            if b"filename" in options and self._name not in self._file_fields:
                raise BadRequestError(
                    f"The form has a file in the field '{self._name[:40]}'. Send it in the field 'file'. {_HINT}",
                    field=FILE_FIELD,
                )

    def _on_headers_finished(self) -> None:
        if self._name not in self._file_fields:
            if self._name not in self._fields:
                self._check_name(self._name)
            # Repeated fields become one text, one value per line.
            self._fields[self._name] = self._fields[self._name] + b"\n" if self._name in self._fields else bytearray()
        elif self._name in self._paths:
            raise BadRequestError(
                f"The form has more than one file in the field '{self._name}'. Send one file per request.",
                field=self._name,
            )
        else:
            path = ensure_folder(self._directory) / (
                "upload.h5ad" if self._name == FILE_FIELD else f"{self._name}.h5ad"
            )
            self._paths[self._name] = path
            self._file = path.open("xb")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
            return
        self._text_bytes += end - start
        if self._text_bytes > _MAX_TEXT_BYTES:
            raise BadRequestError(
                f"The fields of the form up to '{self._name[:40]}' are larger than {_MAX_TEXT_BYTES} bytes in all. "
                f"Send cells in the field 'file'. {_HINT}",
                field=self._name[:40],
            )
        self._fields[self._name].extend(data[start:end])

    def _on_part_end(self) -> None:
        self.close()

    def _on_end(self) -> None:
        self._ended = True


def _unreadable(error: FormParserError) -> BadRequestError:
    reason = str(error).split("\n")[0][:200].rstrip(".")
    return BadRequestError(
        f"The form cannot be parsed: {reason}. Let your HTTP library build it. {_HINT}", field=FILE_FIELD
    )
