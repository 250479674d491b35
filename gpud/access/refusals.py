"""What a caller is refused for want of a right; none tells what is behind it."""

from __future__ import annotations

from dataclasses import dataclass

from gpud.errors import GpudError, LimitReached


class AccessRefused(GpudError):
    """The right is missing, not the thing."""


@dataclass(kw_only=True, eq=False)
class IdentityMissing(AccessRefused):
    """Nobody knows who calls."""

    reason = "IDENTITY_MISSING"

    problem: str

    def __str__(self) -> str:
        return (
            f"cannot tell who calls: {self.problem}; use a socket that you may open, a "
            "certificate, or a token (`gpuctl context`)"
        )


@dataclass(kw_only=True, eq=False)
class RoleMissing(AccessRefused):
    """The caller's role is not enough."""

    reason = "ROLE_MISSING"

    method: str
    role: str
    required: str  # empty: no role is enough

    def __str__(self) -> str:
        if not self.required:
            return f"cannot call {self.method}: no role may call it"
        return (
            f"cannot call {self.method}: it needs the role {self.required}, "
            f"and yours is {self.role}; ask an admin of this node"
        )


@dataclass(kw_only=True, eq=False)
class NotOwner(AccessRefused):
    """It is another's."""

    reason = "NOT_OWNER"

    name: str

    def __str__(self) -> str:
        return f"cannot change {self.name}: it is not yours; its owner and admins may"


@dataclass(kw_only=True, eq=False)
class AccessWithdrawn(AccessRefused):
    """It was let in once, and is denied now."""

    reason = "ACCESS_WITHDRAWN"

    caller: str

    def __str__(self) -> str:
        return f"cannot call as {self.caller}: its access was withdrawn; ask an admin of this node"


@dataclass(kw_only=True, eq=False)
class TooManyCalls(LimitReached):
    """As many calls are under way as may be; `owner` empty: of everybody's."""

    reason = "QUOTA_EXCEEDED"

    owner: str
    limit: int

    def __str__(self) -> str:
        whose = f"{self.owner} has {self.limit} calls" if self.owner else f"{self.limit} calls are"
        return f"cannot answer now: {whose} under way, no more may be; try again"


@dataclass(kw_only=True, eq=False)
class TooManyStreams(LimitReached):
    """As many streams are open as may be; `owner` empty: of everybody's.

    `key` is the table of the limit; empty for gpud's own.
    """

    reason = "QUOTA_EXCEEDED"

    owner: str
    limit: int
    key: str = ""

    def __str__(self) -> str:
        whose = f"{self.owner} has" if self.owner else "there are"
        key = f" ({self.key}.streams)" if self.key else ""
        return (
            f"cannot open a stream: {whose} {self.limit} open, no more may be{key}; "
            "end one, or share one among those who watch"
        )


@dataclass(kw_only=True, eq=False)
class RequestLate(GpudError):
    """The message of a call did not come: only its headers."""

    reason = "REQUEST_LATE"

    limit_seconds: float

    def __str__(self) -> str:
        return (
            f"cannot answer: no whole message came within {self.limit_seconds:g} s of its call; "
            "send it together with the call"
        )


@dataclass(kw_only=True, eq=False)
class TooOften(LimitReached):
    """One owner calls more often than it may; `key` is the table of the limit."""

    reason = "QUOTA_EXCEEDED"

    owner: str
    limit: float
    wait_seconds: float
    key: str

    def __str__(self) -> str:
        return (
            f"cannot answer {self.owner} so often: {self.limit:g} calls a second are the limit "
            f"({self.key}.calls_per_second); wait {self.wait_seconds:.3g} s, or watch a stream"
        )
