"""Bodies and answers of the Open Inference Protocol, for the API description."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

Parameters = dict[str, bool | int | float | str]
Texts = list[str]
Numbers = list[float]


class ServerMetadata(BaseModel):
    """The server."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(BaseModel):
    """The service makes progress."""

    live: Literal[True]


class ServerReady(BaseModel):
    """The service can accept requests."""

    ready: Literal[True]


class ModelReady(BaseModel):
    """The model can accept requests."""

    name: str
    ready: Literal[True]


class TensorMetadata(BaseModel):
    """A tensor that the model reads or writes."""

    name: str
    datatype: str = Field(examples=["FP32"])
    shape: list[int] = Field(description="-1 where the size is not fixed.")


class ModelMetadata(BaseModel):
    """A model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class InputTensor(BaseModel):
    """A tensor of the request: ``data``, or ``parameters.binary_data_size`` bytes after the JSON."""

    name: str
    datatype: str = Field(examples=["FP32"])
    shape: list[int]
    data: Numbers | Texts | None = None
    parameters: Parameters | None = None


class RequestedOutput(BaseModel):
    """A tensor that the response must have."""

    name: str
    parameters: Parameters | None = Field(None, description="`binary_data`: true for bytes after the JSON.")


class InferenceRequest(BaseModel):
    """Cells as tensors."""

    id: str | None = None
    inputs: list[InputTensor]
    outputs: list[RequestedOutput] | None = None
    parameters: Parameters | None = Field(None, description="Further options of the tasks.")


class OutputTensor(BaseModel):
    """A tensor of the response, row by row."""

    name: str
    datatype: str
    shape: list[int]
    data: list[float | None] | Texts | None = Field(None, description="Absent for binary data.")
    parameters: Parameters | None = None


class InferenceResponse(BaseModel):
    """The outputs that were asked for."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]
