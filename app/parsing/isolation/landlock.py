"""Landlock, by which a Linux process gives up access to files and to TCP permanently. No library is needed.

See https://docs.kernel.org/userspace-api/landlock.html for the numbers.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_NO_NEW_PRIVILEGES = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL_DEVICE = 1 << 14, 1 << 15
# How many of the rights to files each version of the kernel's interface knows.
_NUM_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_ALL_FILE_RIGHTS = 16
_TCP_RIGHTS, _TCP_SINCE = 0b11, 4  # bind and connect
_SCOPES, _SCOPES_SINCE = 0b11, 6  # abstract Unix sockets of other processes, and signals to them
_RIGHTS_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEVICE


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("tcp", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("descriptor", ctypes.c_int32))


def landlock_version() -> int:
    """Version of the kernel's interface; 0 without landlock."""
    if not sys.platform.startswith("linux"):
        return 0
    return max(0, int(ctypes.CDLL(None).syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)))


def restrict(readable: Iterable[Path], writable: Iterable[Path]) -> None:
    """Allow this thread and its later children to read and write these paths alone, and to use no TCP.

    Rights cover everything below a folder. Paths that do not exist are left out. Raises OSError.
    """
    version = landlock_version()
    files = (1 << _NUM_FILE_RIGHTS.get(version, _ALL_FILE_RIGHTS)) - 1
    ruleset = _Ruleset(files, _TCP_RIGHTS if version >= _TCP_SINCE else 0, _SCOPES if version >= _SCOPES_SINCE else 0)
    # An older kernel knows the first fields only. It accepts a longer structure whose other fields are zero.
    descriptor = _call(_CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(ctypes.sizeof(ruleset)), 0)
    try:
        for path in readable:
            _allow(descriptor, path, _READ_FILE | _READ_DIR)
        for path in writable:
            _allow(descriptor, path, files & ~_EXECUTE & ~_IOCTL_DEVICE)
        forbid_new_privileges()
        _call(_RESTRICT_SELF, descriptor, 0)
    finally:
        os.close(descriptor)


def forbid_new_privileges() -> None:
    """Let no program gain privileges, which the kernel requires of a process that restricts itself. Raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    arguments = (ctypes.c_ulong(value) for value in (1, 0, 0, 0))
    if library.prctl(_NO_NEW_PRIVILEGES, *arguments) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _RIGHTS_OF_FILES
        rule = _PathRule(rights, descriptor)
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: object) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    result = int(library.syscall(number, *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"landlock: {os.strerror(code)}")
    return result
