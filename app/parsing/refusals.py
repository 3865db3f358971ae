"""The error of a client when a parser process did not finish its command."""

from __future__ import annotations

import logging

from scpalm.app.errors import DrainingError, InterruptedParserError, ServiceError, TooLargeError
from scpalm.app.parsing.process import ProcessError
from scpalm.model.errors import InputError, UnreadableError

log = logging.getLogger("scpalm.parsing")


def refusal(error: ProcessError) -> InputError | ServiceError:
    """The error for the client of an upload. Logs the details."""
    log.warning("parser: %s: %s", error.reason, one_line(error))
    if error.reason == "memory":
        return TooLargeError(f"The upload cannot be read: {error}. Send fewer cells per request.")
    if error.reason == "closed":
        return DrainingError("The service is stopping and reads no more uploads. Send the request to another replica.")
    if error.reason == "ended":
        return InterruptedParserError(
            f"The upload could not be read because {error}. It was ended from outside, perhaps because the machine has "
            "too little memory; the upload is not at fault. Send it again.",
            retry_after=2,
        )
    reason = "the reader failed on it" if error.reason in ("fault", "message") else str(error)
    return UnreadableError(
        "parser-timeout" if error.reason == "timeout" else "parser-crash",
        f"The upload cannot be read: {reason}.",
        hint="Send fewer cells per request. If a small file fails too, write it again with anndata's write_h5ad.",
        field="body",
    )


def one_line(error: Exception) -> str:
    """The text in one line: a traceback of a parser may quote what a client has sent."""
    return " | ".join(line.strip() for line in str(error).splitlines() if line.strip())
