"""What ends a command: a refusal of gpud or a silence, as text, next step and exit code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from gpuctl.access.context import Context
    from gpuctl.access.trouble import Trouble

EXIT_OTHER = 1
EXIT_USAGE = 2
# A refusal ends with 64 plus its gRPC code, as grpcurl does.
EXIT_REFUSED_BASE = 64
# As timeout(1), and as a shell tells of SIGINT.
EXIT_WAITED_OUT = 124
EXIT_INTERRUPTED = 130

SYSTEM_SOCKET = "/run/gpud/gpud.sock"

# Where the refusal does not say it by itself: what to do next.
_NEXT_STEPS = {
    grpc.StatusCode.UNIMPLEMENTED: "this gpud does not know the call; `gpuctl version` compares",
    grpc.StatusCode.INTERNAL: "gpud's log tells more (`journalctl -u gpud`)",
    grpc.StatusCode.UNKNOWN: "gpud's log tells more (`journalctl -u gpud`)",
    grpc.StatusCode.PERMISSION_DENIED: "use the socket or the identity of a role that may",
    grpc.StatusCode.UNAUTHENTICATED: (
        "use a socket that you may open, a certificate or a token (`gpuctl context add`)"
    ),
}


@dataclass(kw_only=True, eq=False)
class Failure(Exception):
    """The end of a command. `notes` are always told, `details` with -v."""

    message: str
    exit_code: int = EXIT_OTHER
    notes: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    # ErrorInfo's metadata.
    facts: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    code: grpc.StatusCode | None = None
    # The request may have reached gpud, but no answer came.
    outcome_unknown: bool = False

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refusal:
    """The google.rpc.Status behind an error, as far as gpuctl tells of it."""

    reason: str = ""
    domain: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[tuple[str, str], ...] = ()


def usage(message: str) -> Failure:
    """A command line that cannot be meant."""
    return Failure(message=message, exit_code=EXIT_USAGE)


def failure_of(error: grpc.RpcError, context: Context, timeout_seconds: float) -> Failure:
    """What a failed call means for the person who made it."""
    code, text = error.code(), error.details() or ""
    refusal = _refusal_of(error)
    if not refusal.reason:
        if code is grpc.StatusCode.UNAVAILABLE:
            return _broke_off(context, text)
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return waited_out(context.address, timeout_seconds)
    next_step = "" if refusal.reason else _NEXT_STEPS.get(code, "")
    message = text or f"gpud refused ({code.name})"
    return Failure(
        message=f"{message}; {next_step}" if next_step else message,
        exit_code=EXIT_REFUSED_BASE + code.value[0],
        notes=tuple(f"{name}: {why}" for name, why in refusal.violations if why not in message),
        details=_details(code, refusal),
        facts=refusal.metadata,
        reason=refusal.reason,
        code=code,
    )


def _details(code: grpc.StatusCode, refusal: _Refusal) -> tuple[str, ...]:
    origin = f" reason {refusal.reason} ({refusal.domain})" if refusal.reason else ""
    facts = (f"{key} = {value}" for key, value in sorted(refusal.metadata.items()))
    return (f"code {code.name}{origin}", *facts)


@contextmanager
def repeatable(request_id: str) -> Iterator[None]:
    """A change whose outcome stays unknown if the answer is lost: tells how to ask again."""
    try:
        yield
    except Failure as failure:
        if failure.outcome_unknown:
            again = f"it may have been done: repeat it with --request-id {request_id} to find out"
            raise replace(failure, notes=(*failure.notes, again)) from failure
        raise


def _broke_off(context: Context, grpc_text: str) -> Failure:
    from gpuctl.access.trouble import find_trouble

    trouble = find_trouble(context)
    if trouble is not None:
        return _unreachable(context.address, trouble, grpc_text)
    code = grpc.StatusCode.UNAVAILABLE
    return Failure(
        message=f"the connection to gpud at {context.address} broke off; it may have restarted",
        exit_code=EXIT_REFUSED_BASE + code.value[0],
        details=(grpc_text,),
        code=code,
        outcome_unknown=True,
    )


def _unreachable(address: str, trouble: Trouble, grpc_text: str) -> Failure:
    code = grpc.StatusCode.UNAVAILABLE
    return Failure(
        message=f"cannot reach gpud at {address}: {trouble.why}",
        exit_code=EXIT_REFUSED_BASE + code.value[0],
        notes=trouble.notes,
        details=(grpc_text,),
        code=code,
    )


def waited_out(address: str, timeout_seconds: float) -> Failure:
    """The timeout ran out before an answer came."""
    return Failure(
        message=f"gpud at {address} did not answer within {timeout_seconds:g} s",
        exit_code=EXIT_WAITED_OUT,
        notes=("wait longer with --timeout 60s; `gpuctl status` tells how the node stands",),
        code=grpc.StatusCode.DEADLINE_EXCEEDED,
        outcome_unknown=True,
    )


def _refusal_of(error: grpc.RpcError) -> _Refusal:
    """What google.rpc.Status says beside the text; empty when the error carries none."""
    metadata: Any = error.trailing_metadata() or ()
    packed = dict(metadata).get("grpc-status-details-bin")
    if packed is None:
        return _Refusal()
    from google.protobuf.message import DecodeError
    from google.rpc import error_details_pb2, status_pb2

    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    try:
        status: Any = status_pb2.Status.FromString(packed)
        for detail in status.details:
            for known in (info, bad):
                detail.Unpack(known)
    except DecodeError:
        return _Refusal()
    return _Refusal(
        reason=info.reason,
        domain=info.domain,
        metadata=dict(info.metadata),
        violations=tuple((v.field, v.description) for v in bad.field_violations),
    )
