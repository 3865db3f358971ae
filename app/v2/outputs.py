"""The outputs that an inference request asks for, and its response: JSON followed by binary tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import orjson

from scpalm.app.codecs.result import OutputValues, Result
from scpalm.app.storage.values import row_blocks
from scpalm.model.errors import ParameterError, did_you_mean
from scpalm.model.spec import RequestSpec
from scpalm.model.tasks.common_options import COMMON
from scpalm.model.tasks.registry import tasks
from scpalm.model.tasks.task import OutputSpec, Values, option_tensors

DEFAULT = "embedding"
# Parameters of the protocol and its extensions. All but the first only order requests, which changes no values.
_PROTOCOL_PARAMETERS = ("binary_data_output", "sequence_id", "sequence_start", "sequence_end", "priority", "timeout")
# JSON numbers take ten times the memory of binary ones, so larger outputs must be requested as binary data.
MAX_JSON_VALUES = 20_000_000


@dataclass(frozen=True)
class OutputName:
    """What a tensor name under /v2 refers to: an output of a result, and the task that computes it."""

    output: str
    task: str


@cache
def outputs() -> dict[str, OutputName]:
    """All outputs by their tensor names under /v2, the default first."""
    found = {
        tensor: OutputName(output, task.name) for task in tasks().values() for output, tensor in task.tensors.items()
    }
    return {DEFAULT: found[DEFAULT], **found}


@dataclass(frozen=True)
class RequestedOutputs:
    """The tensors that a request asks for.

    Attributes:
        outputs: tensor names in order, each with whether it is sent as binary data.
        id: the id of the request, to be repeated in the response.
    """

    outputs: tuple[tuple[str, bool], ...]
    id: str | None

    @classmethod
    def of(cls, members: Mapping[str, object]) -> RequestedOutputs:
        """Read the members of a request. Raises ParameterError naming the field."""
        parameters = members.get("parameters") or {}
        if not isinstance(parameters, dict):
            raise ParameterError("'parameters' is not an object.", field="parameters")
        binary_by_default = parameters.get("binary_data_output") is True
        entries = members.get("outputs") or [{"name": DEFAULT}]
        if not isinstance(entries, list):
            raise ParameterError("'outputs' is not a list.", field="outputs")
        requested: list[tuple[str, bool]] = []
        for entry in entries:
            name = entry.get("name") if isinstance(entry, dict) else None
            if not isinstance(name, str) or name not in outputs() or name in dict(requested):
                raise ParameterError(
                    f"There is no output {str(name)[:50]!r}, or it is listed twice. Choose from "
                    f"{', '.join(outputs())}.",
                    field="outputs",
                )
            options = entry.get("parameters")
            binary = options.get("binary_data") if isinstance(options, dict) else None
            requested.append((name, binary_by_default if binary is None else binary is True))
        request_id = members.get("id")
        return cls(tuple(requested), request_id[:200] if isinstance(request_id, str) else None)

    def spec(self, received: RequestSpec, members: Mapping[str, object]) -> RequestSpec:
        """Add the tasks and options named by the members to the spec. Raises ParameterError."""
        names = tuple(dict.fromkeys(outputs()[output].task for output, _ in self.outputs))
        parameters = members.get("parameters")
        given = parameters if isinstance(parameters, dict) else {}
        _check_parameters(given)
        options: dict[str, Any] = {}
        for task in tasks().values():
            found = {option: given[option] for option in task.options.model_fields if option in given}
            for option, tensor in option_tensors(task).items():
                found |= {option: members[tensor]} if tensor in members else {}
            if found and task.name not in names:
                option = next(iter(found))
                raise ParameterError(
                    f"'{option}' is an option of {task.name}, but none of its outputs is requested.", field=option
                )
            options |= found
        return replace(received, tasks=names, options=options, layer=None, format="")


def _check_parameters(given: Mapping[str, object]) -> None:
    """Raise ParameterError for a parameter that no task reads."""
    known = {*_PROTOCOL_PARAMETERS, *(name for task in tasks().values() for name in task.options.model_fields)}
    for name in given:
        if name in COMMON:
            raise ParameterError(f"'{name}' is a query parameter of this route, or part of its path.", field=name)
        if name not in known:
            choices = f"{did_you_mean(name, known)}Choose from {', '.join(sorted(known))}."
            raise ParameterError(f"There is no parameter '{name[:50]}'. {choices}", field=name[:50])


def compose(result: Result, requested: RequestedOutputs) -> tuple[bytes, int | None]:
    """The response body, and the length of its JSON part if binary tensors follow.

    Raises ParameterError if an output is too large for JSON.
    """
    values = {output.spec.name: output for output in result.outputs}
    tensors: list[dict[str, object]] = []
    blobs: list[bytes] = []
    for name, binary in requested.outputs:
        output = values[outputs()[name].output]
        tensor: dict[str, object] = {
            "name": name,
            "datatype": datatype_of(output.spec),
            "shape": list(output.values.shape),
        }
        parameters: dict[str, object] = {}
        if output.spec.columns is not None:
            parameters["columns"] = orjson.dumps(list(output.spec.columns)).decode()
        if binary:
            blob = b"".join(_binary(output.spec, block) for block in row_blocks(output.values))
            parameters["binary_data_size"] = len(blob)
            blobs.append(blob)
        else:
            tensor["data"] = _flat(output, name)
        tensors.append(tensor | ({"parameters": parameters} if parameters else {}))
    model = result.note["model"]
    assert isinstance(model, dict)
    head = {"model_name": model["name"], "model_version": model["version"], "outputs": tensors}
    if requested.id is not None:
        head["id"] = requested.id
    text = orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join([text, *blobs]), len(text) if blobs else None


def _flat(output: OutputValues, name: str) -> Sequence[Any] | np.ndarray[Any, Any]:
    if output.values.shape[0] * output.values.shape[1] > MAX_JSON_VALUES:
        raise ParameterError(
            f"'{name}' has more than {MAX_JSON_VALUES:,} values. Request it with binary_data, or send fewer cells.",
            field="outputs",
        )
    values = output.load()
    return np.ascontiguousarray(values).ravel() if output.spec.categories is None else _texts(output.spec, values)


def datatype_of(spec: OutputSpec) -> str:
    """The datatype of an output: BYTES for text."""
    if spec.categories is not None:
        return "BYTES"
    return "INT32" if spec.dtype == np.int32 else "FP32"


def _texts(spec: OutputSpec, values: Values) -> list[str]:
    return [str(text) for text in spec.texts(values).ravel()]


def _binary(spec: OutputSpec, block: Values) -> bytes:
    """Numbers as they are; each text after its length (4 bytes, little endian)."""
    if spec.categories is None:
        return np.ascontiguousarray(block).tobytes()
    encoded = [text.encode() for text in _texts(spec, block)]
    return b"".join(len(text).to_bytes(4, "little") + text for text in encoded)
