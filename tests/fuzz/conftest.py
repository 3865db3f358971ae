"""Reuses the fixtures of tests/app."""

from __future__ import annotations

from tests.app.conftest import bundle_dir, make_app, session

__all__ = ["bundle_dir", "make_app", "session"]
