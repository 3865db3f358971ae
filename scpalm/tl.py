"""Functions in the manner of scanpy's ``tl``, on an engine that is kept for the process.

They write into the AnnData and return None, or a copy with ``copy=True``. `scpalm.pl` draws what they write.

>>> scpalm.tl.embed(adata)
>>> scpalm.tl.annotate(adata, vote="leiden")
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from scpalm.model.engine import Engine, load

P = ParamSpec("P")
R = TypeVar("R")


@functools.cache
def engine() -> Engine:
    """The engine of these functions, opened on the first call and kept for the process.

    Returns:
        The model that ships with the package, on the fastest device. For another model or device, use the methods of
        `scpalm.load`.

    Raises:
        MissingRuntimeError: the runtime is not installed; the text has the command that installs it.

    Example:
        >>> scpalm.tl.engine().bundle.version
        '2.0'
    """
    return load()


def _on_engine(method: Callable[Concatenate[Engine, P], R]) -> Callable[P, R]:
    @functools.wraps(method)
    def function(*args: P.args, **kwargs: P.kwargs) -> R:
        return method(engine(), *args, **kwargs)

    # For help() and the documentation: without `self`, with the return type of an engine.
    signature = inspect.signature(method)
    parameters = list(signature.parameters.values())[1:]
    public = signature.replace(parameters=parameters, return_annotation="AnnData | None")
    function.__signature__ = public  # type: ignore[attr-defined]
    function.__doc__ = (method.__doc__ or "").replace("engine.", "scpalm.tl.")
    return function


embed = _on_engine(Engine.embed)
impute = _on_engine(Engine.impute)
pathways = _on_engine(Engine.pathways)
ic50 = _on_engine(Engine.ic50)
annotate = _on_engine(Engine.annotate)
integrate = _on_engine(Engine.integrate)
umap = _on_engine(Engine.umap)
