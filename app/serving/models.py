"""The models that a process serves: found in folders, opened beside those that serve, and swapped without a gap.

A folder is looked at again every few seconds. What has changed there and stays so is copied, checked, opened and warmed
up; from then on requests get it, and the one before it ends when its last request has its answer. What is damaged is
refused with the reason, and the one before it serves on.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from scpalm.app.errors import UnknownModelError
from scpalm.app.serving.model import ServedModel
from scpalm.app.settings import Settings
from scpalm.app.telemetry.metrics import Metrics
from scpalm.model.bundle import DEFAULT_BUNDLE, Bundle, Identity
from scpalm.model.errors import BundleError

log = logging.getLogger("scpalm.models")

OpenModel = Callable[[Bundle], Awaitable[ServedModel]]
_Signature = tuple[tuple[str, int, int], ...]
_MANIFEST = "manifest.json"


@dataclass(eq=False)
class _Folder:
    """One folder and what became of it. ``tried``: its signature when it was last opened, or refused."""

    path: Path
    model: ServedModel | None = None
    copy: Path | None = None
    reason: str = ""
    seen: _Signature = ()
    tried: _Signature = ()


@dataclass(eq=False)
class _Past:
    """A model that has a successor, or lost its folder: it ends when nobody holds it any more."""

    model: ServedModel
    copy: Path | None
    ending: asyncio.Task[None] | None = None


class Models:
    """`load` first; then requests ask with `get`, and `watch` runs beside them.

    Args:
        open_model: opens a checked bundle; what it raises is the reason why a model is refused.
    """

    def __init__(
        self, settings: Settings, metrics: Metrics, open_model: Callable[[Bundle], Awaitable[ServedModel]]
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._open_model = open_model
        self._folders = {settings.bundle: _Folder(settings.bundle)}
        self._past: list[_Past] = []
        self._soon = asyncio.Event()

    # --- asking

    @property
    def _default(self) -> _Folder:
        return self._folders[self._settings.bundle]

    @property
    def all(self) -> list[ServedModel]:
        """Those that serve, the default first."""
        return [folder.model for folder in self._folders.values() if folder.model is not None]

    @property
    def identities(self) -> list[Identity]:
        """Of all that can be asked, those with a successor among them."""
        return [model.identity for model in [*self.all, *(past.model for past in self._past)]]

    @property
    def refused(self) -> dict[str, str]:
        """Why a folder's content does not serve, by the folder's name."""
        return {folder.path.name: folder.reason for folder in self._folders.values() if folder.reason}

    def get(self, name: str | None = None, version: str = "") -> ServedModel:
        """The model of this name, or the default one. Raises UnknownModelError."""
        for model in self.all:
            if name in (None, model.bundle.name) and version in ("", model.bundle.version):
                return model
        wanted = f"{(name or '')[:100]} {version[:100]}".strip()
        served = ", ".join(map(str, self.all))
        raise UnknownModelError(f"There is no model '{wanted}'. Served here: {served}.", field="model")

    def exactly(self, identity: Identity) -> ServedModel | None:
        """The very model that a job was sent to, also where it has a successor; None where it is gone."""
        models = [*self.all, *(past.model for past in self._past)]
        return next((model for model in models if model.identity == identity), None)

    # --- opening

    async def load(self) -> None:
        """Open every model. Raises what is wrong with the default one; others are refused."""
        await self._open(self._default)
        if self._default.reason:
            raise BundleError(self._default.reason)
        await self._look(at_once=True)

    def look_soon(self) -> None:
        """Look at the folders now, and take what is there as it is."""
        self._soon.set()

    async def watch(self) -> None:
        """Look at the folders again and again; runs until it is cancelled."""
        while True:
            try:
                await asyncio.wait_for(self._soon.wait(), self._settings.reload_seconds or None)
            except TimeoutError:
                at_once = False
            else:
                at_once = True
                self._soon.clear()
            await self._look(at_once=at_once)

    async def _look(self, *, at_once: bool) -> None:
        for path in await asyncio.to_thread(self._paths):
            self._folders.setdefault(path, _Folder(path))
        for folder in list(self._folders.values()):
            signature = await asyncio.to_thread(_signature, folder.path)
            # Whoever copies a bundle into a folder is given until it changes no more.
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
        default = self._settings.bundle.resolve()  # which may lie among them
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
                await _forget(copy)
                return
            model = await self._open_model(bundle)
        except Exception as error:  # whatever is wrong with it, the others serve on
            await _forget(copy)
            text = " ".join(str(error).split()) or type(error).__name__
            folder.reason = text.replace(str(copy), str(folder.path)) if copy is not None else text
            self._metrics.model_loads.labels("refused").inc()
            log.error("refused what is in %s: %s", folder.path, folder.reason)
            return
        before, before_copy = folder.model, folder.copy
        folder.model, folder.copy, folder.reason = model, copy, ""
        self._metrics.model_loaded(model.bundle.name, model.bundle.version, model.info)
        self._metrics.model_loads.labels("loaded").inc()
        log.info("%s serves: %s", model, ", ".join(f"{name} {what}" for name, what in model.facts.items()))
        if before is not None:
            self._retire(before, before_copy)

    def _check_name(self, bundle: Bundle, folder: _Folder) -> None:
        for other in self._folders.values():
            if other is not folder and other.model is not None and other.model.bundle.name == bundle.name:
                raise BundleError(
                    f"{folder.path} has the name '{bundle.name}', which {other.model} in {other.path} has already. "
                    "Export it under another name, or put it in the other's place."
                )

    def _copy_of(self, path: Path) -> Path | None:
        """A copy that nobody writes to; the bundle in the package is none of those that are replaced."""
        if path == DEFAULT_BUNDLE:
            return None
        if not (path / _MANIFEST).is_file():
            return None  # said by whoever loads it
        copy = Path(tempfile.mkdtemp(prefix="scpalm-model-", dir=self._settings.spool_dir))
        for file in path.iterdir():
            if file.is_file():
                shutil.copyfile(file, copy / file.name)
        return copy

    # --- ending

    def _remove(self, folder: _Folder) -> None:
        del self._folders[folder.path]
        if folder.model is not None:
            log.info("%s ends: %s is gone", folder.model, folder.path)
            self._retire(folder.model, folder.copy)

    def _retire(self, model: ServedModel, copy: Path | None) -> None:
        self._metrics.model_gone(model.bundle.name, model.bundle.version, model.info)
        past = _Past(model, copy)
        self._past.append(past)
        past.ending = asyncio.create_task(self._end(past), name=f"end of {model}")

    async def _end(self, past: _Past) -> None:
        await past.model.released()
        await past.model.close()
        self._past.remove(past)
        await _forget(past.copy)
        log.info("%s has ended", past.model)

    async def close(self) -> None:
        """Finish what is queued everywhere, and end."""
        for past in self._past:
            if past.ending is not None:
                past.ending.cancel()
                await asyncio.gather(past.ending, return_exceptions=True)
        serving = [(folder.model, folder.copy) for folder in self._folders.values() if folder.model is not None]
        ended = [(past.model, past.copy) for past in self._past]
        await asyncio.gather(*(model.close() for model, _ in serving + ended))
        for _, copy in serving + ended:
            await _forget(copy)


def _signature(path: Path) -> _Signature:
    """Names, sizes and times of a bundle's files; empty where there is no bundle."""
    try:
        if not (path / _MANIFEST).is_file():
            return ()
        stats = [(file.name, file.stat()) for file in sorted(path.iterdir()) if file.is_file()]
    except OSError:  # it is being replaced
        return ()
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


async def _forget(copy: Path | None) -> None:
    if copy is not None:
        await asyncio.to_thread(shutil.rmtree, copy, ignore_errors=True)
