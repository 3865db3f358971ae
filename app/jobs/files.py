"""The files of a job: in a local folder, or in the spool that all processes share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from errno import ENOSPC
from pathlib import Path
from typing import Any, Protocol, cast

from scpalm.app.errors import ServiceError, StorageFullError
from scpalm.app.storage.spool import Spool, SpoolError


class JobFiles(Protocol):
    """The files of one job, by name. All methods block. Files in a spool raise SpoolError or StorageFullError."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file atomically."""
        ...

    def copy_in(self, name: str, source: Path) -> None:
        """Copy a local file atomically."""
        ...

    def read(self, name: str) -> bytes:
        """Read a file."""
        ...

    def names(self, prefix: str) -> list[str]:
        """Sorted names of the files that start with ``prefix``."""
        ...

    def zarr_store(self, name: str) -> Any:
        """The store of a zarr array, for zarr.open_array."""
        ...

    def has(self, name: str) -> bool:
        """Whether a file exists."""
        ...

    def sync(self) -> None:
        """Flush everything written so far to disk."""
        ...

    def local(self, name: str, scratch: Path) -> AbstractContextManager[Path]:
        """The path of a local copy of a file, or of the file itself, valid within the context."""
        ...

    def remove(self) -> None:
        """Remove all files."""
        ...


class LocalJobFiles:
    """Files in a local folder, which is created with the first file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, content: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"{name}.partial"
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self.folder / name)

    def copy_in(self, name: str, source: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as file, source.open("rb") as content:
            shutil.copyfileobj(content, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, self.folder / name)

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def names(self, prefix: str) -> list[str]:
        return sorted(path.name for path in self.folder.glob(f"{prefix}*") if not path.name.endswith(".partial"))

    def zarr_store(self, name: str) -> Any:
        return str(self.folder / name)

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()

    def sync(self) -> None:
        for path in [self.folder, *self.folder.rglob("*")]:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    @contextmanager
    def local(self, name: str, scratch: Path) -> Iterator[Path]:
        yield self.folder / name

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class SpoolJobFiles:
    """Files under a prefix in an object store. Objects are written atomically and are durable."""

    def __init__(self, spool: Spool, job_id: str) -> None:
        self._filesystem, root = spool.filesystem
        self._root = f"{root}/jobs/{job_id}"

    def write(self, name: str, content: bytes) -> None:
        with _as_spool_errors():
            self._filesystem.pipe_file(f"{self._root}/{name}", content)

    def copy_in(self, name: str, source: Path) -> None:
        with _as_spool_errors():
            self._filesystem.put_file(str(source), f"{self._root}/{name}")

    def read(self, name: str) -> bytes:
        with _as_spool_errors():
            return cast(bytes, self._filesystem.cat_file(f"{self._root}/{name}"))

    def names(self, prefix: str) -> list[str]:
        with _as_spool_errors():
            self._filesystem.invalidate_cache()
            found = [str(path).rpartition("/")[2] for path in self._filesystem.ls(self._root, detail=False)]
        return sorted(name for name in found if name.startswith(prefix))

    def zarr_store(self, name: str) -> Any:
        from zarr.storage import FsspecStore

        return FsspecStore(_asynchronous(self._filesystem), path=f"{self._root}/{name}")

    def has(self, name: str) -> bool:
        with _as_spool_errors():
            return bool(self._filesystem.exists(f"{self._root}/{name}"))

    def sync(self) -> None:
        return

    @contextmanager
    def local(self, name: str, scratch: Path) -> Iterator[Path]:
        path = scratch / f"job-{name}"
        with _as_spool_errors():
            self._filesystem.get_file(f"{self._root}/{name}", str(path))
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        try:
            self._filesystem.rm(self._root, recursive=True)
        except Exception:  # the files are gone already, or the store is unreachable; leftovers cost only space
            return


@contextmanager
def _as_spool_errors() -> Iterator[None]:
    try:
        yield
    except ServiceError:
        raise
    except Exception as error:  # every object store has its own error classes
        if isinstance(error, OSError) and error.errno == ENOSPC:
            raise StorageFullError("The spool is full.", retry_after=10) from error
        text = " ".join(str(error).split()) or type(error).__name__
        raise SpoolError(f"The spool failed to access a file of a job: {text}", retry_after=5) from error


def _asynchronous(filesystem: Any) -> Any:
    """The file system with the asynchronous interface that zarr requires."""
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

    if not filesystem.async_impl:
        return AsyncFileSystemWrapper(filesystem, asynchronous=True)
    return type(filesystem)(**{**filesystem.storage_options, "asynchronous": True})
