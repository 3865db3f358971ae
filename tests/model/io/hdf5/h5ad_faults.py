"""Ways to damage an h5ad file, each with the expected error code."""

from __future__ import annotations

from collections.abc import Callable

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t

from tests.model.small_cells import NUM_CELLS, NUM_GENES

STRINGS = h5py.string_dtype()


def swap(file: h5py.File, path: str, values: object, dtype: object = None) -> None:
    attributes = dict(file[path].attrs)
    del file[path]
    file.create_dataset(path, data=values, dtype=dtype)
    file[path].attrs.update(attributes)


def names_that_are_lists(file: h5py.File) -> None:
    del file["var/_index"]
    kind = h5py.vlen_dtype(np.int32)
    names = file.create_dataset("var/_index", (NUM_GENES,), kind)
    names[0] = np.arange(3)


def names_that_are_numbers(file: h5py.File) -> None:
    swap(file, "var/_index", np.linspace(0, 1, NUM_GENES))


def values_that_are_references(file: h5py.File) -> None:
    size = len(file["X/data"])
    del file["X/data"]
    file.create_dataset("X/data", (size,), h5py.ref_dtype)


def values_that_are_strings(file: h5py.File) -> None:
    swap(file, "X/data", ["1"] * len(file["X/data"]), STRINGS)


def values_that_are_complex(file: h5py.File) -> None:
    swap(file, "X/data", file["X/data"][:].astype(complex))


def indices_that_are_fractions(file: h5py.File) -> None:
    swap(file, "X/indices", file["X/indices"][:].astype(float))


def index_too_large(file: h5py.File) -> None:
    file["X/indices"][30] = NUM_GENES


def index_negative(file: h5py.File) -> None:
    file["X/indices"][30] = -1


def index_that_wraps_to_a_valid_one(file: h5py.File) -> None:
    indices = file["X/indices"][:].astype(np.int64)
    indices[30] += 2**32
    swap(file, "X/indices", indices)


def index_unsigned(file: h5py.File) -> None:
    indices = file["X/indices"][:].astype(np.uint64)
    indices[30] = 2**64 - 1
    swap(file, "X/indices", indices)


def pointers_that_fall(file: h5py.File) -> None:
    file["X/indptr"][4] = 10**6


def pointers_that_end_early(file: h5py.File) -> None:
    file["X/indptr"][-1] -= 1


def pointers_that_start_late(file: h5py.File) -> None:
    file["X/indptr"][0] = 1


def pointers_that_overflow(file: h5py.File) -> None:
    pointers = file["X/indptr"][:].astype(np.uint64)
    pointers[3] = 2**63 + 5
    swap(file, "X/indptr", pointers)


def too_few_pointers(file: h5py.File) -> None:
    swap(file, "X/indptr", file["X/indptr"][:-1])


def too_few_indices(file: h5py.File) -> None:
    swap(file, "X/indices", file["X/indices"][:-1])


def indices_of_two_axes(file: h5py.File) -> None:
    swap(file, "X/indices", file["X/indices"][:].reshape(1, -1))


def no_indices(file: h5py.File) -> None:
    del file["X/indices"]


def no_x(file: h5py.File) -> None:
    del file["X"]


def empty_x(file: h5py.File) -> None:
    del file["X"]
    file["X"] = h5py.Empty("f4")


def no_obs(file: h5py.File) -> None:
    del file["obs"]


def no_index(file: h5py.File) -> None:
    del file["var/_index"]


def no_cells(file: h5py.File) -> None:
    file["X"].attrs["shape"] = (0, NUM_GENES)
    swap(file, "X/indptr", [0])
    swap(file, "obs/_index", [], STRINGS)


def no_genes(file: h5py.File) -> None:
    file["X"].attrs["shape"] = (NUM_CELLS, 0)


def shape_with_more_genes(file: h5py.File) -> None:
    file["X"].attrs["shape"] = (NUM_CELLS, NUM_GENES + 1)


def more_names_than_cells(file: h5py.File) -> None:
    swap(file, "obs/_index", [str(i) for i in range(NUM_CELLS + 1)], STRINGS)


def negative_shape(file: h5py.File) -> None:
    file["X"].attrs["shape"] = (-5, NUM_GENES)


def shape_of_words(file: h5py.File) -> None:
    file["X"].attrs["shape"] = ["many", "more"]


def no_shape(file: h5py.File) -> None:
    del file["X"].attrs["shape"]


def encoding_of_the_future(file: h5py.File) -> None:
    file["X"].attrs["encoding-type"] = "hypersparse"


def x_of_three_axes(file: h5py.File) -> None:
    del file["X"]
    file["X"] = np.ones((NUM_CELLS, NUM_GENES, 2))


def x_of_one_axis(file: h5py.File) -> None:
    del file["X"]
    file["X"] = np.ones(NUM_CELLS)


def name_too_long(file: h5py.File) -> None:
    swap(file, "var/_index", ["A" * 5000, *["B"] * (NUM_GENES - 1)], STRINGS)


def name_not_utf8(file: h5py.File) -> None:
    swap(file, "var/_index", np.array([b"\xff\xfe\x80", *[b"B"] * (NUM_GENES - 1)], dtype="S5"))


def codes_beyond_their_categories(file: h5py.File) -> None:
    group = file["obs"].create_group("names")
    group.attrs["encoding-type"] = "categorical"
    group["codes"] = np.full(NUM_CELLS, 9, dtype=np.int8)
    group["categories"] = np.array(["a"], dtype=STRINGS)
    file["obs"].attrs["_index"] = "names"


def categories_of_themselves(file: h5py.File) -> None:
    group = file["obs"].create_group("names")
    group.attrs["encoding-type"] = "categorical"
    group["codes"] = np.zeros(NUM_CELLS, dtype=np.int8)
    group["categories"] = group
    file["obs"].attrs["_index"] = "names"


def index_name_that_leads_away(file: h5py.File) -> None:
    file["obs"].attrs["_index"] = "../../var/../_index"


def unknown_compression(file: h5py.File) -> None:
    size = len(file["X/data"])
    del file["X/data"]
    plan = h5p.create(h5p.DATASET_CREATE)
    plan.set_chunk((size,))
    plan.set_filter(32099, h5py.h5z.FLAG_OPTIONAL)
    dataset = h5d.create(file["X"].id, b"data", h5t.IEEE_F32LE, h5s.create_simple((size,)), plan)
    dataset.write_direct_chunk((0,), b"nonsense", 0)


FAULTS: list[tuple[Callable[[h5py.File], None], str]] = [
    (names_that_are_lists, "not-strings"),
    (names_that_are_numbers, "not-strings"),
    (values_that_are_references, "wrong-type"),
    (values_that_are_strings, "wrong-type"),
    (values_that_are_complex, "wrong-type"),
    (indices_that_are_fractions, "wrong-type"),
    (index_too_large, "index-out-of-range"),
    (index_negative, "index-out-of-range"),
    (index_that_wraps_to_a_valid_one, "index-out-of-range"),
    (index_unsigned, "index-out-of-range"),
    (pointers_that_fall, "indptr-order"),
    (pointers_that_end_early, "indptr-order"),
    (pointers_that_start_late, "indptr-order"),
    (pointers_that_overflow, "indptr-order"),
    (too_few_pointers, "length-mismatch"),
    (too_few_indices, "length-mismatch"),
    (indices_of_two_axes, "wrong-shape"),
    (no_indices, "missing-part"),
    (no_x, "no-x"),
    (empty_x, "no-x"),
    (no_obs, "missing-part"),
    (no_index, "missing-part"),
    (no_cells, "no-cells"),
    (no_genes, "no-genes"),
    (shape_with_more_genes, "shape-mismatch"),
    (more_names_than_cells, "shape-mismatch"),
    (negative_shape, "wrong-shape"),
    (shape_of_words, "wrong-shape"),
    (no_shape, "wrong-shape"),
    (encoding_of_the_future, "unknown-encoding"),
    (x_of_three_axes, "wrong-shape"),
    (x_of_one_axis, "wrong-shape"),
    (name_too_long, "name-too-long"),
    (name_not_utf8, "broken-h5ad"),
    (codes_beyond_their_categories, "index-out-of-range"),
    (categories_of_themselves, "unknown-encoding"),
    (index_name_that_leads_away, "missing-part"),
    (unknown_compression, "unknown-compression"),
]
