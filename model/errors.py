"""Errors about a user's cells, each with the field, cell or gene at fault and the way to mend it."""

from __future__ import annotations


class InputError(ValueError):
    """Readable input that is wrong.

    Attributes:
        code: stable slug of the fault, e.g. ``negative-value``; becomes the problem type of the HTTP answer.
        detail: one sentence that says what is wrong and where.
        mend: one sentence that says how to put it right.
        field, cell, gene: what is at fault, where known.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        mend: str,
        field: str | None = None,
        cell: str | None = None,
        gene: str | None = None,
    ) -> None:
        super().__init__(f"{detail} {mend}")
        self.code = code
        self.detail = detail
        self.mend = mend
        self.field = field
        self.cell = cell
        self.gene = gene

    def __reduce__(self) -> tuple[object, ...]:
        # Raised in parser processes: the keyword arguments must survive pickling.
        return _rebuild, (type(self), self.code, self.detail, self.mend, self.field, self.cell, self.gene)


class UnreadableError(InputError):
    """Bytes that are not the format they claim to be (HTTP 400; a plain InputError is 422)."""


class OverLimitError(InputError):
    """More cells or bytes than the caller allows, also as declared by a file or after decompression (HTTP 413)."""


class BundleError(RuntimeError):
    """A bundle that cannot be trusted or used: checksum, shape or version is off. Says which file and why."""


def _rebuild(
    kind: type[InputError],
    code: str,
    detail: str,
    mend: str,
    field: str | None,
    cell: str | None,
    gene: str | None,
) -> InputError:
    return kind(code, detail, mend=mend, field=field, cell=cell, gene=gene)
