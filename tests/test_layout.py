"""Rules for the layout of the repository that no linter checks."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path
    for room in ("app", "model", "training")
    for path in (ROOT / room).rglob("*.py")
    if "node_modules" not in path.parts  # packages of the page, not in the repository
)

# Imports every module of the service while the libraries of training cannot be imported; prints the number of modules.
WITHOUT_TRAINING_LIBRARIES = """
import importlib, pkgutil, sys
hidden = ("torch", "sklearn", "igraph", "scanpy", "celltypist", "onnx", "tensorboard", "matplotlib", "scpalm.training")
for name in hidden:
    sys.modules[name] = None
import scpalm.app
modules = [module.name for module in pkgutil.walk_packages(scpalm.app.__path__, "scpalm.app.")]
modules += ["scpalm.model.genes.prepare", "scpalm.model.io.hdf5.h5ad", "scpalm.model.sessions.session"]
for module in modules:
    importlib.import_module(module)
print(len(modules))
"""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_has_fewer_than_300_lines(path: Path) -> None:
    assert num_lines(path) < 300, "split files of 300 lines or more"


def test_so_have_the_files_of_tests() -> None:
    tests = (path for path in (ROOT / "tests").rglob("*.py") if "node_modules" not in path.parts)
    assert [str(path) for path in tests if num_lines(path) >= 300] == []


def num_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_every_folder_of_modules_is_a_package() -> None:
    assert [str(path) for path in {path.parent for path in SOURCES} if not (path / "__init__.py").is_file()] == []


def test_the_service_imports_without_torch_and_without_the_libraries_of_training() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TRAINING_LIBRARIES], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10


def _build(target: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (built,) = folder.iterdir()
    return built


def test_a_wheel_puts_one_name_into_site_packages_and_has_every_module(tmp_path: Path) -> None:
    with zipfile.ZipFile(_build("wheel", tmp_path)) as wheel:
        names = {Path(name) for name in wheel.namelist()}
    assert {name.parts[0] for name in names if not name.parts[0].endswith(".dist-info")} == {"scpalm"}
    assert {Path("scpalm") / path.relative_to(ROOT) for path in SOURCES} <= names
    assert Path("scpalm/model/bundles/mini/manifest.json") in names
    assert Path("scpalm/app/web/built/index.html") in names and Path("scpalm/app/web/package-lock.json") in names
    assert not [name for name in names if "node_modules" in name.parts]


def test_a_source_archive_has_every_module_once(tmp_path: Path) -> None:
    with tarfile.open(_build("sdist", tmp_path)) as archive:
        names = [Path(*Path(name).parts[1:]) for name in archive.getnames()]
    for path in SOURCES:
        own = path.relative_to(ROOT)
        assert (Path("scpalm") / own in names) or own in names, f"{own} is missing"
