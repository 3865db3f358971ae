"""``-`` for a file: cells from stdin, results to stdout."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scpalm.model.errors import ParameterError

_DEFAULT = ".h5ad"


def is_pipe(path: Path) -> bool:
    """Whether a path of the command line stands for stdin or stdout: ``-``, or ``-.csv`` for an output as CSV."""
    return path.name == str(path) and path.name.partition(".")[0] == "-"


@contextmanager
def as_files(source: Path, out: Path) -> Iterator[tuple[Path, Path]]:
    """The paths to read and to write. What was written for stdout is sent when the context ends without an error.

    HDF5 is not a stream, so stdin is stored in a temporary file first. Raises ParameterError for binary output to a
    terminal.
    """
    with tempfile.TemporaryDirectory(prefix="scpalm-") as folder:
        if is_pipe(source):
            source = Path(folder, "stdin.h5ad")
            with source.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
        if not is_pipe(out):
            yield source, out
            return
        suffix = Path(f"x{out.name[1:]}").suffix or _DEFAULT
        if sys.stdout.isatty() and suffix not in (".csv", ".tsv"):
            raise ParameterError("Binary results are not written to a terminal: give a file with -o, or a pipe.")
        target = Path(folder, f"stdout{suffix}")
        yield source, target
        if target.exists():
            with target.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()
