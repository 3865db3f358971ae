"""Version of the installed package."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def release() -> str:
    """The version, such as ``0.1.0``, or ``0+source`` if the package is not installed."""
    try:
        return version("scpalm")
    except PackageNotFoundError:
        return "0+source"
