"""Errors about a user's cells, each with the field, cell or gene at fault and the way to mend it."""

from __future__ import annotations


class UserError(Exception):
    """An error that a user can do something about. Its text is one line that says what is wrong, and how to fix it."""


class InputError(UserError, ValueError):
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
        super().__init__(f"{detail} {mend}".strip())
        self.code = code
        self.detail = detail
        self.mend = mend
        self.field = field
        self.cell = cell
        self.gene = gene


class UnreadableError(InputError):
    """Bytes that are not the format they claim to be (HTTP 400; a plain InputError is 422)."""


class OverLimitError(InputError):
    """More cells or bytes than the caller allows, also as declared by a file or after decompression (HTTP 413)."""


class ParameterError(InputError):
    """An option, parameter or member with a value it cannot have; the detail says what to do."""

    def __init__(self, detail: str, *, field: str | None = None) -> None:
        super().__init__("invalid-parameter", detail, mend="", field=field)


class MissingPartError(UserError, RuntimeError):
    """A task for which the model lacks a part. The text says which part, and how to get it."""


class MissingRuntimeError(UserError, RuntimeError):
    """A package that is needed is not installed. The text says how to install it."""


class BundleError(UserError, RuntimeError):
    """A bundle that cannot be trusted or used: checksum, shape or version is off. Says which file and why."""
