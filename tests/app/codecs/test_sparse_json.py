from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import orjson
import pytest
from anndata import AnnData

from scpalm.app.codecs.codec import DecodeOptions
from scpalm.app.codecs.sparse_json import SparseJsonCodec
from scpalm.model.errors import InputError, OverLimitError, UnreadableError
from scpalm.model.genes.matrix import CellMatrix
from tests.app.codecs.results import result_for

GOOD: dict[str, object] = {
    "genes": ["CD3D", "NKG7", "MS4A1"],
    "obs_names": ["a", "b"],
    "indptr": [0, 1, 3],
    "indices": [2, 0, 1],
    "data": [4, 1.5, 7],
}


def decode(body: bytes | dict[str, object], options: DecodeOptions | None = None) -> CellMatrix:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    (matrix,) = SparseJsonCodec().decode(raw, options or DecodeOptions())
    return matrix


def test_reads_cells() -> None:
    matrix = decode(GOOD)
    assert matrix.genes == ["CD3D", "NKG7", "MS4A1"]
    assert matrix.cells == ["a", "b"]
    assert matrix.ensembl_ids is None
    assert [str(array.dtype) for array in (matrix.indptr, matrix.indices, matrix.data)] == ["int64", "int32", "float32"]
    np.testing.assert_array_equal(matrix.indptr, [0, 1, 3])
    np.testing.assert_array_equal(matrix.indices, [2, 0, 1])
    np.testing.assert_array_equal(matrix.data, [4, 1.5, 7])


def test_reads_a_file(tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(orjson.dumps(GOOD))
    (matrix,) = SparseJsonCodec().decode(tmp_path / "body", DecodeOptions())
    assert matrix.cells == ["a", "b"]


@pytest.mark.parametrize("obs_names", [None, "absent"])
def test_cells_without_names_are_numbered(obs_names: str | None) -> None:
    body = {key: value for key, value in GOOD.items() if key != "obs_names"}
    assert decode(body if obs_names else body | {"obs_names": None}).cells == ["0", "1"]


def test_unknown_members_are_ignored() -> None:
    assert decode(GOOD | {"drugs": ["Cisplatin"], "more": {"a": [None]}}).num_cells == 2


def test_real_cells_are_read_unchanged(real_cells: AnnData) -> None:
    counts = real_cells.X
    body = {
        "genes": list(real_cells.var_names),
        "obs_names": list(real_cells.obs_names),
        "indptr": counts.indptr.tolist(),
        "indices": counts.indices.tolist(),
        "data": counts.data.tolist(),
    }
    matrix = decode(body)
    np.testing.assert_array_equal(matrix.data, counts.data)
    np.testing.assert_array_equal(matrix.indices, counts.indices)
    assert matrix.cells == list(real_cells.obs_names)


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"genes": None}, "wrong-type", "genes"),
        ({"genes": "CD3D"}, "wrong-type", "genes"),
        ({"genes": ["CD3D", 7, "MS4A1"]}, "wrong-type", "genes"),
        ({"genes": []}, "no-genes", "genes"),
        ({"genes": ["A" * 2000, "B", "C"]}, "bad-name", "genes"),
        ({"genes": ["A\0B", "B", "C"]}, "bad-name", "genes"),
        ({"obs_names": {"a": 1}}, "wrong-type", "obs_names"),
        ({"obs_names": ["a"]}, "length-mismatch", "obs_names"),
        ({"obs_names": ["a", "b", "c"]}, "length-mismatch", "obs_names"),
        ({"obs_names": ["a", 2]}, "wrong-type", "obs_names"),
        ({"indptr": 3}, "wrong-type", "indptr"),
        ({"indptr": []}, "no-cells", "indptr"),
        ({"indptr": [0], "obs_names": []}, "no-cells", "indptr"),
        ({"indptr": [0, 1.0, 3]}, "wrong-type", "indptr"),
        ({"indptr": [0, True, 3]}, "wrong-type", "indptr"),
        ({"indptr": [0, 1, 2]}, "length-mismatch", "indices"),
        ({"indptr": [1, 1, 3]}, "indptr-start", "indptr"),
        ({"indptr": [0, 5, 3]}, "indptr-order", "indptr"),
        ({"indptr": [0, -1, 3]}, "indptr-order", "indptr"),
        ({"indptr": [0, 2**63, 3]}, "index-out-of-range", "indptr"),
        ({"indices": [2, 0]}, "length-mismatch", "data"),
        ({"indices": [2, 0, 3]}, "index-out-of-range", "indices"),
        ({"indices": [2, 0, -1]}, "index-out-of-range", "indices"),
        ({"indices": [2, 0, 2**32]}, "index-out-of-range", "indices"),
        ({"indices": [2, 0, 2**63]}, "index-out-of-range", "indices"),
        ({"indices": [2, 0, "1"]}, "wrong-type", "indices"),
        ({"indices": [[2], [0], [1]]}, "wrong-type", "indices"),
        ({"data": [4, 1]}, "length-mismatch", "data"),
        ({"data": [4, "1", 7]}, "wrong-type", "data"),
        ({"data": [4, [1], 7]}, "wrong-type", "data"),
        ({"data": [4, False, 7]}, "wrong-type", "data"),
        ({"data": [4, None, 7]}, "not-finite", "data"),
        ({"data": [4, 1e300, 7]}, "not-finite", "data"),
        ({"data": [4, -1, 7]}, "negative-value", "data"),
    ],
)
def test_each_fault_names_its_field(change: dict[str, object], code: str, field: str) -> None:
    with pytest.raises(InputError) as caught:
        decode(GOOD | change)
    assert (caught.value.code, caught.value.field) == (code, field)
    assert not isinstance(caught.value, UnreadableError)


@pytest.mark.parametrize("field", ["genes", "indptr", "indices", "data"])
def test_a_missing_field_is_named(field: str) -> None:
    with pytest.raises(InputError) as caught:
        decode({key: value for key, value in GOOD.items() if key != field})
    assert (caught.value.code, caught.value.field) == ("missing-field", field)


@pytest.mark.parametrize(
    ("change", "cell", "gene"),
    [({"data": [4, None, 7]}, "b", "CD3D"), ({"data": [-4, 1, 7]}, "a", "MS4A1"), ({"indices": [2, 0, 9]}, "b", None)],
)
def test_invalid_values_name_the_cell_and_the_gene(change: dict[str, object], cell: str, gene: str | None) -> None:
    with pytest.raises(InputError) as caught:
        decode(GOOD | change)
    assert (caught.value.cell, caught.value.gene) == (cell, gene)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_as_written_by_python_names_the_cell(value: float) -> None:
    with pytest.raises(InputError) as caught:
        decode(json.dumps(GOOD | {"data": [4, 1, value]}).encode())
    assert (caught.value.code, caught.value.cell, caught.value.gene) == ("not-finite", "b", "NKG7")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"genes": ["A"]',
        b"\x89HDF\r\n\x1a\n",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"NaN": ' * 100_000,
        b'{"genes": [NaN, }',
        orjson.dumps(GOOD)[:-10],
    ],
)
def test_invalid_json_is_unreadable(body: bytes) -> None:
    with pytest.raises(UnreadableError) as caught:
        decode(body)
    assert caught.value.code == "not-json"


@pytest.mark.parametrize("body", [b"[]", b"1", b"null", b'"text"', b"NaN"])
def test_a_body_that_is_not_an_object_is_refused(body: bytes) -> None:
    with pytest.raises(InputError) as caught:
        decode(body)
    assert (caught.value.code, caught.value.field) == ("wrong-type", "body")


def test_limits() -> None:
    assert decode(GOOD, DecodeOptions(max_cells=2)).num_cells == 2
    with pytest.raises(OverLimitError) as caught:
        decode(GOOD, DecodeOptions(max_cells=1))
    assert caught.value.code == "too-many-cells"


def test_json_has_no_layers() -> None:
    with pytest.raises(InputError) as caught:
        decode(GOOD, DecodeOptions(layer="counts"))
    assert caught.value.field == "layer"


def test_the_response_has_the_documented_form(tmp_path: Path) -> None:
    result = result_for(["a", "b"])
    content = SparseJsonCodec().encode(result, tmp_path / "unused")
    assert content is not None
    body = json.loads(content)
    assert list(body) == [
        "model",
        "obs_names",
        "shape",
        "values",
        "release",
        "checksum",
        "coverage",
        "input",
        "warnings",
    ]
    assert body["model"] == {"name": "mini", "version": "1.0"}
    assert body["obs_names"] == ["a", "b"]
    assert body["shape"] == [2, 4]
    np.testing.assert_array_equal(np.array(body["values"], dtype=np.float32), result.outputs[0].load())
    assert body["coverage"] == {
        "genes_in": 40,
        "genes_matched": 38,
        "genes_of_model": 37,
        "by_symbol": 30,
        "by_ensembl": 6,
        "by_alias": 2,
        "repaired": {},
        "left_out": {},
        "unmatched": ["NOT1", "NOT2"],
        "counts_matched": None,
    }
    assert body["input"] == {
        "detected": "counts",
        "base": None,
        "total": None,
        "from": "X",
        "why": "every value is a whole number",
    }
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("field", ["genes", "obs_names"])
def test_half_a_surrogate_pair_is_not_a_valid_name(field: str) -> None:
    names = [*GOOD[field][:-1], "\ud800"]  # type: ignore[index]
    # Only bodies with NaN get here; the strict parser refuses the others.
    body = json.dumps({**GOOD, field: names, "more": float("nan")}).encode()
    with pytest.raises(InputError) as caught:
        decode(body)
    assert (caught.value.code, caught.value.field) == ("bad-name", field)
    assert not isinstance(caught.value, UnreadableError)


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
def test_other_encodings_of_json_are_read(encoding: str) -> None:
    body = GOOD | {"obs_names": ["é", "b"]}
    assert decode(json.dumps(body, ensure_ascii=False).encode(encoding)).cells == ["é", "b"]
    with pytest.raises(UnreadableError, match="not"):
        decode(json.dumps(body).encode(encoding)[:-6])


def test_shape_is_checked() -> None:
    assert decode(GOOD | {"shape": [2, 3]}).num_cells == 2
    for shape in ([3, 2], [2, 3, 1], [2], [1, 3]):
        with pytest.raises(InputError, match="tocsr") as caught:
            decode(GOOD | {"shape": shape})
        assert caught.value.field == "shape"
    with pytest.raises(InputError, match="whole numbers"):
        decode(GOOD | {"shape": [2.5, 3]})


def test_dense_rows_are_read() -> None:
    rows = [[0, 0, 4], [1.5, 7, 0]]
    dense, sparse = decode({"genes": GOOD["genes"], "obs_names": ["a", "b"], "X": rows}), decode(GOOD)
    np.testing.assert_array_equal(dense.indptr, sparse.indptr)
    np.testing.assert_array_equal(dense.indices, sparse.indices)
    np.testing.assert_array_equal(dense.data, sparse.data)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"genes": ["A", "B"], "X": [[1, 2], [3]]}, "Row 1"),
        ({"genes": ["A", "B"], "X": [{"A": 1}]}, "one list of counts a cell"),
        ({"genes": ["A", "B"], "X": [1, 2]}, "one list of counts a cell"),
        ({"genes": ["A", "B"], "X": [["1", 2]]}, "numbers"),
        ({"genes": ["A"], "X": [[1]], "data": [1]}, "both 'X' and 'data'"),
        ({"genes": ["A", "B"], "data": [[1, 2]], "columns": []}, '"X"'),
        ([{"CD3D": 4}, {"CD3D": 1}], "one a cell"),
    ],
)
def test_other_layouts_are_refused_with_the_mend(body: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        decode(orjson.dumps(body))


def test_too_many_dense_rows_are_refused() -> None:
    with pytest.raises(OverLimitError, match="2 cells"):
        decode({"genes": ["A"], "X": [[1], [2]]}, DecodeOptions(max_cells=1))


def test_further_members_are_parsed_once_and_not_kept() -> None:
    codec, body = SparseJsonCodec(), orjson.dumps(GOOD | {"input": "log"})
    assert codec.further(body, DecodeOptions()) == {"input": "log"}
    assert [matrix.num_cells for matrix in codec.decode(body, DecodeOptions())] == [2]
    assert codec._last is None
