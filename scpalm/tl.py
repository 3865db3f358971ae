"""Functions in the manner of scanpy's ``tl``, on an engine that is kept for the process.

They write into the AnnData and return None, or a copy with ``copy=True``; see the methods of `scpalm.Engine`.

>>> scpalm.tl.embed(adata)
>>> scpalm.tl.annotate(adata, vote="leiden")
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from scpalm.model.engine import Engine, load

P = ParamSpec("P")
R = TypeVar("R")


@functools.cache
def engine() -> Engine:
    """The engine of these functions: the model that ships with the package, on the fastest device."""
    return load()


def _on_engine(method: Callable[Concatenate[Engine, P], R]) -> Callable[P, R]:
    @functools.wraps(method)
    def function(*args: P.args, **kwargs: P.kwargs) -> R:
        return method(engine(), *args, **kwargs)

    return function


embed = _on_engine(Engine.embed)
impute = _on_engine(Engine.impute)
pathways = _on_engine(Engine.pathways)
ic50 = _on_engine(Engine.ic50)
annotate = _on_engine(Engine.annotate)
integrate = _on_engine(Engine.integrate)
umap = _on_engine(Engine.umap)
