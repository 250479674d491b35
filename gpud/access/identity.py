"""Pure: who calls, with which right, and from where."""

from __future__ import annotations

import enum
from contextvars import ContextVar

import msgspec


class Role(enum.IntEnum):
    """What somebody may do; each may do what those below it may."""

    VIEWER = 1  # reads
    OPERATOR = 2  # reserves and loads, and changes what is its own
    ADMIN = 3  # everything, also for others


class Proof(enum.Enum):
    """By what a caller is known."""

    SOCKET = "socket"  # the file's mode let it in; nobody in particular
    USER = "user"  # a token that gpud minted for the user of this host
    CERTIFICATE = "certificate"
    TOKEN = "token"  # of the configuration  # noqa: S105 — no secret
    NOTHING = "nothing"


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls: a name that owns things, a role, and what a log says of where it came from."""

    name: str
    role: Role
    proof: Proof
    origin: str
    uid: int | None = None  # of a user of this host

    @property
    def person(self) -> str:
        """Its name where somebody in particular is known; empty for whoever may open a socket."""
        return "" if self.proof in (Proof.SOCKET, Proof.NOTHING) else self.name

    def acting_for(self, declared: str) -> str:
        """Whose the call's doing is: an admin may act for another, nobody else."""
        return declared if declared and self.role is Role.ADMIN else self.name

    def may_change(self, owner: str) -> bool:
        """Whether what `owner` has may be changed by it."""
        return self.role is Role.ADMIN or owner == self.name


class Deed(msgspec.Struct, kw_only=True):
    """What a call came to change: told by its method as soon as that is decided, for the audit.

    A caller may hang up before the answer; what was decided by then stands.
    """

    subject: str = ""


# Set by the gate about each method, which grpc.aio runs in a task of its own.
CALLER: ContextVar[Caller] = ContextVar("caller")
DEED: ContextVar[Deed] = ContextVar("deed")
