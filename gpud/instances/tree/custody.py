"""What an instance's folder says of the tree that was started in it, beside the store's record.

Written before the gate, so that a process can be proved ours by the folder alone when the record
is lost: the secret token in its environment is in a file that only we may write.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from gpud.instances.instance import ProcessIdentity

CUSTODY_FILE = "identity.json"


def write(directory: Path, identity: ProcessIdentity) -> None:
    """Keep the identity of the shim that is about to go; whole or not at all. Raises OSError."""
    fresh = directory / f"{CUSTODY_FILE}.new"
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(msgspec.json.encode(identity))
    fresh.replace(directory / CUSTODY_FILE)


def read(directory: Path) -> ProcessIdentity | None:
    """Whose tree was started there last; None: nobody's, or the file is not one that we wrote."""
    path = directory / CUSTODY_FILE
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                return None
            return msgspec.json.decode(file.read(), type=ProcessIdentity)
    except (OSError, msgspec.MsgspecError):
        return None


def read_all(instances: Path) -> dict[str, ProcessIdentity]:
    """Of every folder below, by the folder's name, which is the instance's id."""
    found = {}
    with suppress(OSError):
        for folder in instances.iterdir():
            identity = read(folder)
            if identity is not None:
                found[folder.name] = identity
    return found
