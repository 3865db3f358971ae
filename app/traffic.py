"""Settings on clients: the names they may use, and how much of the service one of them can take."""

from __future__ import annotations

import ipaddress
import re

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
_HOST_NAME = re.compile(r"\*|(\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|\[[0-9a-f:.]+\]")


class TrafficSettings(BaseSettings):
    """The part of the settings that limits clients. ``host`` is the address to listen on."""

    host: str = Field(
        "127.0.0.1",
        description="Address to listen on. Default: this machine only; 0.0.0.0 opens the service to the network.",
    )
    allow_open: bool = Field(
        False,
        description="1 silences the warning that this service listens beyond this machine without API_KEYS_FILE. "
        "Default: 0, since such a service computes for every client that reaches it.",
    )
    allowed_hosts: str = Field(
        "",
        description="Names that clients may call this service by (Host header), separated by commas: "
        "scpalm.example.org, or *.example.org for all names below; * is any name. Local names and health checks are "
        "always served. Default: empty, local names if HOST is a loopback address, so that a web page cannot reach "
        "the service through another name (DNS rebinding); otherwise any name.",
    )
    trusted_proxies: str = Field(
        "127.0.0.1,::1",
        description="Addresses or networks of proxies, separated by commas: 10.0.0.5, 172.16.0.0/12. X-Forwarded-For "
        "is believed only if it comes from one of them. It says who the client is, in logs and for "
        "MAX_UPLOADS_PER_CLIENT. none: no proxy; *: any address. Default: this machine, for a proxy that runs on it.",
    )
    max_uploads: int = Field(
        256,
        ge=1,
        description="Most requests being received or parsed at once; above it requests get 429. Default: 256, which "
        "protects the disk.",
    )
    max_uploads_per_client: int | None = Field(
        None,
        ge=1,
        description="Most requests of one API key, or of one address where there are no keys, being received or parsed "
        "at once; above it requests get 429. Default: empty, 7 of 8 MAX_UPLOADS, so that one client cannot lock out "
        "the others; set it to MAX_UPLOADS if all clients come through one proxy without keys.",
    )
    max_memory_bytes: int | None = Field(
        None,
        ge=256 << 20,
        description="Memory of the service and its parser processes together: half for parsers, a quarter for uploads, "
        "cells and answers, the rest for the model. Above it requests get 429. Default: empty, the limit of the "
        "container, or else the memory of the machine.",
    )
    header_seconds: float = Field(
        30.0,
        gt=0,
        description="Longest time to wait for the headers of a request; after it the client is disconnected. Default: "
        "30 s, so that clients that send one byte after another do not hold connections.",
    )
    body_idle_seconds: float = Field(
        30.0,
        gt=0,
        description="Longest pause within a body; after it the request gets 408. Default: 30 s, so that stalled "
        "clients free their slot.",
    )

    body_min_bytes_per_second: float = Field(
        1024.0,
        ge=0,
        description="Least rate of a body on average, checked after BODY_IDLE_SECONDS; below it the request gets 408. "
        "0 accepts any. Default: 1 KiB/s, far below any network, so that only those who hold slots are refused.",
    )
    body_seconds: float = Field(
        3600.0,
        gt=0,
        description="Longest time to wait for one body in all; after it the request gets 408. Default: an hour, in "
        "which the largest body arrives at 300 kB/s.",
    )

    write_seconds: float = Field(
        60.0,
        gt=0,
        description="Longest time in which a client takes no bytes of its answer (under 1 KiB/s on average); after it "
        "the client is disconnected and the files of the answer are removed. Default: 60 s, longer than a network "
        "recovers from a fault.",
    )

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, value: str) -> str:
        for name in _items(value):
            if not _HOST_NAME.fullmatch(name):
                raise ValueError(f"{name[:100]!r} is not a host name; write it without http:// and port, or as *.name")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: str) -> str:
        for item in [] if value in ("*", "none") else _items(value):
            try:
                ipaddress.ip_network(item)
            except ValueError as error:
                raise ValueError(
                    f"{item[:100]!r} is not an address or network such as 10.0.0.5 or 172.16.0.0/12 ({error})"
                ) from error
        return value

    @property
    def proxies(self) -> list[str]:
        """Addresses and networks whose X-Forwarded-For is believed; ["*"] is any."""
        return [] if self.trusted_proxies == "none" else _items(self.trusted_proxies)

    @property
    def reaches_network(self) -> bool:
        """Whether other machines can reach the service."""
        return not _is_loopback(self.host)

    @property
    def upload_share(self) -> int:
        """Upload slots that one client can hold."""
        return self.max_uploads_per_client or max(1, self.max_uploads - max(1, self.max_uploads // 8))

    @property
    def served_hosts(self) -> tuple[str, ...] | None:
        """Names that requests may have in ``Host``, in lower case; None is any name."""
        names = _items(self.allowed_hosts)
        if "*" in names or (not names and not _is_loopback(self.host)):
            return None
        own = f"[{self.host}]" if ":" in self.host else self.host.lower()
        return tuple(dict.fromkeys([*names, *_LOCAL_NAMES, *([own] if _is_loopback(self.host) else [])]))


def _items(text: str) -> list[str]:
    """The parts of a text between commas, in lower case."""
    return [part.strip().lower() for part in text.split(",") if part.strip()]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
