"""Files added to a bundle are in its manifest, and a damaged bundle is not changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from scpalm.model.bundle import Bundle
from scpalm.model.errors import BundleError
from scpalm.training.export.bundle_files import add_files
from tests.training.bundles import exported


@pytest.fixture
def bundle(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(exported(tmp_path_factory).bundle, tmp_path / "bundle"))


def test_added_files_are_checked_and_entries_kept(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "table").write_bytes(b"second")
    before = Bundle.load(bundle).manifest
    add_files(bundle, {"a.json": b"first", "table": tmp_path / "table"}, {"tasks": ["embed", "more"]})
    loaded = Bundle.load(bundle)
    assert loaded.file("a.json").read_bytes() == b"first"
    assert loaded.file("table").read_bytes() == b"second"
    assert loaded.manifest["tasks"] == ["embed", "more"]
    assert loaded.manifest["network"] == before["network"]
    (bundle / "a.json").write_bytes(b"other")
    with pytest.raises(BundleError, match="checksum"):
        Bundle.load(bundle)


def test_a_damaged_bundle_is_refused_and_left_alone(bundle: Path) -> None:
    (bundle / "embed.onnx").write_bytes(b"damaged")
    manifest = (bundle / "manifest.json").read_bytes()
    with pytest.raises(BundleError, match=r"embed\.onnx"):
        add_files(bundle, {"a.json": b"first"}, {})
    assert (bundle / "manifest.json").read_bytes() == manifest
    assert not (bundle / "a.json").exists()


@pytest.mark.parametrize("name", ["../a.json", "manifest.json", "sub/a"])
def test_only_plain_file_names_are_accepted(bundle: Path, name: str) -> None:
    with pytest.raises(ValueError, match="name of a file"):
        add_files(bundle, {name: b""}, {})
