from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from scpalm.app.codecs.arrow import ArrowCodec
from scpalm.app.codecs.codec import DecodeOptions
from scpalm.app.codecs.npy import NpyWriter
from scpalm.app.codecs.result import OutputValues, Result
from scpalm.app.codecs.sparse_json import SparseJsonCodec
from scpalm.app.storage.values import SpooledArray
from scpalm.model.errors import InputError, OverLimitError, UnreadableError
from scpalm.model.tasks.task import OutputSpec
from tests.app.codecs.results import result_for
from tests.model.small_cells import NUM_CELLS, dense, joined, small_counts


def stream(
    *, batch: int = 5, metadata: dict[str, str] | None = None, compression: str | None = None, **columns: Any
) -> bytes:
    """The small cells as an Arrow stream. Keyword arguments replace columns; None removes one."""
    cells = small_counts()
    rows = [slice(a, b) for a, b in zip(cells.X.indptr, cells.X.indptr[1:], strict=False)]
    table: dict[str, Any] = {
        "indices": pa.array([cells.X.indices[row].tolist() for row in rows], pa.list_(pa.int32())),
        "data": pa.array([cells.X.data[row].tolist() for row in rows], pa.list_(pa.float32())),
        "obs_names": pa.array(list(cells.obs_names)),
        **columns,
    }
    whole = pa.table({name: column for name, column in table.items() if column is not None})
    whole = whole.replace_schema_metadata(
        {"genes": json.dumps(list(cells.var_names))} if metadata is None else metadata
    )
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, whole.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        for part in whole.to_batches(max_chunksize=batch):
            writer.write_batch(part)
    return sink.getvalue()


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
@pytest.mark.parametrize("batch", [1, 5, 100])
def test_reads_cells(batch: int, compression: str | None, tmp_path: Path) -> None:
    body = stream(batch=batch, compression=compression)
    (tmp_path / "body").write_bytes(body)
    for source in (body, tmp_path / "body"):
        (matrix,) = ArrowCodec().decode(source, DecodeOptions())
        np.testing.assert_array_equal(joined([matrix]), dense(small_counts()))
        assert list(matrix.cells) == list(small_counts().obs_names)
        assert list(matrix.genes) == list(small_counts().var_names)


def test_cell_names_are_optional_and_other_types_are_accepted() -> None:
    cells = small_counts()
    rows = [slice(a, b) for a, b in zip(cells.X.indptr, cells.X.indptr[1:], strict=False)]
    body = stream(
        obs_names=None,
        indices=pa.array([cells.X.indices[row].tolist() for row in rows], pa.large_list(pa.uint16())),
        data=pa.array([cells.X.data[row].tolist() for row in rows], pa.list_(pa.int64())),
    )
    (matrix,) = ArrowCodec().decode(body, DecodeOptions())
    np.testing.assert_array_equal(joined([matrix]), dense(cells))
    assert list(matrix.cells) == [str(row) for row in range(NUM_CELLS)]


def lists(value: float | None, kind: Any, length: int = 1) -> pa.Array:
    return pa.array([[value] * length] * NUM_CELLS, pa.list_(kind))


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        ({"data": None}, "missing-field"),
        ({"data": lists(1.0, pa.float32(), 2), "indices": lists(0, pa.int32())}, "length-mismatch"),
        ({"data": lists(-1.0, pa.float32()), "indices": lists(0, pa.int32())}, "negative-value"),
        ({"data": lists(float("nan"), pa.float64()), "indices": lists(0, pa.int32())}, "not-finite"),
        ({"data": lists(None, pa.float32()), "indices": lists(0, pa.int32())}, "not-finite"),
        ({"data": lists(1.0, pa.float32()), "indices": lists(2**40, pa.int64())}, "index-out-of-range"),
        ({"data": lists(1.0, pa.float32()), "indices": lists(-1, pa.int64())}, "index-out-of-range"),
        ({"data": pa.array(["x"] * NUM_CELLS)}, "wrong-type"),
        ({"obs_names": pa.array(list(range(NUM_CELLS)))}, "wrong-type"),
        ({"obs_names": pa.array(["x" * 2000] * NUM_CELLS)}, "bad-name"),
    ],
)
def test_errors_name_the_invalid_cells(columns: dict[str, Any], code: str) -> None:
    with pytest.raises(InputError) as caught:
        list(ArrowCodec().decode(stream(**columns), DecodeOptions()))
    assert caught.value.code == code


@pytest.mark.parametrize("metadata", [{}, {"genes": "no json"}, {"genes": "[1, 2]"}, {"genes": '{"a": 1}'}])
def test_genes_are_required(metadata: dict[str, str]) -> None:
    with pytest.raises(InputError):
        list(ArrowCodec().decode(stream(metadata=metadata), DecodeOptions()))


def test_limits_and_layer() -> None:
    for options, code in (
        (DecodeOptions(max_cells=3), "too-many-cells"),
        (DecodeOptions(max_bytes=9), "declared-size"),
    ):
        with pytest.raises(OverLimitError) as caught:
            list(ArrowCodec().decode(stream(), options))
        assert caught.value.code == code
    with pytest.raises(InputError, match="layers"):
        list(ArrowCodec().decode(stream(), DecodeOptions(layer="counts")))


def test_damaged_streams_are_unreadable() -> None:
    body = stream()
    for broken in (b"", b"garbage", body[: len(body) // 2], body[:9], b"\0" * 100, b"ARROW1\0\0" + body):
        with pytest.raises(UnreadableError) as caught:
            list(ArrowCodec().decode(broken, DecodeOptions()))
        assert caught.value.code == "not-arrow"


def two_outputs(folder: Path, num_cells: int = 7) -> Result:
    result = result_for([f"c{n}" for n in range(num_cells)])
    table = SpooledArray((num_cells, 3), np.float32, folder)
    table.put(0, np.arange(3 * num_cells, dtype=np.float32).reshape(-1, 3))
    spec = OutputSpec("impute", "X_scpalm_imputed", 3, columns=["A", "B", "C"])
    return Result(result.cells, (*result.outputs, OutputValues(spec, table.finish())), result.note)


@pytest.mark.parametrize("in_file", [False, True])
def test_results_of_several_tasks_are_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_file: bool) -> None:
    if in_file:
        for module in ("scpalm.app.storage.values", "scpalm.app.codecs.arrow", "scpalm.app.codecs.sparse_json"):
            monkeypatch.setattr(f"{module}.IN_MEMORY_BYTES", 10)
        monkeypatch.setattr("scpalm.app.storage.values.BLOCK_BYTES", 24)
    result = two_outputs(tmp_path)
    imputed = result.outputs[1].load()

    def content_of(codec: ArrowCodec | SparseJsonCodec) -> bytes:
        content = codec.encode(result, tmp_path / "out")
        assert (content is None) == in_file
        return (tmp_path / "out").read_bytes() if content is None else content

    table = pa.ipc.open_stream(content_of(ArrowCodec())).read_all()
    assert table.column("obs_names").to_pylist() == result.cells
    np.testing.assert_array_equal(np.array(table.column("embed").to_pylist(), np.float32), result.outputs[0].load())
    np.testing.assert_array_equal(np.array(table.column("impute").to_pylist(), np.float32), imputed)
    note = json.loads(table.schema.metadata[b"scpalm"])
    assert note["columns"] == {"impute": ["A", "B", "C"]} and note["model"]["name"] == "mini"

    members = json.loads(content_of(SparseJsonCodec()))
    np.testing.assert_allclose(members["values"], result.outputs[0].load(), rtol=1e-6)
    assert members["impute"] == {"columns": ["A", "B", "C"], "shape": [7, 3], "values": imputed.tolist()}
    assert members["coverage"]["genes_matched"] == 38


def test_npy_has_only_the_main_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = result_for(["a", "b"])
    content = NpyWriter().encode(result, tmp_path / "out.npy")
    assert content is not None
    np.testing.assert_array_equal(np.load(io.BytesIO(content)), result.outputs[0].load())
    monkeypatch.setattr("scpalm.app.storage.values.IN_MEMORY_BYTES", 10)
    stored = two_outputs(tmp_path)
    large = Result(stored.cells, stored.outputs[1:], stored.note)
    assert NpyWriter().encode(large, tmp_path / "out.npy") is None
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), stored.outputs[1].load())


def as_file(body: bytes) -> bytes:
    """The same table in the file format, as Feather has it."""
    with pa.ipc.open_stream(body) as reader:
        table = reader.read_all()
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def test_the_file_format_is_read() -> None:
    (matrix,) = ArrowCodec().decode(as_file(stream()), DecodeOptions())
    np.testing.assert_array_equal(joined([matrix]), dense(small_counts()))
    with pytest.raises(OverLimitError):
        list(ArrowCodec().decode(as_file(stream()), DecodeOptions(max_cells=NUM_CELLS - 1)))
    with pytest.raises(UnreadableError):
        list(ArrowCodec().decode(as_file(stream())[:-40], DecodeOptions()))


@pytest.mark.parametrize(
    "kind", [pa.string_view(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())], ids=lambda kind: str(kind)
)
def test_other_kinds_of_strings_are_read(kind: pa.DataType) -> None:
    names = pa.array(list(small_counts().obs_names)).cast(kind)
    (matrix,) = ArrowCodec().decode(stream(obs_names=names), DecodeOptions())
    assert list(matrix.cells) == list(small_counts().obs_names)


@pytest.mark.parametrize("kind", [pa.large_list, pa.list_view, pa.large_list_view, "dictionary"])
def test_other_kinds_of_lists_are_read(kind: Any) -> None:
    cells = small_counts()
    rows = [slice(a, b) for a, b in zip(cells.X.indptr, cells.X.indptr[1:], strict=False)]
    plain = pa.array([cells.X.indices[row].tolist() for row in rows], pa.list_(pa.int64()))
    data = pa.array([cells.X.data[row].tolist() for row in rows], pa.list_(pa.float64()))
    if kind == "dictionary":
        indices = pa.ListArray.from_arrays(plain.offsets, plain.values.dictionary_encode())
    else:
        indices, data = pa.array(plain.to_pylist(), kind(pa.int64())), pa.array(data.to_pylist(), kind(pa.float64()))
    (matrix,) = ArrowCodec().decode(stream(indices=indices, data=data), DecodeOptions())
    np.testing.assert_array_equal(joined([matrix]), dense(cells))
