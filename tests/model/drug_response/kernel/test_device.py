"""The kernel head on a device, on the CPU. `tests/gpu` compares a GPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from anndata import AnnData

import scpalm
from scpalm.model.bundle import Bundle
from scpalm.model.drug_response.drugs.drug import Drug
from scpalm.model.drug_response.drugs.drug_search import FoundDrug
from scpalm.model.drug_response.kernel.device import DeviceKernel
from scpalm.model.drug_response.kernel.head import Floats, ProfileResponses
from scpalm.model.drug_response.kernel.predictor import KernelPredictor
from scpalm.model.drug_response.kernel.profile import log2_tpm
from scpalm.model.drug_response.session import DrugResponseSession, drug_response_of
from scpalm.model.errors import DeviceLostError
from scpalm.model.genes.rows import GeneSet, Rows
from scpalm.model.sessions.cuda import CudaSession
from scpalm.model.tasks.ic50 import Ic50, Ic50Request

NAMES = ("ln_ic50", "lower", "upper", "cell_distance")


@pytest.fixture(scope="module")
def rows(real_cells: AnnData) -> Rows:
    """20 real cells, 10 sums of ten, and an empty one; every fourth was measured without some genes."""
    sums = AnnData(real_cells.X[:100].toarray().reshape(10, 10, -1).sum(axis=1))
    sums.var_names = real_cells.var_names
    engine = scpalm.load(device="cpu", threads=1)
    parts = []
    for cells in (real_cells[:20].copy(), sums):
        with engine.read(cells) as reader:
            parts.append(next(iter(reader)).rows)
    every = parts[0].gene_sets[0].measured
    some = GeneSet(every & (np.arange(len(every)) % 5 > 0))
    joined = drug_response_of(engine.bundle).panel.only(Rows.concat(parts))
    kept = [joined.slice(row, row + 1) for row in range(len(joined))]
    kept = [_measured(row, some) if number % 4 == 3 else row for number, row in enumerate(kept)]
    return Rows.concat([*kept, _measured(kept[0], GeneSet(np.zeros(len(every), bool)), every)])


def _measured(row: Rows, genes: GeneSet, named: np.ndarray | None = None) -> Rows:
    """The row without the other genes."""
    kept = genes.measured[row.gene_index]
    gene_set = row.gene_sets[0].measured & (genes.measured if named is None else named)
    return Rows(np.array([0, kept.sum()]), row.gene_index[kept], row.value[kept], (GeneSet(gene_set),),
                np.zeros(1, np.int32))  # fmt: skip


@pytest.fixture(scope="module")
def head() -> DrugResponseSession:
    return DrugResponseSession(Bundle.load())


@pytest.fixture
def on_device(head: DrugResponseSession) -> KernelPredictor:
    """The head of the shipped model, with its products in PyTorch under the name ``torch``."""
    assert head.kernel is not None
    head.kernel._devices["torch"] = DeviceKernel.on(head.kernel.head, "cpu")
    return head.kernel


def test_a_device_gives_the_values_of_the_cpu(
    head: DrugResponseSession, on_device: KernelPredictor, rows: Rows
) -> None:
    drugs = [*head.drugs.drugs[:30], Drug("xylene", "Cc1ccccc1C")]
    calls = np.random.default_rng(0).integers(-1, 2, (len(rows), len(head.mutation_names)))
    for mutation in (None, calls):
        expected, found = (on_device.predict(rows, drugs, mutation, device=name) for name in ("cpu", "torch"))
        for name in NAMES:
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=2e-4, err_msg=name)
        np.testing.assert_array_equal(found.cell_outside, expected.cell_outside)
        assert found.relative is not None and expected.relative is not None
        np.testing.assert_array_equal(found.relative.nearest[:-1], expected.relative.nearest[:-1])
        np.testing.assert_allclose(found.relative.percentile, expected.relative.percentile, atol=0.5)
        assert np.isnan(found.ln_ic50[-1]).all() and np.isfinite(found.ln_ic50[:-1]).all()
    # Real cells are sparse, sums of ten are not: all branches were taken.
    noise = on_device.head.responses(log2_tpm(head.panel.values(rows)), "expression").noise
    assert len(np.unique(noise)) >= 2


def test_a_profile_in_the_same_place_has_the_same_bits_with_any_others(
    on_device: KernelPredictor, rows: Rows, head: DrugResponseSession
) -> None:
    drugs = head.drugs.drugs[:5]
    first = on_device.predict(rows.slice(0, 1), drugs, device="torch")
    among = on_device.predict(rows, drugs, device="torch")
    for name in NAMES:
        np.testing.assert_array_equal(getattr(first, name)[0], getattr(among, name)[0])


def test_more_profiles_than_a_block_come_back_in_order(
    on_device: KernelPredictor, rows: Rows, head: DrugResponseSession
) -> None:
    many = Rows.concat([rows, rows, rows])
    found = on_device.predict(many, head.drugs.drugs[:3], device="torch").ln_ic50.reshape(3, len(rows), 3)
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)
    np.testing.assert_allclose(found[2], found[0], atol=1e-4)


def test_a_lost_device_is_no_fault_of_the_cells(
    on_device: KernelPredictor, rows: Rows, head: DrugResponseSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = on_device._devices["torch"]

    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(kernel, "_of_block", fail)
    with pytest.raises(RuntimeError, match="illegal"):
        on_device.predict(rows, head.drugs.drugs[:3], device="torch")
    monkeypatch.setattr(kernel._device, "is_lost", lambda: True)
    with pytest.raises(DeviceLostError, match="illegal"):
        on_device.predict(rows, head.drugs.drugs[:3], device="torch")


def test_the_task_computes_where_the_session_does(
    head: DrugResponseSession, on_device: KernelPredictor, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = rows.slice(0, 4)
    session = CudaSession(Bundle.load(), device="cpu")
    task = Ic50(head, Ic50Request([FoundDrug(drug, drug.name) for drug in head.drugs.drugs[:3]], {}))
    encoded = session.encode(some, tokens=False)
    on_cpu = task.run(session, encoded, 0)["ic50"]
    monkeypatch.setattr(session, "_info", dataclasses.replace(session.info, device="torch"))
    asked: list[str] = []
    compute = on_device._computed_on

    def noted(device: str) -> Callable[[Floats, str], ProfileResponses]:
        asked.append(device)
        return compute(device)

    monkeypatch.setattr(on_device, "_computed_on", noted)
    np.testing.assert_allclose(task.run(session, encoded, 0)["ic50"], on_cpu, atol=2e-4)
    assert asked == ["torch"]
