"""The fixtures of the service's own tests."""

from __future__ import annotations

from tests.app.conftest import bundle_dir, make_app, session

__all__ = ["bundle_dir", "make_app", "session"]
