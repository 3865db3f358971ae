"""Opens the model's session, and says how to install the runtime where there is none."""

from __future__ import annotations

from scpalm.model.bundle import Bundle
from scpalm.model.sessions.session import Session

_MODULE = "onnxruntime"


class MissingRuntimeError(RuntimeError):
    """The package that runs the model is not installed; the text says how to install it."""


def open_runtime(bundle: Bundle, *, device: str = "auto", threads: int | None = None) -> Session:
    """See `scpalm.model.sessions.session.open_session`. Raises MissingRuntimeError, and what that raises."""
    from scpalm.model.sessions.session import open_session

    try:
        return open_session(bundle, device=device, threads=threads)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != _MODULE:
            raise
        raise MissingRuntimeError(
            "The model's runtime is not installed. Install it with: pip install 'scpalm[cpu]'"
        ) from error
