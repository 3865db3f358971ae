"""The files of a job: in a local folder, or in the spool that all processes share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol, cast

from scpalm.app.errors import JobStorageError, ServiceError, StorageFullError
from scpalm.app.storage.scratch import NO_ROOM
from scpalm.app.storage.spool import Spool, SpoolError

# Files that are being written.
_PARTIAL = ".partial"


class JobFiles(Protocol):
    """The files of one job, by name. All methods block.

    They raise StorageFullError, JobStorageError for a file that is missing or cannot be used, and SpoolError if an
    object store cannot be used.
    """

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
        """Remove all files; there may be none. After an error some may be left, so call it again later."""
        ...

    def num_bytes(self) -> int:
        """Size of all files; 0 if there are none."""
        ...

    def guarded(self) -> AbstractContextManager[None]:
        """A context that turns the errors of the store into StorageFullError, SpoolError or JobStorageError."""
        ...


class LocalJobFiles:
    """Files in a local folder, which is created with the first file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, content: bytes) -> None:
        with self._new_file(name) as file:
            file.write(content)

    def copy_in(self, name: str, source: Path) -> None:
        with self._new_file(name) as file, source.open("rb") as content:
            shutil.copyfileobj(content, file, 1 << 20)

    @contextmanager
    def _new_file(self, name: str) -> Iterator[IO[bytes]]:
        """A file that gets its name when it is complete and on disk; after an error nothing is left of it."""
        partial = self.folder / f"{name}{_PARTIAL}"
        with self.guarded():
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                with partial.open("wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(partial, self.folder / name)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise

    def read(self, name: str) -> bytes:
        with self.guarded():
            return (self.folder / name).read_bytes()

    def names(self, prefix: str) -> list[str]:
        return sorted(path.name for path in self.folder.glob(f"{prefix}*") if not path.name.endswith(_PARTIAL))

    def zarr_store(self, name: str) -> Any:
        return str(self.folder / name)

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()

    def sync(self) -> None:
        with self.guarded():
            for path in [self.folder, *self.folder.rglob("*")]:
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    @contextmanager
    def local(self, name: str, scratch: Path) -> Iterator[Path]:
        path = self.folder / name
        if not path.is_file():
            raise _missing(name)
        yield path

    def num_bytes(self) -> int:
        found = 0
        for path in self.folder.rglob("*"):
            try:
                found += path.stat().st_size if path.is_file() else 0
            except FileNotFoundError:  # it was removed meanwhile
                continue
        return found

    def remove(self) -> None:
        with self.guarded():
            try:
                shutil.rmtree(self.folder)
            except FileNotFoundError:  # another process removes it, too, or it is gone already
                shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise _missing(Path(str(error.filename)).name) from error
        except OSError as error:
            if error.errno in NO_ROOM:
                raise StorageFullError(
                    "The disk for jobs (SCPALM_RESULTS_DIR) is full. Try again later, or send fewer cells.",
                    retry_after=10,
                ) from error
            raise JobStorageError(
                f"A file of a job cannot be read or written ({error.strerror or error}). Check the disk of "
                "SCPALM_RESULTS_DIR, then send the job again."
            ) from error


class SpoolJobFiles:
    """Files under a prefix in an object store. Objects are written atomically and are durable."""

    def __init__(self, spool: Spool, job_id: str) -> None:
        self._filesystem, root = spool.filesystem
        self._root = f"{root}/jobs/{job_id}"

    def write(self, name: str, content: bytes) -> None:
        with self.guarded():
            self._filesystem.pipe_file(f"{self._root}/{name}", content)

    def copy_in(self, name: str, source: Path) -> None:
        with self.guarded():
            self._filesystem.put_file(str(source), f"{self._root}/{name}")

    def read(self, name: str) -> bytes:
        with self.guarded():
            return cast(bytes, self._filesystem.cat_file(f"{self._root}/{name}"))

    def names(self, prefix: str) -> list[str]:
        with self.guarded():
            self._filesystem.invalidate_cache()
            found = [str(path).rpartition("/")[2] for path in self._filesystem.ls(self._root, detail=False)]
        return sorted(name for name in found if name.startswith(prefix))

    def zarr_store(self, name: str) -> Any:
        from zarr.storage import FsspecStore

        return FsspecStore(_asynchronous(self._filesystem), path=f"{self._root}/{name}")

    def has(self, name: str) -> bool:
        with self.guarded():
            return bool(self._filesystem.exists(f"{self._root}/{name}"))

    def sync(self) -> None:
        return

    @contextmanager
    def local(self, name: str, scratch: Path) -> Iterator[Path]:
        path = scratch / f"job-{name}"
        with self.guarded():
            self._filesystem.get_file(f"{self._root}/{name}", str(path))
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def num_bytes(self) -> int:
        with self.guarded():
            self._filesystem.invalidate_cache()
            return int(self._filesystem.du(self._root)) if self._filesystem.exists(self._root) else 0

    def remove(self) -> None:
        with self.guarded():
            self._filesystem.invalidate_cache()
            if self._filesystem.exists(self._root):
                self._filesystem.rm(self._root, recursive=True)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        try:
            yield
        except ServiceError:
            raise
        except FileNotFoundError as error:
            raise _missing(str(error).rpartition("/")[2]) from error
        except Exception as error:  # every object store has its own error classes
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise StorageFullError("The spool is full. Try again later.", retry_after=10) from error
            text = " ".join(str(error).split()) or type(error).__name__
            raise SpoolError(f"The spool failed to access a file of a job: {text}", retry_after=5) from error


def _missing(name: str) -> JobStorageError:
    return JobStorageError(f"The file '{name[:100]}' of this job is gone. Send the job again.")


def _asynchronous(filesystem: Any) -> Any:
    """The file system with the asynchronous interface that zarr requires."""
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

    if not filesystem.async_impl:
        return AsyncFileSystemWrapper(filesystem, asynchronous=True)
    return type(filesystem)(**{**filesystem.storage_options, "asynchronous": True})
