from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.numpy import load_file

from scpalm.model.bundle import Bundle
from scpalm.model.sessions.onnx import DECODER_FILE, ENCODER_FILE
from scpalm.model.sessions.session import open_session
from scpalm.model.sessions.torchscript import load_network
from scpalm.training.corpus.reader import Corpus
from scpalm.training.export import bundle
from scpalm.training.export.bundle import BundleOptions, export_run
from scpalm.training.export.precision import LIMITS, Limits, Precision, as_rows, beyond, parity_cells, stored
from scpalm.training.runs.run import Run, RunError
from scpalm.training.stages.stage1 import load_stage1
from tests.training.bundles import Exported
from tests.training.tiny import NUM_GENES, SIZES


def test_the_bundle_loads_and_describes_itself(tiny_export: Exported) -> None:
    bundle = Bundle.load(tiny_export.bundle)
    manifest = bundle.manifest
    assert (bundle.name, bundle.version, manifest["preset"]) == ("tiny", "7", "mini")
    assert manifest["network"] == SIZES.as_dict()
    assert manifest["training_data"] == [{"file": "first.h5ad", "cells": 200}, {"file": "second.h5ad", "cells": 100}]
    assert set(manifest["files"]) == {"embed.onnx", ENCODER_FILE, DECODER_FILE, "genes.parquet", "weights.safetensors"}
    assert set(manifest["files"]) | {"manifest.json"} == {path.name for path in tiny_export.bundle.iterdir()}
    assert manifest["created"].endswith("+00:00")
    assert manifest["versions"]["torch"]
    assert bundle.vocabulary.ensembl_ids == Corpus(tiny_export.corpus).vocabulary.ensembl_ids


def test_bundle_files_have_the_default_permissions(tiny_export: Exported, tmp_path: Path) -> None:
    (tmp_path / "new").touch()
    usual = (tmp_path / "new").stat().st_mode
    assert {path.stat().st_mode for path in tiny_export.bundle.iterdir()} == {usual}


def test_parity_is_in_the_manifest_and_the_report(tiny_export: Exported) -> None:
    parity = Bundle.load(tiny_export.bundle).manifest["parity"]
    assert parity["cells"] == 300
    assert parity["max_abs_difference"] < 1e-4
    assert parity["code_agreement"] >= 0.999
    assert parity["min_cosine"] > 0.999
    assert tiny_export.report[0].startswith("ONNX Runtime and PyTorch agree: ")
    assert f"MB -> {tiny_export.bundle}" in tiny_export.report[-1]


def test_the_bundle_computes_the_same_as_the_run(tiny_export: Exported) -> None:
    corpus = Corpus(tiny_export.corpus)
    chosen = parity_cells(corpus, 1000)
    rows = as_rows(corpus, chosen)
    assert len(rows) == 300
    with torch.inference_mode():
        codes = load_stage1(Run(tiny_export.run), SIZES).encode(corpus.batch(chosen)).numpy()
    bundled = open_session(Bundle.load(tiny_export.bundle), device="cpu", threads=1).encode(rows).codes
    # Weights are stored in half precision, which changes a few near ties.
    assert (codes == bundled).mean() > 0.98


def test_the_graph_keeps_its_weights_in_the_safetensors_file(tiny_export: Exported) -> None:
    graph = onnx.load(str(tiny_export.bundle / "embed.onnx"), load_external_data=False).graph
    assert {value.name for value in graph.input} == {
        "gene_index",
        "value",
        "center",
        "solve",
        "log_measured",
    }
    assert {value.name for value in graph.output} == {"embedding", "log_length"}
    stored = load_file(tiny_export.bundle / "weights.safetensors")
    outside = [tensor for tensor in graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    assert {tensor.name.removesuffix(".half") for tensor in outside} <= set(stored)
    assert sum(int(np.prod(tensor.dims)) for tensor in outside) > NUM_GENES * SIZES.components
    # No input is as wide as the vocabulary, so there is no [B, G].
    assert all(dim.dim_value != NUM_GENES for v in graph.input for dim in v.type.tensor_type.shape.dim)


def test_only_matrices_are_stored_as_float16(tiny_export: Exported) -> None:
    stored = load_file(tiny_export.bundle / "weights.safetensors")
    assert stored["encoder.layers.0.attention.qkv.weight"].dtype == np.float16
    assert stored["basis.components"].dtype == np.int16
    for name in ("code_table", "point_scale", "point_shift", "encoder.norm.weight"):
        assert stored[name].dtype == np.float32, name
    assert {name for name in stored if name.startswith("head.")} == {"head.weight", "head.bias"}
    network = load_network(Bundle.load(tiny_export.bundle))
    assert set(network.state_dict()) <= set(stored)


def test_the_cost_of_float16_is_in_the_manifest_and_the_report(tiny_export: Exported) -> None:
    cost = Bundle.load(tiny_export.bundle).manifest["precision"]
    assert cost["weights"] == "float16"
    assert LIMITS["float16"].code_agreement <= cost["code_agreement"] <= 1
    assert cost["mean_cosine"] > 0.995
    assert any(line.startswith("Stored as float16: ") for line in tiny_export.report)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_other_precisions_load_and_agree_in_both_runtimes(
    tiny_export: Exported, tmp_path: Path, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Random weights have more near ties than trained ones. Here it only matters that the bundle works.
    monkeypatch.setitem(LIMITS, "int8", Limits(0.5, 0.5, 1.0))
    export_run(tiny_export.run, tmp_path / "bundle", BundleOptions(name="x", version="1", precision=precision))
    bundle = Bundle.load(tmp_path / "bundle")
    cost, kept = bundle.manifest["precision"], load_file(tmp_path / "bundle" / "weights.safetensors")
    linear = kept["encoder.layers.0.attention.qkv.weight"]
    if precision == "float32":
        assert linear.dtype == np.float32
        assert cost["code_agreement"] > 0.9999 and cost["max_abs_difference"] < 1e-4
    else:
        assert linear.dtype == np.int8
        assert kept["head.weight"].dtype == np.float16
        assert cost["code_agreement"] > 0.8 and cost["mean_cosine"] > 0.8
    assert bundle.manifest["parity"]["code_agreement"] >= 0.999


def test_a_precision_that_costs_too_much_is_refused(
    tiny_export: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copied(*arguments: Any) -> None:
        shutil.copy(tiny_export.bundle / arguments[-1].name, arguments[-1])

    for name in ("export_embedding", "export_encoder"):
        monkeypatch.setattr(bundle, name, copied)
    monkeypatch.setattr(bundle, "export_decoder", copied)
    monkeypatch.setitem(LIMITS, "float16", Limits(1.1, 0.0, 1.0))
    with pytest.raises(RunError, match=r"float16 costs too much.*codes agree, the limit is 1.1.*--precision float32"):
        export_run(tiny_export.run, tmp_path / "bundle", BundleOptions(name="x", version="1"))
    assert not (tmp_path / "bundle").exists()


def test_each_limit_is_enforced() -> None:
    fine = {"code_agreement": 0.99, "mean_cosine": 0.999, "ari_before": 0.7, "ari_after": 0.69}
    assert beyond(fine, "int8") == ""
    for change, text in (
        ({"code_agreement": 0.9}, "codes agree"),
        ({"mean_cosine": 0.9}, "mean cosine"),
        ({"ari_after": 0.6}, "ARI falls by 0.100"),
    ):
        assert text in beyond(fine | change, "int8")


def test_eight_bits_are_within_half_a_step_of_each_row() -> None:
    weight = torch.randn(6, 9) * torch.tensor([[1e-3], [1.0], [50.0], [1.0], [0.0], [1.0]])
    kept = stored({"a.weight": weight, "a.bias": torch.ones(6), "code_table": torch.ones(2, 2)}, "int8")
    scale = kept["a.weight.int8_scale"].astype(np.float32)
    assert kept["a.weight"].dtype == np.int8 and kept["a.bias"].dtype == kept["code_table"].dtype == np.float32
    difference = np.abs(kept["a.weight"].astype(np.float32) * scale[:, None] - weight.numpy())
    assert (difference <= 0.5001 * scale[:, None]).all()


def test_an_existing_folder_is_refused_and_left_alone(tiny_export: Exported, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(RunError, match="exists already"):
        export_run(tiny_export.run, tmp_path / "bundle", BundleOptions(name="x", version="1"))
    assert list((tmp_path / "bundle").iterdir()) == []


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_an_unfinished_run_is_refused(tiny_export: Exported, tmp_path: Path, stage: str) -> None:
    run = Path(shutil.copytree(tiny_export.run, tmp_path / "run"))
    (run / f"{stage}.pt").unlink()
    with pytest.raises(RunError, match=rf"{stage}\.pt cannot be read.*Train the stage first"):
        export_run(run, tmp_path / "bundle", BundleOptions(name="x", version="1"))
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_a_run_that_stopped_half_way_is_refused(tiny_export: Exported, tmp_path: Path, stage: str) -> None:
    run = Run(Path(shutil.copytree(tiny_export.run, tmp_path / "run")))
    run.save_checkpoint(stage, run.load_checkpoint(stage) | {"step": 5})
    with pytest.raises(RunError, match=rf"{stage} is at step 5 of \d+\. Finish it with --resume"):
        export_run(run.path, tmp_path / "bundle", BundleOptions(name="x", version="1"))
    assert not (tmp_path / "bundle").exists()


def test_a_run_of_other_sizes_is_refused(tiny_export: Exported, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny_export.run, tmp_path / "run"))
    config = json.loads((run / "config.json").read_text())
    config["network"]["num_tokens"] = 9
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match="does not fit the network"):
        export_run(run, tmp_path / "bundle", BundleOptions(name="x", version="1"))


def test_a_network_that_cannot_be_folded_is_refused_with_the_reason(tiny_export: Exported, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny_export.run, tmp_path / "run"))
    config = json.loads((run / "config.json").read_text())
    config["network"]["pooling"] = "mean"
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match=r"pooling=mean cannot be exported\. Train with pooling=solve"):
        export_run(run, tmp_path / "bundle", BundleOptions(name="x", version="1"))
    assert not (tmp_path / "bundle").exists()


def test_without_parity_there_is_no_bundle(
    tiny_export: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The graph is reused: the test is about runtimes that disagree.
    def copied(*arguments: Any) -> None:
        shutil.copy(tiny_export.bundle / arguments[-1].name, arguments[-1])

    for name in ("export_embedding", "export_encoder"):
        monkeypatch.setattr(bundle, name, copied)
    monkeypatch.setattr(bundle, "MAX_DIFFERENCE", -1.0)
    with pytest.raises(RunError, match="ONNX Runtime and PyTorch disagree, no bundle was written"):
        export_run(tiny_export.run, tmp_path / "bundle", BundleOptions(name="x", version="1"))
    assert not (tmp_path / "bundle").exists()
