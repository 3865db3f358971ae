"""Which outputs an inference request asks for, and its answer: JSON, followed by the tensors wanted as bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import orjson

from scpalm.app.codecs.result import OutputValues, Result
from scpalm.app.storage.values import row_blocks
from scpalm.model.errors import ParameterError
from scpalm.model.spec import RequestSpec
from scpalm.model.tasks.registry import tasks
from scpalm.model.tasks.task import option_tensors

DEFAULT = "embedding"
# Numbers as text take ten times the room and are made on the way: above this they are sent as bytes.
MOST_JSON_VALUES = 20_000_000


@dataclass(frozen=True)
class OutputName:
    """A name under /v2: the output of an answer that it is, and the task that computes it."""

    output: str
    task: str


@cache
def outputs() -> dict[str, OutputName]:
    """Every output by its name under /v2."""
    return {
        tensor: OutputName(output, task.name) for task in tasks().values() for output, tensor in task.tensors.items()
    }


@dataclass(frozen=True)
class Wanted:
    """Outputs in order, each with whether it is wanted as bytes; the request's id."""

    outputs: tuple[tuple[str, bool], ...]
    id: str | None

    @classmethod
    def of(cls, members: Mapping[str, object]) -> Wanted:
        """From the members of a request. Raises ParameterError naming the field."""
        parameters = members.get("parameters") or {}
        if not isinstance(parameters, dict):
            raise ParameterError("'parameters' is not an object.", field="parameters")
        every = parameters.get("binary_data_output") is True
        given = members.get("outputs") or [{"name": DEFAULT}]
        if not isinstance(given, list):
            raise ParameterError("'outputs' is not a list.", field="outputs")
        found: list[tuple[str, bool]] = []
        for one in given:
            name = one.get("name") if isinstance(one, dict) else None
            if not isinstance(name, str) or name not in outputs() or name in dict(found):
                raise ParameterError(
                    f"There is no output {str(name)[:50]!r}, or it is asked for twice. Choose from "
                    f"{', '.join(outputs())}.",
                    field="outputs",
                )
            own = one.get("parameters")
            binary = own.get("binary_data") if isinstance(own, dict) else None
            found.append((name, every if binary is None else binary is True))
        name = members.get("id")
        return cls(tuple(found), name[:200] if isinstance(name, str) else None)

    def spec(self, received: RequestSpec, members: Mapping[str, object]) -> RequestSpec:
        """The spec, with the tasks and options that the members name. Raises ParameterError."""
        names = tuple(dict.fromkeys(outputs()[output].task for output, _ in self.outputs))
        parameters = members.get("parameters")
        given = parameters if isinstance(parameters, dict) else {}
        options: dict[str, Any] = {}
        for task in tasks().values():
            found = {option: given[option] for option in task.options.model_fields if option in given}
            for option, tensor in option_tensors(task).items():
                found |= {option: members[tensor]} if tensor in members else {}
            if found and task.name not in names:
                option = next(iter(found))
                raise ParameterError(f"'{option}' is for {task.name}, which is not asked for.", field=option)
            options |= found
        return RequestSpec(names, options, None, received.input, received.model, received.version)


def compose(result: Result, wanted: Wanted) -> tuple[bytes, int | None]:
    """The body, and the length of its JSON part where bytes follow. Raises ParameterError for too much JSON."""
    values = {output.spec.name: output for output in result.outputs}
    tensors: list[dict[str, object]] = []
    blobs: list[bytes] = []
    for name, binary in wanted.outputs:
        output = values[outputs()[name].output]
        tensor: dict[str, object] = {
            "name": name,
            "datatype": "INT32" if output.values.dtype == np.int32 else "FP32",
            "shape": list(output.values.shape),
        }
        parameters: dict[str, object] = {}
        if output.spec.columns is not None:
            parameters["columns"] = orjson.dumps(list(output.spec.columns)).decode()
        if binary:
            blob = b"".join(np.ascontiguousarray(block).tobytes() for block in row_blocks(output.values))
            parameters["binary_data_size"] = len(blob)
            blobs.append(blob)
        else:
            tensor["data"] = _flat(output, name)
        tensors.append(tensor | ({"parameters": parameters} if parameters else {}))
    model = result.note["model"]
    assert isinstance(model, dict)
    head = {"model_name": model["name"], "model_version": model["version"], "outputs": tensors}
    if wanted.id is not None:
        head["id"] = wanted.id
    text = orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join([text, *blobs]), len(text) if blobs else None


def _flat(output: OutputValues, name: str) -> Sequence[Any] | np.ndarray[Any, Any]:
    if output.values.shape[0] * output.values.shape[1] > MOST_JSON_VALUES:
        raise ParameterError(
            f"'{name}' has over {MOST_JSON_VALUES:,} values. Ask for it with binary_data, or send fewer cells.",
            field="outputs",
        )
    return np.ascontiguousarray(output.load()).ravel()
