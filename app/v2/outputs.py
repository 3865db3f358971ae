"""Which outputs an inference request asks for, and its answer: JSON, and behind it the tensors wanted as bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import orjson

from scpalm.app.codecs.registry import Answer, Part
from scpalm.app.errors import InvalidParameterError
from scpalm.app.storage.values import row_blocks
from scpalm.app.tasks.plans import Asked
from scpalm.app.tasks.task import Scale

# Output -> the part of an answer that it is, and the task that makes it.
OUTPUTS = {
    "embedding": ("embed", "embed"),
    "pathways": ("pathways", "pathways"),
    "imputed": ("impute", "impute"),
    "ic50": ("ic50", "ic50"),
    "ic50_lower": ("ic50_lower", "ic50"),
    "ic50_upper": ("ic50_upper", "ic50"),
    "cell_distance": ("cell_distance", "ic50"),
}
# Numbers as text take ten times the room, and are made on the way: more of them are sent as bytes.
MOST_JSON_VALUES = 20_000_000
EXTRAS = ("outputs", "parameters", "id")


@dataclass(frozen=True)
class Wanted:
    """Outputs in order, each with whether it is wanted as bytes; the request's id."""

    outputs: tuple[tuple[str, bool], ...]
    id: str | None

    @classmethod
    def of(cls, extras: Mapping[str, object]) -> Wanted:
        """From the members of a request. Raises InvalidParameterError naming the field."""
        parameters = extras.get("parameters") or {}
        if not isinstance(parameters, dict):
            raise InvalidParameterError("'parameters' is no object.", field="parameters")
        every = parameters.get("binary_data_output") is True
        given = extras.get("outputs") or [{"name": "embedding"}]
        if not isinstance(given, list):
            raise InvalidParameterError("'outputs' is no list.", field="outputs")
        outputs: list[tuple[str, bool]] = []
        for one in given:
            name = one.get("name") if isinstance(one, dict) else None
            if name not in OUTPUTS or name in dict(outputs):
                raise InvalidParameterError(
                    f"There is no output {str(name)[:50]!r}, or it is asked for twice. Choose of {', '.join(OUTPUTS)}.",
                    field="outputs",
                )
            own = one.get("parameters")
            binary = own.get("binary_data") if isinstance(own, dict) else None
            outputs.append((str(name), every if binary is None else binary is True))
        name = extras.get("id")
        return cls(tuple(outputs), name[:200] if isinstance(name, str) else None)

    def asked(self, extras: Mapping[str, object]) -> Asked:
        """The tasks. Raises InvalidParameterError."""
        parameters = extras.get("parameters")
        given = parameters.get("scale", "log") if isinstance(parameters, dict) else "log"
        if given not in ("log", "counts"):
            raise InvalidParameterError("'scale' is log or counts.", field="parameters.scale")
        scale: Scale = "counts" if given == "counts" else "log"
        names = tuple(dict.fromkeys(OUTPUTS[output][1] for output, _ in self.outputs))
        return Asked(names, _texts(extras, "impute_genes"), scale, drugs=_texts(extras, "drugs"))


def _texts(extras: Mapping[str, object], name: str) -> tuple[str, ...]:
    found = extras.get(name, ())
    return tuple(map(str, found)) if isinstance(found, Sequence) else ()


def compose(answer: Answer, wanted: Wanted) -> tuple[bytes, int | None]:
    """The body, and the length of its JSON part where bytes follow. Raises InvalidParameterError for too much JSON."""
    parts = {part.name: part for part in answer.parts}
    tensors: list[dict[str, object]] = []
    blobs: list[bytes] = []
    for output, binary in wanted.outputs:
        part = parts[OUTPUTS[output][0]]
        tensor: dict[str, object] = {
            "name": output,
            "datatype": "INT32" if part.values.dtype == np.int32 else "FP32",
            "shape": list(part.values.shape),
        }
        parameters: dict[str, object] = {}
        if part.columns is not None:
            parameters["columns"] = orjson.dumps(list(part.columns)).decode()
        if binary:
            blob = b"".join(np.ascontiguousarray(block).tobytes() for block in row_blocks(part.values))
            parameters["binary_data_size"] = len(blob)
            blobs.append(blob)
        else:
            tensor["data"] = _flat(part, output)
        tensors.append(tensor | ({"parameters": parameters} if parameters else {}))
    head = {"model_name": answer.model_name, "model_version": answer.model_version, "outputs": tensors}
    if wanted.id is not None:
        head["id"] = wanted.id
    text = orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join([text, *blobs]), len(text) if blobs else None


def _flat(part: Part, output: str) -> object:
    if part.values.shape[0] * part.values.shape[1] > MOST_JSON_VALUES:
        raise InvalidParameterError(
            f"'{output}' has over {MOST_JSON_VALUES:,} values. Ask for it with binary_data, or send fewer cells.",
            field="outputs",
        )
    return np.ascontiguousarray(part.whole).ravel()
