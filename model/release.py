"""Version of the installed package."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache  # reading the metadata of a package takes a millisecond
def release() -> str:
    """The version, such as ``0.1.0``, or ``0+source`` if the package is not installed."""
    try:
        return version("scpalm")
    except PackageNotFoundError:
        return "0+source"
