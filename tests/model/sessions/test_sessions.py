"""The session protocol, for all runtimes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from safetensors.numpy import load_file, save_file

from scpalm.model.bundle import Bundle, write_manifest
from scpalm.model.errors import BundleError
from scpalm.model.genes.rows import GeneSet, Rows
from scpalm.model.sessions.onnx import OnnxSession, run_bound
from scpalm.model.sessions.session import Session, open_session
from scpalm.model.sessions.shapes import GPU_SHAPES
from tests.training.tiny import NUM_GENES, SIZES

RUNTIMES = ("onnx", "torch", "torchscript")


def random_rows(cells: int, *, seed: int = 0) -> list[Rows]:
    """Single cells, alternately of two gene sets; they express between a few and nearly all of their genes."""
    random = np.random.default_rng(seed)
    sets = (GeneSet(np.ones(NUM_GENES, bool)), GeneSet(random.random(NUM_GENES) < 0.6))
    out = []
    for i in range(cells):
        gene_set = sets[i % 2]
        count = int(random.integers(3, gene_set.num_measured))
        genes = np.sort(random.choice(np.flatnonzero(gene_set.measured), count, replace=False)).astype(np.int32)
        value = random.exponential(1.0, count).astype(np.float32) + np.float32(0.1)
        out.append(Rows(np.array([0, count], np.int64), genes, value, (gene_set,), np.zeros(1, np.int32)))
    return out


@pytest.fixture(scope="module", params=RUNTIMES)
def session(request: pytest.FixtureRequest, tiny_bundle: Bundle) -> Session:
    return open_session(tiny_bundle, runtime=request.param, device="cpu", threads=1)


@pytest.fixture(scope="module")
def onnx(tiny_bundle: Bundle) -> Session:
    return open_session(tiny_bundle, device="cpu", threads=1)


def test_shapes_types_and_sizes(session: Session) -> None:
    encoded = session.encode(Rows.concat(random_rows(5)))
    assert encoded.embedding.shape == (5, SIZES.components + SIZES.view_width)
    assert encoded.f.shape == (5, SIZES.components)
    assert encoded.h_C.shape == (5, SIZES.width)
    assert encoded.embedding.dtype == encoded.h_C.dtype == np.float32
    assert encoded.codes.shape == (5, SIZES.num_tokens)
    assert encoded.codes.dtype == np.int32
    assert encoded.codes.min() >= 0 and encoded.codes.max() < SIZES.num_codes
    np.testing.assert_allclose(np.linalg.norm(encoded.f, axis=1), 1, rtol=1e-5)
    info = session.info
    assert info.embedding_width == SIZES.components + SIZES.view_width
    assert info.num_components == SIZES.components
    assert (info.cell_width, info.num_tokens, info.num_codes) == (SIZES.width, SIZES.num_tokens, SIZES.num_codes)
    assert (info.num_genes, info.device) == (NUM_GENES, "cpu")


def test_cells_differ(session: Session) -> None:
    encoded = session.encode(Rows.concat(random_rows(40)))
    assert len(np.unique(encoded.h_C, axis=0)) > 20
    assert len(np.unique(encoded.embedding, axis=0)) == 40


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_only_what_is_asked_for_is_computed(tiny_bundle: Bundle, runtime: str) -> None:
    session = open_session(tiny_bundle, runtime=runtime, device="cpu", threads=1)
    rows = Rows.concat(random_rows(9))
    whole, without = session.encode(rows), session.encode(rows, tokens=False)
    assert np.array_equal(without.embedding, whole.embedding)
    with pytest.raises(RuntimeError, match="needs_tokens"):
        _ = without.codes
    some = session.encode(rows, tokens=np.arange(9) % 2 == 0)
    assert np.array_equal(some.codes[::2], whole.codes[::2])
    assert np.array_equal(some.h_C[::2], whole.h_C[::2])
    assert not some.codes[1::2].any() and not some.h_C[1::2].any()


@pytest.mark.parametrize("names", [("onnx", "torch"), ("onnx", "torchscript")])
def test_the_runtimes_agree(tiny_bundle: Bundle, names: tuple[str, str]) -> None:
    rows = Rows.concat(random_rows(60))
    one, other = (open_session(tiny_bundle, runtime=name, device="cpu", threads=1).encode(rows) for name in names)
    agreement = one.codes == other.codes
    assert agreement.mean() >= 0.999
    assert np.abs(one.h_C - other.h_C)[agreement.all(axis=1)].max() < 1e-4
    np.testing.assert_allclose(one.embedding, other.embedding, atol=1e-5)
    np.testing.assert_allclose(one.log_length, other.log_length, atol=1e-5)


def companies(parts: list[Rows]) -> Iterator[tuple[str, list[int]]]:
    """Batches of cells, as lists of their numbers."""
    everyone = list(range(len(parts)))
    yield "reversed", everyone[::-1]
    yield "shuffled", np.random.default_rng(0).permutation(len(parts)).tolist()
    yield "one gene set", everyone[::2]
    yield "a few", everyone[3:8]
    yield "a batch of eight", everyone[:8]
    yield "more than a full batch", everyone[:33]
    yield "twice", [5, 5, 6, 5]


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_the_same_cell_gives_the_same_bits_whatever_else_is_in_the_batch(tiny_bundle: Bundle, runtime: str) -> None:
    session = open_session(tiny_bundle, runtime=runtime, device="cpu", threads=1)
    parts = random_rows(70)
    alone = [session.encode(part) for part in parts]
    for output in ("embedding", "h_C", "codes"):
        one_by_one = np.concatenate([getattr(encoded, output) for encoded in alone])
        assert np.array_equal(getattr(session.encode(Rows.concat(parts)), output), one_by_one)
        for name, numbers in companies(parts):
            result = getattr(session.encode(Rows.concat([parts[i] for i in numbers])), output)
            assert np.array_equal(result, one_by_one[numbers]), f"{output} {name}"


def test_torchscript_agrees_within_rounding_whatever_the_batch(tiny_bundle: Bundle) -> None:
    session = open_session(tiny_bundle, runtime="torchscript", device="cpu", threads=1)
    parts = random_rows(40)
    alone = np.concatenate([session.encode(part).h_C for part in parts])
    # Its matrix products are split by batch size.
    np.testing.assert_allclose(session.encode(Rows.concat(parts)).h_C, alone, rtol=0, atol=5e-6)


def test_the_shapes_and_bindings_of_a_gpu_give_the_same_values(tiny_bundle: Bundle, onnx: Session) -> None:
    bound = OnnxSession(tiny_bundle, device="cpu", threads=1)
    bound._shapes = GPU_SHAPES
    bound._run = run_bound_on_cpu  # type: ignore[method-assign]
    parts = random_rows(70)
    rows = Rows.concat(parts)
    found, expected = bound.encode(rows), onnx.encode(rows)
    assert (found.codes == expected.codes).mean() >= 0.999
    np.testing.assert_allclose(found.embedding, expected.embedding, atol=1e-5)
    genes = np.arange(NUM_GENES)
    np.testing.assert_allclose(bound.impute(expected, genes), onnx.impute(expected, genes), atol=1e-5)
    alone = np.concatenate([bound.encode(part).h_C for part in parts])
    assert np.array_equal(found.h_C, alone)


def run_bound_on_cpu(
    session: InferenceSession, names: list[str], feed: Mapping[str, NDArray[np.generic]]
) -> list[NDArray[np.generic]]:
    return run_bound(session, names, feed, "cpu")


def test_more_threads_change_no_bit(tiny_bundle: Bundle, onnx: Session) -> None:
    rows = Rows.concat(random_rows(70))
    several = open_session(tiny_bundle, device="cpu", threads=3)
    assert np.array_equal(several.encode(rows).embedding, onnx.encode(rows).embedding)


def test_missing_genes_are_not_zeros(onnx: Session) -> None:
    zeros, missing = [], []
    for rows in random_rows(40)[::2]:
        zeros.append(rows)
        expressed = GeneSet(np.isin(np.arange(NUM_GENES), rows.gene_index))
        missing.append(Rows(rows.indptr, rows.gene_index, rows.value, (expressed,), rows.gene_set_of_row))
    assert not np.array_equal(onnx.encode(Rows.concat(zeros)).embedding, onnx.encode(Rows.concat(missing)).embedding)


def test_warming_up_runs_and_changes_nothing(session: Session) -> None:
    rows = Rows.concat(random_rows(5))
    before = session.encode(rows).embedding
    session.warm_up()
    assert np.array_equal(session.encode(rows).embedding, before)


def test_an_unknown_runtime_is_named(tiny_bundle: Bundle) -> None:
    with pytest.raises(ValueError, match="Unknown runtime 'tensorrt'"):
        open_session(tiny_bundle, runtime="tensorrt")


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("device", ["tpu", "cuda:x", "cpu:x", "", "cuda:4096"])
def test_an_absent_device_is_named(tiny_bundle: Bundle, runtime: str, device: str) -> None:
    with pytest.raises(ValueError, match=f"'{device}'"):
        open_session(tiny_bundle, runtime=runtime, device=device)


class TestBrokenBundles:
    """Bundles whose checksums match but whose content does not fit, e.g. files from two exports."""

    @staticmethod
    def copy(bundle: Bundle, folder: Path) -> Path:
        return Path(shutil.copytree(bundle.path, folder / "bundle"))

    @staticmethod
    def seal(path: Path) -> Bundle:
        write_manifest(path, json.loads((path / "manifest.json").read_text()))
        return Bundle.load(path)

    @staticmethod
    def change_weights(path: Path, name: str, tensor: NDArray[np.generic] | None) -> None:
        tensors = load_file(path / "weights.safetensors")
        del tensors[name]
        save_file(tensors if tensor is None else {**tensors, name: tensor}, path / "weights.safetensors")

    @pytest.mark.parametrize("runtime", RUNTIMES)
    def test_no_weights(self, tiny_bundle: Bundle, tmp_path: Path, runtime: str) -> None:
        path = self.copy(tiny_bundle, tmp_path)
        (path / "weights.safetensors").unlink()
        with pytest.raises(BundleError):
            open_session(self.seal(path), runtime=runtime, device="cpu")

    @pytest.mark.parametrize("runtime", RUNTIMES)
    @pytest.mark.parametrize("content", [b"", b"no safetensors at all", b"\xff" * 64])
    def test_unreadable_weights(self, tiny_bundle: Bundle, tmp_path: Path, runtime: str, content: bytes) -> None:
        path = self.copy(tiny_bundle, tmp_path)
        (path / "weights.safetensors").write_bytes(content)
        with pytest.raises(BundleError):
            open_session(self.seal(path), runtime=runtime, device="cpu")

    @pytest.mark.parametrize("tensor", [None, np.zeros((3, 3), np.float32)])
    @pytest.mark.parametrize("name", ["basis.scale", "basis.components", "encoder_position", "view_head.linear.weight"])
    def test_a_tensor_that_is_missing_or_has_another_shape(
        self, tiny_bundle: Bundle, tmp_path: Path, name: str, tensor: NDArray[np.generic] | None
    ) -> None:
        path = self.copy(tiny_bundle, tmp_path)
        self.change_weights(path, name, tensor)
        with pytest.raises(BundleError):
            open_session(self.seal(path), runtime="torchscript", device="cpu")

    def test_no_graph(self, tiny_bundle: Bundle, tmp_path: Path) -> None:
        path = self.copy(tiny_bundle, tmp_path)
        (path / "embed.onnx").unlink()
        with pytest.raises(BundleError, match=r"does not list embed\.onnx"):
            open_session(self.seal(path), device="cpu")

    @pytest.mark.parametrize("content", [b"", b"no graph"])
    def test_a_graph_that_does_not_load(self, tiny_bundle: Bundle, tmp_path: Path, content: bytes) -> None:
        path = self.copy(tiny_bundle, tmp_path)
        (path / "embed.onnx").write_bytes(content)
        with pytest.raises(BundleError, match=r"embed\.onnx does not load"):
            open_session(self.seal(path), device="cpu")
