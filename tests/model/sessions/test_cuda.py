"""The session for a GPU, on the CPU: half precision, blocks, the shipped model. `tests/gpu` has what needs a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from anndata import AnnData

import scpalm
from scpalm.model.bundle import DEFAULT_BUNDLE, Bundle
from scpalm.model.errors import DeviceLostError
from scpalm.model.genes.rows import Rows
from scpalm.model.network.config import PRESETS, NetworkConfig
from scpalm.model.network.device import rounded
from scpalm.model.network.streams import Device
from scpalm.model.network.transformer import Transformer
from scpalm.model.sessions import session as session_module
from scpalm.model.sessions.cuda import CudaSession, block_shape, smallest_good_batch
from scpalm.model.sessions.session import Encoded, open_session
from scpalm.model.sessions.staging import BlockShape, Slot, blocks, order_by_gene_set
from tests.model.sessions.test_sessions import random_rows

CPU = Device(torch.device("cpu"))


@pytest.fixture(scope="module")
def shipped(real_cells: AnnData) -> tuple[Bundle, Encoded]:
    """The shipped model, and real cells encoded by the default session."""
    engine = scpalm.load(DEFAULT_BUNDLE, "cpu", threads=2)
    with engine.read(real_cells) as reader:
        return engine.bundle, engine.encode(next(iter(reader)))


def cosine(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


def test_in_float32_real_cells_get_the_values_of_the_default_session(shipped: tuple[Bundle, Encoded]) -> None:
    bundle, expected = shipped
    session = CudaSession(bundle, device="cpu")
    found = session.encode(expected.rows)
    assert (found.codes == expected.codes).mean() >= 0.999
    assert cosine(found.embedding, expected.embedding).min() >= 0.99999
    assert cosine(found.h_C, expected.h_C).min() >= 0.9999
    genes = np.arange(0, session.info.num_genes, 97)
    default = open_session(bundle, runtime="onnx", device="cpu")
    np.testing.assert_allclose(session.impute(expected, genes), default.impute(expected, genes), atol=1e-4)


def test_in_float16_nearly_all_codes_of_real_cells_stay(shipped: tuple[Bundle, Encoded]) -> None:
    bundle, expected = shipped
    session = CudaSession(bundle, device="cpu", dtype=torch.float16)
    some = expected.rows.slice(0, 32)
    found = session.encode(some)
    assert (found.codes == expected.codes[:32]).mean() >= 0.997
    assert cosine(found.h_C, expected.h_C[:32]).mean() >= 0.9999
    # f decides codes, and is float32 in any case.
    assert cosine(found.embedding, expected.embedding[:32]).min() >= 0.99999
    alone = session.encode(some.slice(5, 6))
    assert np.array_equal(alone.h_C[0], found.h_C[5]) and np.array_equal(alone.codes[0], found.codes[5])
    genes = np.arange(0, session.info.num_genes, 97)
    default = open_session(bundle, runtime="onnx", device="cpu").impute(expected.slice(0, 32), genes)
    np.testing.assert_allclose(session.impute(expected.slice(0, 32), genes), default, atol=0.02)


def test_half_precision_needs_norms_before_the_products() -> None:
    before, after = (Transformer(16, 1, 2, norm) for norm in ("pre", "post"))
    dtypes = [{tensor.dtype for tensor in rounded(one, torch.float16).parameters()} for one in (before, after)]
    assert dtypes == [{torch.float16, torch.float32}, {torch.float32}]


@pytest.mark.parametrize(("cells", "entries"), [(3, 1 << 16), (64, 200), (64, 120)])
def test_blocks_hold_every_cell_once_and_fit(cells: int, entries: int) -> None:
    rows = Rows.concat(random_rows(40))
    order, shape = order_by_gene_set(rows), BlockShape(cells, entries)
    found = list(blocks(rows, order, shape))
    assert np.array_equal(np.concatenate([block.rows for block in found]), order)
    assert [block.start for block in found][1:] == [block.stop for block in found][:-1]
    for block in found:
        assert len(block.rows) <= cells and rows.lengths()[block.rows].sum() <= entries
        assert set(rows.gene_set_of_row[block.rows]) == {block.gene_set}


def test_a_slot_holds_the_entries_of_its_block_and_no_others() -> None:
    rows = Rows.concat(random_rows(12))
    shape = BlockShape(8, 1 << 12)
    slot = Slot(CPU, shape)
    for block in blocks(rows, order_by_gene_set(rows), shape):
        slot.send(rows, block)
        ends = slot.offsets.numpy()
        for position, row in enumerate(block.rows):
            part = slice(ends[position], ends[position + 1])
            source = slice(rows.indptr[row], rows.indptr[row + 1])
            assert np.array_equal(slot.gene_index.numpy()[part], rows.gene_index[source])
            assert np.array_equal(slot.value.numpy()[part], rows.value[source])
        # The rest belongs to cells that are not read, none of which has much of it.
        assert ends[len(block.rows)] == rows.lengths()[block.rows].sum() and ends[-1] == slot.capacity == len(
            slot.value
        )
        rest = np.diff(ends[len(block.rows) :])
        assert (rest >= 0).all() and rest.max() <= slot.capacity / shape.cells + 1


@pytest.mark.parametrize("preset", ["mini", "base"])
def test_a_block_fills_a_gpu_and_holds_any_cell(preset: str) -> None:
    config = NetworkConfig(num_genes=36_000, **PRESETS[preset])  # type: ignore[arg-type]
    shape = block_shape(config, on_gpu=True)
    assert shape.cells * config.num_tokens >= 16_384 and shape.entries >= config.num_genes
    assert block_shape(config, on_gpu=False).entries >= config.num_genes


def test_auto_takes_torch_only_where_it_finds_a_gpu(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_session(tiny_bundle).info.runtime == "onnx"
    monkeypatch.setattr(session_module, "_torch_finds_gpu", lambda: True)
    assert open_session(tiny_bundle, device="cpu").info.runtime == "onnx"
    assert open_session(tiny_bundle, device="auto").info.runtime == "torch"


def test_the_best_batch_is_the_smallest_of_nearly_the_best_rate() -> None:
    speed = smallest_good_batch({64: 10, 256: 50, 512: 80, 1024: 96, 2048: 97, 4096: 100, 8192: 99})
    assert (speed.cells_per_second, speed.batch_cells) == (100, 1024)


@pytest.mark.parametrize(("lost", "raised"), [(False, RuntimeError), (True, DeviceLostError)])
def test_a_lost_device_is_no_fault_of_the_cells(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, raised: type[BaseException], *, lost: bool
) -> None:
    session, rows = CudaSession(tiny_bundle, device="cpu"), Rows.concat(random_rows(3))

    def fail() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with monkeypatch.context() as patched:
        patched.setattr(session._encoder, "run", fail)
        patched.setattr(session._device, "is_lost", lambda: lost)
        with pytest.raises(raised, match="illegal memory access"):
            session.encode(rows)
    assert len(session.encode(rows)) == 3  # no lock is left


def test_warming_up_changes_no_value(tiny_bundle: Bundle) -> None:
    session, rows = CudaSession(tiny_bundle, device="cpu"), Rows.concat(random_rows(20))
    before = session.encode(rows)
    assert session.warm_up().cells_per_second > 0
    after = session.encode(rows)
    assert np.array_equal(before.embedding, after.embedding) and np.array_equal(before.codes, after.codes)
