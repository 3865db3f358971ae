"""A seccomp filter, by which a Linux process gives up system calls permanently: they fail with EPERM."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

from scpalm.app.parsing.isolation.landlock import forbid_new_privileges

_SET_SECCOMP, _FILTER_MODE = 22, 2
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
# Offsets in the kernel's `struct seccomp_data`.
_NUMBER, _ARCHITECTURE = 0, 4
# Classic BPF: load a word, compare, return.
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
# On x86_64, numbers from here on belong to the x32 interface, which would pass by the filter.
_X32 = 0x40000000

# Audit number of each architecture, and its system calls: those that open sockets, run programs, reach into other
# processes, or do either in ways that a filter does not see (io_uring).
_ARCHITECTURES = {
    "x86_64": 0xC000003E,
    "aarch64": 0xC00000B7,
}
_CALLS = {
    # name: x86_64, aarch64
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "execve": (59, 221),
    "execveat": (322, 281),
    "io_uring_setup": (425, 425),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "mount": (165, 40),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def refuse_calls() -> None:
    """Refuse these system calls to this thread and its later children.

    Raises:
        OSError: the kernel has no seccomp, or the architecture is not known here.
    """
    machine = platform.machine()
    if not sys.platform.startswith("linux") or machine not in _ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"seccomp: no filter for {sys.platform} on {machine}")
    code = _compiled(machine)
    program = _Program(len(code) // 8, code)
    forbid_new_privileges()
    library = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if library.prctl(_SET_SECCOMP, ctypes.c_ulong(_FILTER_MODE), ctypes.byref(program), zero, zero) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")


def _compiled(machine: str) -> bytes:
    """The filter as BPF, 8 bytes an instruction."""
    column = list(_ARCHITECTURES).index(machine)
    numbers = [numbers[column] for numbers in _CALLS.values()]
    x32 = [_instruction(_AT_LEAST, _X32, len(numbers) + 1, 0)] if machine == "x86_64" else []
    left = len(numbers)
    refusals = [_instruction(_EQUAL, number, left - index, 0) for index, number in enumerate(numbers)]
    return b"".join(
        [
            _instruction(_LOAD, _ARCHITECTURE),
            _instruction(_EQUAL, _ARCHITECTURES[machine], 0, 1 + len(x32) + left + 1),
            _instruction(_LOAD, _NUMBER),
            *x32,
            *refusals,
            _instruction(_RETURN, _ALLOW),
            _instruction(_RETURN, _REFUSE),
        ]
    )


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
