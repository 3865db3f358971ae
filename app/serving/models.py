"""The models of a process: found in folders, and replaced without downtime when a folder changes.

Folders are polled every few seconds. A bundle that changed and then stayed unchanged is copied, checked, opened and
warmed up. New requests then use it, and its predecessor is closed after its last request. A damaged bundle is refused
with a reason, and its predecessor keeps serving.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from scpalm.app.background import Beat, TaskSupervisor, cancel_until_done
from scpalm.app.errors import NotReadyError, UnknownModelError
from scpalm.app.serving.freed_memory import return_freed_memory
from scpalm.app.serving.model import ServedModel
from scpalm.app.settings import Settings
from scpalm.app.storage.scratch import is_full
from scpalm.app.telemetry.metrics import Metrics
from scpalm.model.bundle import DEFAULT_BUNDLE, Bundle, Identity
from scpalm.model.errors import BundleError

log = logging.getLogger("scpalm.models")

OpenModel = Callable[[Bundle], Awaitable[ServedModel]]
_Signature = tuple[tuple[str, int, int], ...]
_TRIM_SECONDS = 1.0
_MANIFEST = "manifest.json"
_NO_ROOM = "The disk of SCPALM_SPOOL_DIR has no room for a copy of this model. Make room; it is tried again by itself."


@dataclass(eq=False)
class _Folder:
    """A folder and its model.

    Attributes:
        path: the folder.
        model: the model that serves from it.
        copy: private copy of the bundle.
        reason: why the content was refused; "" if it was not.
        seen: signature at the last poll.
        tried: signature when the content was last opened or refused.
    """

    path: Path
    model: ServedModel | None = None
    copy: Path | None = None
    reason: str = ""
    seen: _Signature = ()
    tried: _Signature = ()


@dataclass(eq=False)
class _Retired:
    """A model that was replaced, or whose folder was removed. It is closed when no request or job holds it."""

    model: ServedModel
    copy: Path | None
    ending: asyncio.Task[None] | None = None


class Models:
    """Call `load` first. Then requests use `get`, while `watch` runs in the background.

    Args:
        settings: settings of the process.
        metrics: metrics of the process.
        open_model: opens a checked bundle. If it fails, the error becomes the reason for the refusal.
        tasks: supervisor of the background tasks.
        directory: folder for copies of bundles.
    """

    def __init__(
        self, settings: Settings, metrics: Metrics, open_model: OpenModel, tasks: TaskSupervisor, directory: Path
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._metrics = metrics
        self._open_model = open_model
        self._tasks = tasks
        self._folders = {settings.bundle: _Folder(settings.bundle)}
        self._retired: list[_Retired] = []
        self._poll_now = asyncio.Event()

    # --- lookup

    @property
    def _default(self) -> _Folder:
        return self._folders[self._settings.bundle]

    @property
    def all(self) -> list[ServedModel]:
        """The models that are being served, the default first."""
        # A copy, because metrics are read in another thread.
        return [folder.model for folder in list(self._folders.values()) if folder.model is not None]

    @property
    def identities(self) -> list[Identity]:
        """Identities of all open models, including retired ones."""
        return [model.identity for model in [*self.all, *(retired.model for retired in self._retired)]]

    @property
    def refused(self) -> dict[str, str]:
        """Why folders were refused, by the name of the folder."""
        return {folder.path.name: folder.reason for folder in self._folders.values() if folder.reason}

    def get(self, name: str | None = None, version: str = "") -> ServedModel:
        """The model with this name, or the default one. Raises UnknownModelError."""
        for model in self.all:
            if name in (None, model.bundle.name) and version in ("", model.bundle.version):
                return model
        requested = f"{(name or '')[:100]} {version[:100]}".strip()
        served = ", ".join(map(str, self.all))
        raise UnknownModelError(f"There is no model '{requested}'. Available models: {served}.", field="model")

    def exactly(self, identity: Identity) -> ServedModel | None:
        """The model with exactly this identity, even if it is retired; None if it is gone."""
        models = [*self.all, *(retired.model for retired in self._retired)]
        return next((model for model in models if model.identity == identity), None)

    # --- opening

    async def load(self) -> None:
        """Open all models. Raises BundleError if the default one fails; other failures are only recorded."""
        await self._open(self._default)
        if self._default.reason:
            raise BundleError(self._default.reason)
        await self._poll(at_once=True)

    def poll_now(self) -> None:
        """Poll the folders now, and open changed bundles without waiting until they stop changing."""
        self._poll_now.set()

    async def watch(self, beat: Beat) -> None:
        """Poll the folders until cancelled."""
        while True:
            try:
                await asyncio.wait_for(self._poll_now.wait(), self._settings.reload_seconds or None)
            except TimeoutError:
                at_once = False
            else:
                at_once = True
                self._poll_now.clear()
            await self._poll(at_once=at_once)
            beat()

    async def _poll(self, *, at_once: bool) -> None:
        for path in await asyncio.to_thread(self._paths):
            self._folders.setdefault(path, _Folder(path))
        for folder in list(self._folders.values()):
            signature = await asyncio.to_thread(_signature, folder.path)
            # Skip a bundle that is still being copied into the folder: it changes between polls.
            settled = at_once or signature == folder.seen
            folder.seen = signature
            if not signature and folder is not self._default:
                self._remove(folder)
            elif signature != folder.tried and settled:
                await self._open(folder)

    def _paths(self) -> list[Path]:
        directory = self._settings.models_dir
        if directory is None or not directory.is_dir():
            return []
        default = self._settings.bundle.resolve()  # the default may be one of these folders
        return sorted(p for p in directory.iterdir() if (p / _MANIFEST).is_file() and p.resolve() != default)

    async def _open(self, folder: _Folder) -> None:
        folder.tried = folder.seen = await asyncio.to_thread(_signature, folder.path)
        copy = None
        try:
            copy = await asyncio.to_thread(self._copy_of, folder.path)
            bundle = await asyncio.to_thread(Bundle.load, copy or folder.path)
            self._check_name(bundle, folder)
            if folder.model is not None and bundle.identity == folder.model.identity:
                folder.reason = ""
                await _remove_copy(copy)
                return
            model = await self._open_model(bundle)
            await self._wait_for_worker(model, folder.model)
        except Exception as error:  # a failure of one model must not affect the others
            await _remove_copy(copy)
            if (isinstance(error, OSError) and is_full(error)) or isinstance(error, NotReadyError):
                reason = error.detail if isinstance(error, NotReadyError) else _NO_ROOM
                if folder.reason != reason:
                    self._refuse(folder, reason)
                folder.tried = ()  # the model is not at fault, so try again at the next poll
                return
            text = " ".join(str(error).split()) or type(error).__name__
            self._refuse(folder, text.replace(str(copy), str(folder.path)) if copy is not None else text)
            return
        predecessor, old_copy = folder.model, folder.copy
        folder.model, folder.copy, folder.reason = model, copy, ""
        self._metrics.model_loaded(model.identity, model.info)
        self._metrics.model_loads.labels("loaded").inc()
        log.info("serving %s: %s", model, ", ".join(f"{name} {value}" for name, value in model.facts.items()))
        if predecessor is not None:
            self._retire(predecessor, old_copy)

    @staticmethod
    async def _wait_for_worker(model: ServedModel, predecessor: ServedModel | None) -> None:
        """Raise NotReadyError if no worker opens the model, which must not replace one that is served then."""
        ready = False
        try:
            ready = predecessor is None or await model.wait_for_worker(predecessor)
        finally:
            if not ready:  # also when the service stops meanwhile
                await model.close(at_once=True)
        if not ready:
            raise NotReadyError(f"No worker has opened {model} yet, so {predecessor} still answers. It is tried again.")

    def _refuse(self, folder: _Folder, reason: str) -> None:
        folder.reason = reason
        self._metrics.model_loads.labels("refused").inc()
        log.error("refused the model in %s: %s", folder.path, reason)

    def _check_name(self, bundle: Bundle, folder: _Folder) -> None:
        for other in self._folders.values():
            if other is not folder and other.model is not None and other.model.bundle.name == bundle.name:
                raise BundleError(
                    f"{folder.path} has the name '{bundle.name}', which {other.model} in {other.path} already has. "
                    "Export it with another name, or replace the other model."
                )

    def _copy_of(self, path: Path) -> Path | None:
        """Copy a bundle, so that writes to the folder cannot change a served model. None for the packaged bundle."""
        if path == DEFAULT_BUNDLE:
            return None
        if not (path / _MANIFEST).is_file():
            return None  # loading it will raise the error
        copy = Path(tempfile.mkdtemp(prefix="scpalm-model-", dir=self._directory))
        try:
            for file in path.iterdir():
                if file.is_file():
                    shutil.copyfile(file, copy / file.name)
        except BaseException:
            shutil.rmtree(copy, ignore_errors=True)
            raise
        return copy

    # --- closing

    def _remove(self, folder: _Folder) -> None:
        del self._folders[folder.path]
        if folder.model is not None:
            log.info("closing %s, because %s was removed", folder.model, folder.path)
            self._retire(folder.model, folder.copy)

    def _retire(self, model: ServedModel, copy: Path | None) -> None:
        self._metrics.model_gone(model.identity, model.info)
        retired = _Retired(model, copy)
        self._retired.append(retired)
        retired.ending = self._tasks.start("models-end", partial(self._end, retired))

    async def _end(self, retired: _Retired, beat: Beat) -> None:
        await retired.model.released()
        await retired.model.close()
        self._retired.remove(retired)
        await _remove_copy(retired.copy)
        log.info("closed %s", retired.model)
        # Later, when the last references to the model are gone.
        loop = asyncio.get_running_loop()
        loop.call_later(_TRIM_SECONDS, loop.run_in_executor, None, return_freed_memory)

    async def close(self, *, at_once: bool = False) -> None:
        """Finish the queued work of all models, unless ``at_once``, then close them."""
        await cancel_until_done([retired.ending for retired in self._retired if retired.ending is not None])
        serving = [(folder.model, folder.copy) for folder in self._folders.values() if folder.model is not None]
        retired_models = [(retired.model, retired.copy) for retired in self._retired]
        await asyncio.gather(*(model.close(at_once=at_once) for model, _ in serving + retired_models))
        for _, copy in serving + retired_models:
            await _remove_copy(copy)


def _signature(path: Path) -> _Signature:
    """Names, sizes and modification times of the files in a bundle; empty if there is no bundle."""
    try:
        if not (path / _MANIFEST).is_file():
            return ()
        stats = [(file.name, file.stat()) for file in sorted(path.iterdir()) if file.is_file()]
    except OSError:  # the folder is being replaced
        return ()
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


async def _remove_copy(copy: Path | None) -> None:
    if copy is not None:
        await asyncio.to_thread(shutil.rmtree, copy, ignore_errors=True)
