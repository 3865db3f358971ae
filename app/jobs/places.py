"""Where a job's files lie: a folder of this machine, or one of the spool that every process sees."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

from scpalm.app.errors import ServiceError, StorageFullError
from scpalm.app.storage.spool import Spool, SpoolError

_NO_ROOM = 28  # ENOSPC


class Place(Protocol):
    """Files of one job by name. Blocking. Raises SpoolError or StorageFullError where the files are elsewhere."""

    def write(self, name: str, content: bytes) -> None:
        """Keep a file; readers see all of it or nothing."""
        ...

    def take_in(self, name: str, source: Path) -> None:
        """Keep a copy of a file of this machine; likewise."""
        ...

    def read(self, name: str) -> bytes: ...

    def names(self, prefix: str) -> list[str]:
        """Files whose name begins so, in order."""
        ...

    def array(self, name: str) -> Any:
        """What zarr opens as a store."""
        ...

    def has(self, name: str) -> bool: ...

    def sync(self) -> None:
        """Everything that was written stays, whatever happens."""
        ...

    def local(self, name: str, scratch: Path) -> AbstractContextManager[Path]:
        """The file as one of this machine, while the context lasts."""
        ...

    def remove(self) -> None:
        """Forget all of it."""
        ...


class LocalPlace:
    """A folder, made by the first file."""

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

    def take_in(self, name: str, source: Path) -> None:
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

    def array(self, name: str) -> Any:
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


class SpoolPlace:
    """A prefix of an object store, whose objects are whole and stay once they are written."""

    def __init__(self, spool: Spool, job_id: str) -> None:
        self._spool = spool
        self._files, root = spool.files
        self._root = f"{root}/jobs/{job_id}"

    def write(self, name: str, content: bytes) -> None:
        with self._told():
            self._files.pipe_file(f"{self._root}/{name}", content)

    def take_in(self, name: str, source: Path) -> None:
        with self._told():
            self._files.put_file(str(source), f"{self._root}/{name}")

    def read(self, name: str) -> bytes:
        with self._told():
            return cast(bytes, self._files.cat_file(f"{self._root}/{name}"))

    def names(self, prefix: str) -> list[str]:
        with self._told():
            self._files.invalidate_cache()
            found = [str(path).rpartition("/")[2] for path in self._files.ls(self._root, detail=False)]
        return sorted(name for name in found if name.startswith(prefix))

    def array(self, name: str) -> Any:
        from zarr.storage import FsspecStore

        return FsspecStore(_for_zarr(self._files), path=f"{self._root}/{name}")

    def has(self, name: str) -> bool:
        with self._told():
            return bool(self._files.exists(f"{self._root}/{name}"))

    def sync(self) -> None:
        return

    @contextmanager
    def local(self, name: str, scratch: Path) -> Iterator[Path]:
        path = scratch / f"job-{name}"
        with self._told():
            self._files.get_file(f"{self._root}/{name}", str(path))
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        try:
            self._files.rm(self._root, recursive=True)
        except Exception:  # gone already, or away: the ledger keeps it until this succeeds
            return

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except ServiceError:
            raise
        except Exception as error:  # each kind of store has its own
            if isinstance(error, OSError) and error.errno == _NO_ROOM:
                raise StorageFullError("The spool is full.", retry_after=10) from error
            text = " ".join(str(error).split()) or type(error).__name__
            raise SpoolError(f"The spool does not answer for a job's files: {text}", retry_after=5) from error


def _for_zarr(files: Any) -> Any:
    """zarr speaks to asynchronous file systems: such a view of one that may be none."""
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

    if not files.async_impl:
        return AsyncFileSystemWrapper(files, asynchronous=True)
    return type(files)(**{**files.storage_options, "asynchronous": True})
