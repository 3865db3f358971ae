"""Errors that a user can fix: each says what is wrong, where, and what to do about it. And the loss of a device."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """An error that a user can fix. Its text is one line that says what is wrong and how to fix it."""


class InputError(UserError, ValueError):
    """Input that can be read but is wrong.

    Attributes:
        code: stable slug of the fault, such as ``negative-value``. It becomes the problem type of the HTTP response.
        detail: one sentence that says what is wrong and where.
        hint: one sentence that says how to fix it.
        field: the field or option at fault, where known.
        cell: name of the cell at fault, where known.
        gene: name of the gene at fault, where known.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        hint: str,
        field: str | None = None,
        cell: str | None = None,
        gene: str | None = None,
    ) -> None:
        super().__init__(f"{detail} {hint}".strip())
        self.code = code
        self.detail = detail
        self.hint = hint
        self.field = field
        self.cell = cell
        self.gene = gene

    def __reduce__(self) -> tuple[object, ...]:
        # Process pools and Dask pickle errors. The default would call the constructor with the text alone.
        return _restore, (type(self), str(self), vars(self))


def _restore(kind: type[InputError], text: str, attributes: dict[str, object]) -> InputError:
    error = kind.__new__(kind, text)
    vars(error).update(attributes)
    return error


class UnreadableError(InputError):
    """Bytes that do not match their declared format (HTTP 400; a plain InputError is 422)."""


class OverLimitError(InputError):
    """More cells or bytes than allowed: as sent, as declared by a file, or after decompression (HTTP 413)."""


class ParameterError(InputError):
    """An invalid value of an option, parameter or JSON member. The detail says what is allowed."""

    def __init__(self, detail: str, *, field: str | None = None) -> None:
        super().__init__("invalid-parameter", detail, hint="", field=field)


class MissingPartError(UserError, RuntimeError):
    """The model lacks a part that a task needs. The text says which part, and how to get it."""


class MissingRuntimeError(UserError, RuntimeError):
    """A required package is not installed. The text says how to install it."""


class BundleError(UserError, RuntimeError):
    """A bundle that cannot be used: a checksum, shape or version is wrong. The text names the file and the reason."""


class DeviceLostError(BaseException):
    """The device does not work any more, and will not until the process is restarted.

    Not an Exception: it must end the worker, and not count as a fault of the cells that were being computed.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"Did you mean 'drugs'? "`` for the known name that is nearest to another one; "" if none is near."""
    folded = {"".join(char for char in one.lower() if char.isalnum()): one for one in known}
    wanted = "".join(char for char in name.lower() if char.isalnum())[:80]
    near = [wanted] if wanted in folded else difflib.get_close_matches(wanted, folded, n=1, cutoff=0.6)
    return f"Did you mean '{folded[near[0]]}'? " if near else ""
