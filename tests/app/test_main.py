from __future__ import annotations

from pathlib import Path

import pytest

from scpalm.app.main import create_app
from scpalm.app.settings import load_settings
from scpalm.model.errors import UserError


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("redis_url", "localhost:6379", "SCPALM_REDIS_URL has no known scheme"),
        ("api_keys_file", "/keys", "/keys is not a file of API keys"),
    ],
)
def test_invalid_settings_prevent_startup(
    tmp_path: Path, bundle_dir: Path, setting: str, value: str, words: str
) -> None:
    settings = load_settings(bundle=bundle_dir, spool_dir=tmp_path, **{setting: value})
    with pytest.raises(UserError, match=words):
        create_app(settings)
