from __future__ import annotations

from pathlib import Path

import pytest

from scpalm.app.settings import Settings, SettingsError, load_settings, setting_lines


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("PORT", "eighty", "SCPALM_PORT"),
        ("DEVICE", "tpu", "SCPALM_DEVICE"),
        ("MAX_CELLS", "0", "SCPALM_MAX_CELLS"),
        ("MAX_QUEUED_CELLS", "10", "SCPALM_MAX_CELLS"),
        ("SPOOL_DIR", "/no/such/folder", "not a directory"),
        ("LOG_FORMAT", "xml", "SCPALM_LOG_FORMAT"),
        ("TRUSTED_PROXIES", "10.0.0.1,proxy", "'proxy' is not an address or network"),
        ("TRUSTED_PROXIES", "10.0.0.1/8", "SCPALM_TRUSTED_PROXIES"),
    ],
)
def test_an_invalid_variable_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    monkeypatch.setenv(f"SCPALM_{variable}", value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_arguments_override_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCPALM_PORT", "9000")
    monkeypatch.setenv("SCPALM_BATCH_CELLS", "7")
    assert load_settings(port=None).port == 9000
    assert load_settings(port=9001).port == 9001
    assert load_settings().batch_cells == 7
    assert load_settings(bundle=Path("elsewhere")).bundle == Path("elsewhere")


def test_trusted_proxies_are_addresses_and_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().proxies == ["127.0.0.1", "::1"]
    for text, proxies in (("none", []), ("*", ["*"]), (" 10.0.0.5, fd00::/8 ,", ["10.0.0.5", "fd00::/8"])):
        monkeypatch.setenv("SCPALM_TRUSTED_PROXIES", text)
        assert load_settings().proxies == proxies


def test_every_setting_has_a_description() -> None:
    lines = dict(setting_lines())
    assert len(lines) == len(Settings.model_fields)
    assert all(". Default: " in text or ": " in text for text in lines.values())
    assert all("Default" in text or "must be empty" in text.lower() for text in lines.values())


@pytest.mark.parametrize("variable", [f"SCPALM_{name.upper()}" for name in Settings.model_fields])
def test_an_empty_variable_is_the_default(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "")
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("variable", "near"),
    [
        ("SCPALM_API_KEY_FILE", "SCPALM_API_KEYS_FILE"),
        ("SCPALM_API_KEYS", "SCPALM_API_KEYS_FILE"),
        ("SCPALM_PORTS", "SCPALM_PORT"),
        ("scpalm_max_cell", "SCPALM_MAX_CELLS"),
        ("SCPALM_REDIS", "SCPALM_REDIS_URL"),
    ],
)
def test_a_variable_that_is_no_setting_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, variable: str, near: str
) -> None:
    monkeypatch.setenv(variable, "x")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert variable in str(caught.value) and f"Did you mean '{near}'" in str(caught.value)


def test_variables_of_tests_and_of_others_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "SCPALM_FUZZ_SEED",
        "SCPALM_BIN",
        "SCPALMX",
        "PORT",
        "SCPALM_SERVICE_HOST",
        "SCPALM_PORT_8000_TCP_ADDR",
    ):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("scpalm_port", "9100")  # in any case, as before
    assert load_settings().port == 9100
