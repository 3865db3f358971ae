"""Serialise work and results between processes as safetensors: named arrays with a JSON header.

Every message has a version, and readers refuse versions they do not know. Nothing is unpickled.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from scpalm.app.errors import ServiceError, service_error
from scpalm.app.queue.transport import LANES, Lane, WorkItem, WorkResult
from scpalm.model.bundle import Bundle
from scpalm.model.errors import BundleError, InputError, MissingPartError
from scpalm.model.genes.rows import GeneSet, Rows
from scpalm.model.sessions.session import SessionInfo
from scpalm.model.tasks.registry import tasks
from scpalm.model.tasks.task import BoundTask, Recipe, RecipeError, Values

# 1: one recipe per output, fixed array names. 2: one recipe per task, array names prefixed with the task.
VERSION = 2
_HEADER = "scpalm"
# Repeated gene sets share one object, because sessions cache values per gene set object.
_MAX_GENE_SETS = 256

Arrays = dict[str, NDArray[Any]]


class WireError(ValueError):
    """The message cannot be read. The text says why."""


def _pack(header: dict[str, Any], arrays: Arrays) -> bytes:
    text = json.dumps({"version": VERSION, **header}, separators=(",", ":"))
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, {_HEADER: text})


_DTYPES = {
    "F32": np.float32, "F64": np.float64, "I32": np.int32, "I64": np.int64, "U8": np.uint8, "U16": np.uint16,
}  # fmt: skip


def _unpack(content: bytes) -> tuple[dict[str, Any], Arrays]:
    """The header and the arrays of a message. Raises WireError."""
    try:
        size = int.from_bytes(content[:8], "little")
        header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][_HEADER])
        version = header["version"]
        if version != VERSION:
            raise WireError(f"The message has version {version}; this release reads {VERSION}. Update both sides.")
        arrays = {
            name: np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
            for name, entry in deserialize(content)
        }
    except WireError:
        raise
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise WireError(f"The message cannot be read ({type(error).__name__}: {error}).") from error
    return header, arrays


def pack_work(work: WorkItem) -> bytes:
    """Serialise the rows and the tasks. Cell names stay in the sending process."""
    rows = work.rows
    num_genes = len(rows.gene_sets[0].measured)
    recipes, arrays = _pack_tasks(work)
    arrays |= {
        "lengths": rows.lengths().astype(np.int32),
        # Halves the size for vocabularies of at most 65,536 genes.
        "gene_index": rows.gene_index.astype(np.uint16) if num_genes <= 1 << 16 else rows.gene_index,
        "value": rows.value,
        "gene_set_of_row": rows.gene_set_of_row,
        "measured": np.packbits(np.stack([gene_set.measured for gene_set in rows.gene_sets]), axis=1),
    }
    header = {
        "id": work.id,
        "request": work.request,
        "client": work.client,
        "lane": work.lane,
        "first": work.first,
        "num_genes": num_genes,
        "tasks": recipes,
    }
    return _pack(header, arrays)


def _pack_tasks(work: WorkItem) -> tuple[list[dict[str, Any]], Arrays]:
    recipes: list[dict[str, Any]] = []
    arrays: Arrays = {}
    for task in work.tasks:
        recipe = task.recipe(work.first, len(work.rows))
        recipes.append({"task": task.name, "settings": dict(recipe.settings)})
        arrays |= {f"{task.name}.{name}": array for name, array in recipe.arrays.items()}
    return recipes, arrays


_UNREADABLE = (
    LookupError,
    TypeError,
    ValueError,
    ArithmeticError,
    AttributeError,
    RecipeError,
    BundleError,
    MissingPartError,
    InputError,
    ServiceError,
)


class WorkReader:
    """Reads WorkItems for one bundle."""

    def __init__(self, bundle: Bundle, info: SessionInfo) -> None:
        self._bundle, self._info = bundle, info
        self._gene_sets: OrderedDict[bytes, GeneSet] = OrderedDict()

    def read(self, content: bytes) -> WorkItem:
        """Read a WorkItem. Raises WireError, including for tasks that this release or model does not support."""
        header, arrays = _unpack(content)
        try:
            num_genes = int(header["num_genes"])
            indptr = np.concatenate([[0], np.cumsum(arrays["lengths"], dtype=np.int64)])
            gene_index = arrays["gene_index"].astype(np.int32)
            owners = arrays["gene_set_of_row"]
            if arrays["measured"].ndim != 2 or arrays["measured"].shape[1] != -(-num_genes // 8):
                raise WireError("The number of genes and the gene sets of the message disagree.")
            sets = tuple(self._gene_set(packed, num_genes) for packed in arrays["measured"])
            entries, value = int(indptr[-1]), arrays["value"]
            sizes_agree = entries == len(gene_index) == len(value) and len(owners) == len(indptr) - 1
            if not sizes_agree or np.any(np.diff(indptr) < 0):
                raise WireError("The arrays of the message have inconsistent lengths.")
            if not (_all_below(gene_index, num_genes) and _all_below(owners, len(sets))):
                raise WireError("The message refers to a gene or gene set that does not exist.")
            first = int(header["first"])
            if header["lane"] not in LANES or first < 0:
                raise WireError("The header of the message has an unknown lane or a negative row.")
            bound = self._read_tasks(header["tasks"], arrays, first)
            rows = Rows(indptr, gene_index, value, sets, owners)
            # Releases that know no clients leave them out.
            client, lane = str(header.get("client", "")), cast(Lane, header["lane"])
            return WorkItem(bound, rows, lane, first, str(header["request"]), client, str(header["id"]))
        except WireError:
            raise
        except _UNREADABLE as error:
            raise WireError(f"The message cannot be read ({type(error).__name__}: {error}).") from error

    def _read_tasks(self, recipes: list[Any], arrays: Mapping[str, NDArray[Any]], first: int) -> tuple[BoundTask, ...]:
        known = tasks()
        found: list[BoundTask] = []
        for recipe in recipes:
            name = str(recipe["task"])
            if name not in known:
                raise RecipeError(f"There is no task '{name[:50]}'.")
            prefix = f"{name}."
            task_arrays = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
            found.append(known[name].rebuild(self._bundle, self._info, Recipe(first, recipe["settings"], task_arrays)))
        return tuple(found)

    def _gene_set(self, packed: NDArray[np.uint8], num_genes: int) -> GeneSet:
        key = packed.tobytes()
        found = self._gene_sets.get(key)
        if found is None or len(found.measured) != num_genes:
            found = self._gene_sets[key] = GeneSet(np.unpackbits(packed, count=num_genes).astype(bool))
            while len(self._gene_sets) > _MAX_GENE_SETS:
                self._gene_sets.popitem(last=False)
        else:
            self._gene_sets.move_to_end(key)
        return found


def _all_below(numbers: NDArray[Any], limit: int) -> bool:
    return not numbers.size or (int(numbers.min()) >= 0 and int(numbers.max()) < limit)


def pack_outcome(outcome: WorkResult) -> bytes:
    """Serialise a result: values or an error, and the timings."""
    error = outcome.error
    header: dict[str, Any] = {
        "queue": outcome.queue_seconds,
        "inference": outcome.inference_seconds,
        "error": None if error is None else [error.code, error.detail, error.field, error.retry_after],
    }
    values = outcome.values if error is None else None
    return _pack(header, cast(Arrays, dict(values)) if values is not None else {})


def error_outcome(error: ServiceError) -> bytes:
    """Serialise a failure."""
    return pack_outcome(WorkResult(None, error))


def read_outcome(content: bytes) -> WorkResult:
    """Read a result. Raises WireError."""
    header, arrays = _unpack(content)
    try:
        error = None
        if header["error"] is not None:
            code, detail, field, retry_after = header["error"]
            error = service_error(str(code), str(detail), field, None if retry_after is None else int(retry_after))
        values = cast("dict[str, Values]", arrays) if error is None else None
        return WorkResult(values, error, float(header["queue"]), float(header["inference"]))
    except _UNREADABLE as fault:
        raise WireError(f"The message cannot be read ({type(fault).__name__}: {fault}).") from fault
