"""Settings of the service: environment variables ``SCPALM_*``, listed by ``scpalm serve --help``."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from scpalm.app.traffic import TrafficSettings
from scpalm.model.bundle import DEFAULT_BUNDLE
from scpalm.model.errors import UserError, did_you_mean

PREFIX = "SCPALM_"
LogFormat = Literal["text", "json"]
# Variables of the tests and of checks, and those that Kubernetes makes for a Service named scpalm.
_NOT_SETTINGS = re.compile(r"SCPALM_(FUZZ_\w+|BIN|(\w+_)?SERVICE_(HOST|PORT)(_\w+)?|(\w+_)?PORT_\d+_(TCP|UDP)(_\w+)?)")


class SettingsError(UserError, ValueError):
    """Unusable settings. The text names the variables and the reasons, in one line."""


class Settings(TrafficSettings):
    """All settings. Each description ends with the reason for its default."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True)

    bundle: Path = Field(
        DEFAULT_BUNDLE,
        description="Folder of the model to serve. Default: the model in the package, so that nothing else is needed.",
    )
    models_dir: Path | None = Field(
        None,
        description="Folder whose subfolders are further models, chosen with ?model=NAME. Default: empty, no further "
        "models.",
    )
    reload_seconds: float = Field(
        5.0,
        ge=0,
        description="Seconds between checks of BUNDLE and MODELS_DIR for changed models, which are then swapped in; "
        "0 checks on SIGHUP only. Default: 5 s; a copy in progress is never loaded half-written.",
    )
    port: int = Field(
        8000,
        ge=0,
        le=65535,
        description="Port to listen on; 0 takes any free port. Default: the usual port of Python web services.",
    )
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port that serves /metrics and nothing else, without a key, for a network that only Prometheus "
        "reaches; 0 takes any free port. Default: empty, /metrics is on PORT, and needs a key where API_KEYS_FILE is "
        "set.",
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="auto, cpu, cuda or cuda:n. Default: a GPU when the runtime finds one, otherwise the CPU.",
    )
    runtime: Literal["auto", "onnx", "torch", "torchscript"] = Field(
        "auto",
        description="What runs the model: onnx, torch or torchscript (both need torch). Default: auto, which is torch "
        "on a GPU if it is installed, otherwise ONNX Runtime.",
    )
    redis_url: str = Field(
        "",
        description="Where the queue is, such as redis://host:6379/0; `scpalm worker` processes then compute. "
        "Default: empty, queue and device are in this process.",
    )
    spool_url: str = Field(
        "",
        description="With REDIS_URL: folder or s3://bucket/path that all processes see, for payloads over 1 MB. "
        "Default: empty, a folder in SPOOL_DIR, which works while all processes share it.",
    )
    lease_seconds: float = Field(
        10.0,
        gt=0,
        le=600,
        description="With REDIS_URL: a worker silent for longer loses its work to another worker. Use one value for "
        "all processes. Default: 10 s, longer than any pause of a healthy process.",
    )
    api_keys_file: Path | None = Field(
        None,
        description="JSON file with hashes of API keys (`scpalm key NAME` makes entries); read again when it "
        "changes. Default: empty, anyone who reaches the port may use the service.",
    )
    max_body_bytes: int = Field(
        1 << 30,
        ge=1,
        description="Largest request body, also after decompression. Default: 1 GiB, about 200,000 cells of h5ad.",
    )
    max_cells: int = Field(
        100_000,
        ge=1,
        description="Most cells in one request. Default: 100,000, a few GB while parsing; `scpalm embed` has no limit.",
    )
    max_queued_cells: int = Field(
        200_000,
        ge=1,
        description="Most cells waiting in total; above it requests get 429. Default: two requests of the largest "
        "size.",
    )
    max_queued_bytes: int = Field(
        2 << 30,
        ge=1,
        description="Most memory of waiting cells; above it requests get 429. Default: 2 GiB, 200,000 cells of 1,300 "
        "genes.",
    )
    batch_cells: int | None = Field(
        None,
        ge=1,
        le=16384,
        description="Most cells in one run of the model; a batch is smaller when fewer cells wait. Default: on a GPU "
        "the smallest number that measures 95 % of its best rate at the start; on a CPU 256, a fifth faster than 64; "
        "512 is no faster and makes other requests wait longer.",
    )
    bulk_cells: int = Field(
        2048,
        ge=1,
        description="Requests with more cells share a quarter of each batch. Default: 2,048, which takes seconds on "
        "a CPU.",
    )
    threads: int | None = Field(
        None, ge=1, description="Threads of the model on a CPU. Default: empty, every core that this process may use."
    )
    parser_processes: int = Field(
        2,
        ge=1,
        le=64,
        description="Processes that read uploads. Default: 2, so that one large file does not block the others.",
    )
    parse_seconds: float = Field(
        120.0,
        gt=0,
        description="Longest time to read one upload; above it the request gets 400. Default: 120 s, ten times what "
        "the largest upload takes.",
    )
    spool_dir: Path = Field(
        Path(tempfile.gettempdir()),
        description="Where uploads and h5ad responses are kept while a request runs. Default: the system's temporary "
        "folder.",
    )
    results_dir: Path | None = Field(
        None,
        description="Where jobs and their results are kept. Default: empty, a folder in SPOOL_DIR; name a disk that "
        "survives a restart if jobs must.",
    )
    job_hours: float = Field(
        24.0,
        gt=0,
        description="Hours that the result of a job is kept. Default: a day, long enough to fetch what ran overnight.",
    )
    stall_seconds: float = Field(
        60.0,
        gt=0,
        description="/health/live fails when the device makes no progress for longer. Default: 60 s, far above one "
        "slow batch.",
    )
    drain_seconds: float = Field(
        1.0,
        ge=0,
        description="Pause between /health/ready failing and the port closing. Default: 1 s; set it to your load "
        "balancer's probe period.",
    )
    stop_seconds: int = Field(
        600,
        ge=1,
        description="Longest wait for running requests during shutdown. Default: 10 min, a full queue on a slow CPU.",
    )
    log_format: LogFormat = Field(
        "text", description="text or json, one line per request. Default: text, for people; json is for log collectors."
    )

    otlp_endpoint: str = Field(
        "", description="Collector of traces over OTLP/HTTP, such as http://collector:4318. Default: empty, no traces."
    )

    @field_validator("otlp_endpoint")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError(f"{value[:100]!r} is not an HTTP address; use one such as http://collector:4318")
        return value

    @field_validator("spool_dir", "models_dir")
    @classmethod
    def _folder_exists(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_dir():
            raise ValueError(f"{value} is not a directory; create it first")
        return value

    @model_validator(mode="after")
    def _limits_agree(self) -> Settings:
        if self.max_cells > self.max_queued_cells:
            raise ValueError(
                f"{PREFIX}MAX_CELLS ({self.max_cells}) is over {PREFIX}MAX_QUEUED_CELLS ({self.max_queued_cells}); "
                "raise the second"
            )
        return self


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment, with overrides. Raises SettingsError that lists every fault."""
    if unknown := list(_unknown_variables()):
        raise SettingsError("; ".join(unknown))
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingsError("; ".join(_faults(error))) from None


def _unknown_variables() -> Iterator[str]:
    """A line for each variable of the environment that looks like a setting but is not one.

    Without the check, a misspelt SCPALM_API_KEYS_FILE would start a service that is open to everyone.
    """
    known = [f"{PREFIX}{name.upper()}" for name in Settings.model_fields]
    for name in sorted(os.environ):
        if name.upper().startswith(PREFIX) and name.upper() not in known and not _NOT_SETTINGS.fullmatch(name):
            yield f"There is no setting {name}. {did_you_mean(name, known)}`scpalm serve --help` lists all of them."


def _faults(error: ValidationError) -> Iterator[str]:
    for fault in error.errors():
        name = f"{PREFIX}{str(fault['loc'][0]).upper()}: " if fault["loc"] else ""
        yield name + fault["msg"].removeprefix("Value error, ")


# Defaults that depend on the machine.
_DEFAULT_TEXTS = {"bundle": "in the package", "spool_dir": "system's temporary folder"}


def setting_lines() -> Iterator[tuple[str, str]]:
    """For each variable: its name and default, and its description."""
    for name, field in Settings.model_fields.items():
        default = _DEFAULT_TEXTS.get(name) or ("empty" if field.default in (None, "") else field.default)
        yield f"{PREFIX}{name.upper()} [{default}]", field.description or ""
