"""Opens a name beneath a folder, and never one outside of it, whatever links lie on the way.

The kernel does it in one step (openat2 with RESOLVE_BENEATH and RESOLVE_NO_MAGICLINKS, Linux 5.6
on), so nothing can be put in the way between a look and the opening. Where it cannot, links are
followed by name first, and what they lead to is opened folder by folder, following nothing.

What is opened is a descriptor of the place alone (O_PATH): no device is woken, no fifo waits.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

import structlog

log = structlog.get_logger()

# Folder, and a name of at least one part relative to it, without `.` and `..`: an O_PATH
# descriptor. Raises OSError; EXDEV where a link leads out of the folder, or is absolute and might.
Opener = Callable[[Path, str], int]

SYSCALL_OPENAT2: Final = 437  # on every architecture that is younger than the call
AT_FDCWD: Final = -100
RESOLVE_NO_MAGICLINKS: Final = 0x02  # /proc/PID/fd/N and its like lead anywhere
RESOLVE_BENEATH: Final = 0x08
# A rename elsewhere on the host while `..` of a link is walked: the kernel says try again.
_TRIES: Final = 64
_PLACE: Final = os.O_PATH | os.O_CLOEXEC


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


@cache
def best_opener() -> Opener:
    """The kernel's own way where it has it, else the long way round; which is said once."""
    try:
        os.close(_openat2(AT_FDCWD, "/", RESOLVE_NO_MAGICLINKS))
    except OSError as error:
        # ENOSYS of an old kernel; EPERM of a container's filter that does not know the call.
        log.warning("models.no_openat2", problem=error.strerror, instead="links checked by name")
        return by_walk
    return by_kernel


def by_kernel(root: Path, name: str) -> int:
    """An Opener. Links that are absolute are refused too, wherever they lead (EXDEV)."""
    folder = os.open(root, _PLACE | os.O_DIRECTORY)
    try:
        return _openat2(folder, name, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    finally:
        os.close(folder)


def by_walk(root: Path, name: str) -> int:
    """An Opener for kernels without openat2: a link that appears meanwhile is not followed."""
    real_root = Path(os.path.realpath(root))
    real = Path(os.path.realpath(real_root / name))
    if not real.is_relative_to(real_root) or real == real_root:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    *folders, last = real.relative_to(real_root).parts
    place = os.open(real_root, _PLACE | os.O_DIRECTORY)
    try:
        for part in folders:
            inner = os.open(part, _PLACE | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=place)
            os.close(place)
            place = inner
        found = os.open(last, _PLACE | os.O_NOFOLLOW, dir_fd=place)
    finally:
        os.close(place)
    if stat.S_ISLNK(os.fstat(found).st_mode):  # a loop, or put there just now
        os.close(found)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return found


def _openat2(folder: int, name: str, resolve: int) -> int:
    how = _OpenHow(flags=_PLACE, mode=0, resolve=resolve)
    path, problem = os.fsencode(name), errno.EAGAIN
    for _ in range(_TRIES):
        found: int = _libc().syscall(
            SYSCALL_OPENAT2, folder, path, ctypes.byref(how), ctypes.sizeof(how)
        )
        if found >= 0:
            return found
        problem = ctypes.get_errno()
        if problem not in {errno.EAGAIN, errno.EINTR}:
            break
    raise OSError(problem, os.strerror(problem))


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    libc.syscall.argtypes = (
        ctypes.c_long,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_void_p,
        ctypes.c_size_t,
    )
    return libc
