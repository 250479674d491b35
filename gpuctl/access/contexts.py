"""The file that contexts are kept in."""

from __future__ import annotations

import os
from collections.abc import Callable

from gpuctl.access.context_text import Contexts, parsed, written
from gpuctl.failures import Failure, usage

# So long a file is nobody's list of contexts, and TOML can be made to take much memory.
_MOST_BYTES = 65536

# os.path all along: pathlib would be an import more for every command.
# ruff: noqa: PTH103, PTH111, PTH117, PTH118, PTH120, PTH123


def contexts_path() -> str:
    """$XDG_CONFIG_HOME/gpuctl/contexts.toml, or under ~/.config. Empty where there is no home."""
    folder = os.environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(folder):  # which the XDG specification wants ignored
        folder = os.path.expanduser("~/.config")
    return os.path.join(folder, "gpuctl", "contexts.toml") if os.path.isabs(folder) else ""


def read_contexts() -> Contexts:
    """All that are kept; none where there is no file. Raises Failure."""
    path = contexts_path()
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return Contexts()
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    if len(data) > _MOST_BYTES:
        raise _unreadable(path, f"it is longer than {_MOST_BYTES} bytes")
    try:
        return parsed(data.decode())
    except ValueError as error:  # of UTF-8 and of TOML as well
        raise _unreadable(path, str(error)) from error


def change_contexts(edit: Callable[[Contexts], Contexts]) -> Contexts:
    """Read, edit and write, with no other gpuctl in between. Raises Failure, also what edit does.

    What was there stays whole until the new file is.
    """
    path = contexts_path()
    if not path:
        raise usage("there is no home directory to keep contexts in; set HOME or XDG_CONFIG_HOME")
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with _Locked(os.path.dirname(path)):
            changed = edit(read_contexts())
            _replace(os.path.realpath(path), written(changed))
    except OSError as error:
        why = error.strerror or str(error)
        raise Failure(message=f"cannot write {path}: {why}; `gpuctl context` keeps it") from error
    return changed


class _Locked:
    """A folder that one process at a time writes in."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        import fcntl

        self._handle = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(self._handle, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)


def _replace(path: str, text: str) -> None:
    import tempfile

    handle, fresh = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".contexts-")  # 0600
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)  # noqa: PTH105
    except BaseException:
        os.unlink(fresh)  # noqa: PTH108
        raise


def _unreadable(path: str, why: str) -> Failure:
    return usage(
        f"cannot read {path}: {why}; mend it, or remove it and add the contexts again "
        "(`gpuctl context add`)"
    )
