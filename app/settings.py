"""Settings of the service: environment variables ``SCPALM_*``, listed by ``scpalm serve --help``."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from scpalm.model.bundle import DEFAULT_BUNDLE
from scpalm.model.errors import UserError

PREFIX = "SCPALM_"
LogFormat = Literal["text", "json"]


class SettingsError(UserError, ValueError):
    """Settings that cannot be used; the text names the variables and says why, in one line."""


class Settings(BaseSettings):
    """Everything that can be set. Each description ends with why the default is what it is."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True)

    bundle: Path = Field(
        DEFAULT_BUNDLE,
        description="Directory of the model to serve. Default: the one in the package, so that nothing else is needed.",
    )
    models_dir: Path | None = Field(
        None,
        description="Folder whose subfolders are further models, asked for by ?model=NAME. Default: empty, no others.",
    )
    reload_seconds: float = Field(
        5.0,
        ge=0,
        description="How often BUNDLE and MODELS_DIR are looked at for a model that has changed, which then takes "
        "over; 0: on SIGHUP alone. Default: 5 s, and a copy under way is waited for.",
    )
    host: str = Field(
        "127.0.0.1", description="Address to listen on. Default: this machine only; 0.0.0.0 opens it to the network."
    )
    port: int = Field(
        8000, ge=0, le=65535, description="Port to listen on, 0 for any free one. Default: what web services use."
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="auto, cpu, cuda or cuda:n. Default: a GPU where the runtime finds one, else the CPU.",
    )
    runtime: Literal["auto", "onnx", "torchscript"] = Field(
        "auto",
        description="What runs the model: onnx, or torchscript (needs torch). Default: auto, which is ONNX Runtime.",
    )
    redis_url: str = Field(
        "",
        description="Where the queue is, such as redis://host:6379/0; `scpalm worker` processes then do the work. "
        "Default: empty, the queue and the device are in this process.",
    )
    spool_url: str = Field(
        "",
        description="With REDIS_URL: folder or s3://bucket/path that every process sees, for payloads over 1 MB. "
        "Default: empty, a folder in SPOOL_DIR; right while all processes share that.",
    )
    lease_seconds: float = Field(
        10.0,
        gt=0,
        le=600,
        description="With REDIS_URL: a worker silent for so long has lost its work to another. The same for all "
        "processes. Default: 10 s, above any pause of a healthy process.",
    )
    api_keys_file: Path | None = Field(
        None,
        description="JSON file with hashes of API keys (`scpalm key NAME` makes entries); read again when it changes. "
        "Default: empty, open for whoever reaches the port.",
    )
    max_body_bytes: int = Field(
        1 << 30,
        ge=1,
        description="Largest request body, after decompression too. Default: 1 GiB, some 200,000 cells of h5ad.",
    )
    max_cells: int = Field(
        100_000,
        ge=1,
        description="Most cells in one request. Default: 100,000, a few GB while parsing; `scpalm embed` has no limit.",
    )
    max_queued_cells: int = Field(
        200_000, ge=1, description="Most cells waiting in all; beyond it 429. Default: two of the largest requests."
    )
    max_queued_bytes: int = Field(
        2 << 30,
        ge=1,
        description="Most memory of waiting cells; beyond it 429. Default: 2 GiB, 200,000 cells of 1,300 genes.",
    )
    max_uploads: int = Field(
        256,
        ge=1,
        description="Most requests being received or parsed at once; beyond it 429. Default: spares the disk.",
    )
    batch_cells: int = Field(
        256,
        ge=1,
        le=4096,
        description="Most cells in one run of the model, fewer when fewer wait. Default: 256, a fifth faster than 64; "
        "512 is no faster, and others would wait longer.",
    )
    bulk_cells: int = Field(
        2048,
        ge=1,
        description="Larger requests share a quarter of each batch. Default: what takes seconds on a CPU.",
    )
    threads: int | None = Field(
        None, ge=1, description="Threads of the model on a CPU. Default: empty, every core that this process may use."
    )
    parser_processes: int = Field(
        2,
        ge=1,
        le=64,
        description="Processes that read uploads. Default: 2, so that one large file does not hold up the others.",
    )
    parse_seconds: float = Field(
        120.0,
        gt=0,
        description="Longest time to read one upload; beyond it 400. Default: ten times what the largest upload takes.",
    )
    body_idle_seconds: float = Field(
        30.0,
        gt=0,
        description="Longest pause within a body; beyond it 408. Default: 30 s, stalled clients then free their slot.",
    )
    spool_dir: Path = Field(
        Path(tempfile.gettempdir()),
        description="Where uploads and h5ad answers are kept meanwhile. Default: the system's folder.",
    )
    results_dir: Path | None = Field(
        None,
        description="Where jobs and their results are kept. Default: empty, a folder in SPOOL_DIR; name a disk that "
        "survives a restart where jobs must.",
    )
    job_hours: float = Field(
        24.0, gt=0, description="How long the result of a job is kept. Default: a day, to fetch what ran overnight."
    )
    stall_seconds: float = Field(
        60.0,
        gt=0,
        description="/health/live fails when the device stands still so long. Default: far above one slow batch.",
    )
    drain_seconds: float = Field(
        1.0,
        ge=0,
        description="Pause from /health/ready failing to closing the port. Default: 1 s; or a balancer's probe period.",
    )
    stop_seconds: int = Field(
        600,
        ge=1,
        description="Longest wait for running requests when stopping. Default: 10 min, a full queue on a slow CPU.",
    )
    log_format: LogFormat = Field(
        "text", description="text or json, one line a request. Default: for people; json is for log collectors."
    )

    otlp_endpoint: str = Field(
        "", description="Collector of traces over OTLP/HTTP, such as http://collector:4318. Default: no traces."
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
    """Settings of the environment, with overrides. Raises SettingsError with every fault in one line."""
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingsError("; ".join(_faults(error))) from None


def _faults(error: ValidationError) -> Iterator[str]:
    for fault in error.errors():
        name = f"{PREFIX}{str(fault['loc'][0]).upper()}: " if fault["loc"] else ""
        yield name + fault["msg"].removeprefix("Value error, ")


def setting_lines() -> Iterator[tuple[str, str]]:
    """For each variable, its name with its default, and what it does and why the default is what it is."""
    for name, field in Settings.model_fields.items():
        default = "in the package" if name == "bundle" else "empty" if field.default in (None, "") else field.default
        yield f"{PREFIX}{name.upper()} [{default}]", field.description or ""
