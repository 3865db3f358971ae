from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scpalm.model.bundle import FORMAT_VERSION, Bundle
from scpalm.model.errors import BundleError
from scpalm.model.sessions.base import network_config


@pytest.fixture
def copy(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle.path, tmp_path / "bundle"))


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_a_complete_bundle_loads(copy: Path) -> None:
    bundle = Bundle.load(copy)
    assert (bundle.name, bundle.version) == ("tiny", "7")
    assert len(bundle.vocabulary) == bundle.manifest["network"]["num_genes"]


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(BundleError, match=r"manifest\.json is missing.*scpalm-train export"):
            Bundle.load(path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "{}", '{"format_version": 1}', '{"format_version": 1, "files": 3}']
)
def test_an_unreadable_manifest_is_refused(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match="not a valid manifest"):
        Bundle.load(copy)


@pytest.mark.parametrize("entry", ["text", {}, None, 7])
def test_a_file_without_a_checksum_is_refused(copy: Path, entry: object) -> None:
    edit(copy, lambda manifest: manifest["files"].update({"genes.parquet": entry}))
    with pytest.raises(BundleError):
        Bundle.load(copy)


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, "1", None])
def test_another_format_version_is_refused(copy: Path, version: object) -> None:
    edit(copy, lambda manifest: manifest.update(format_version=version))
    with pytest.raises(BundleError, match="format version"):
        Bundle.load(copy)


@pytest.mark.parametrize("name", ["weights.safetensors", "genes.parquet", "embed.onnx"])
def test_one_changed_byte_is_found(copy: Path, name: str) -> None:
    path = copy / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} does not match its checksum"):
        Bundle.load(copy)


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "embed.onnx").unlink()
    with pytest.raises(BundleError, match=r"embed\.onnx is listed in the manifest but missing"):
        Bundle.load(copy)


@pytest.mark.parametrize("name", ["../secret", "sub/../../secret", "/etc/hostname", "..", ".", "sub/file", ""])
def test_a_name_that_is_a_path_is_refused(copy: Path, name: str) -> None:
    (copy.parent / "secret").write_text("not of the bundle")
    (copy / "sub").mkdir()
    (copy / "sub" / "file").write_text("deeper")
    edit(copy, lambda manifest: manifest["files"].update({name: {"sha256": "0" * 64}}))
    with pytest.raises(BundleError, match="is listed in the manifest but missing"):
        Bundle.load(copy)


@pytest.mark.parametrize(
    "change",
    [
        {"width": 17},
        {"num_codes": 0},
        {"num_tokens": "many"},
        {"another": 1},
        {"num_genes": 3},
        {"decoder_sees_cell": "always"},
    ],
)
def test_sizes_that_do_not_fit_are_refused(copy: Path, change: dict[str, object]) -> None:
    edit(copy, lambda manifest: manifest["network"].update(change))
    with pytest.raises(BundleError, match="Export the bundle again"):
        network_config(Bundle.load(copy))


def test_a_manifest_without_sizes_is_refused(copy: Path) -> None:
    edit(copy, lambda manifest: manifest.pop("network"))
    with pytest.raises(BundleError, match="network sizes"):
        network_config(Bundle.load(copy))


@pytest.mark.parametrize("key", ["name", "version"])
@pytest.mark.parametrize("value", [None, "", 3, ["mini"]])
def test_a_manifest_without_name_or_version_is_refused(copy: Path, key: str, value: object) -> None:
    edit(copy, lambda manifest: manifest.pop(key) if value is None else manifest.update({key: value}))
    with pytest.raises(BundleError, match=f"'{key}'"):
        Bundle.load(copy)
