"""Embeddings, imputation, pathway codes and drug response of single cells.

>>> import scpalm
>>> engine = scpalm.load()
>>> engine.embed(adata)
>>> adata.obsm["X_scpalm"].shape
(100, 384)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import scpalm.pl as pl
    import scpalm.tl as tl
    from scpalm.client import AsyncClient as AsyncClient
    from scpalm.client import Client as Client
    from scpalm.model.adapting import AdaptOptions as AdaptOptions
    from scpalm.model.adapting import adapt as adapt
    from scpalm.model.engine import Engine as Engine
    from scpalm.model.engine import load as load
    from scpalm.model.errors import InputError as InputError
    from scpalm.model.spec import RequestSpec as RequestSpec

    __version__: str

_MODULE_OF = {
    "AsyncClient": "scpalm.client",
    "Client": "scpalm.client",
    "Engine": "scpalm.model.engine",
    "load": "scpalm.model.engine",
    "adapt": "scpalm.model.adapting",
    "AdaptOptions": "scpalm.model.adapting",
    "InputError": "scpalm.model.errors",
    "RequestSpec": "scpalm.model.spec",
}
__all__ = ["AdaptOptions", "AsyncClient", "Client", "Engine", "InputError", "RequestSpec", "adapt", "load", "pl", "tl"]


def __getattr__(name: str) -> Any:
    # Import on first use: the command line and the parser processes import this package but need little of it.
    from importlib import import_module

    if name == "__version__":
        from scpalm.model.release import release

        return release()
    if name in ("pl", "tl"):
        return import_module(f"scpalm.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'scpalm' has no attribute '{name}'")
    return getattr(import_module(_MODULE_OF[name]), name)
