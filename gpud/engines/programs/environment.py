"""Pure: the environment that a program of an engine is run with, made from nothing."""

from __future__ import annotations

import re
from typing import Final

from gpud.engines.engine import StartRequest

# An empty part of a library path would be the engine's own folder, which it may write to.
_FOLDER: Final = re.compile(r"/[\w.+@=,~/ -]*")


def bare_environment(library_path: str | None) -> dict[str, str]:
    """What every run of a program gets, and all it gets: nothing is inherited.

    `library_path` (LD_LIBRARY_PATH) is where a CUDA build may find its libraries; what in it is
    not an absolute folder is left out.
    """
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    folders = [part for part in (library_path or "").split(":") if _FOLDER.fullmatch(part)]
    if folders:
        environment["LD_LIBRARY_PATH"] = ":".join(folders)
    return environment


def server_environment(request: StartRequest, library_path: str | None) -> dict[str, str]:
    """A server's environment; its own folder is all that it may write to."""
    own = str(request.directory)
    return {
        **bare_environment(library_path),
        "HOME": own,
        "TMPDIR": own,
        "CUDA_VISIBLE_DEVICES": ",".join(request.visible_devices),
    }
