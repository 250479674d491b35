"""The gate around every method: who calls, whether it may, and what is told of it.

Done once per method and listener: a wrapper costs less per call than an interceptor. Errors become
rich statuses here, and bugs an id.
"""

from __future__ import annotations

import asyncio
import inspect
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError
from google.rpc import status_pb2
from grpc_status import rpc_status

from gpud.access.access import Access
from gpud.access.audit import AuditEntry
from gpud.access.doors import Door, DoorKind, Shown
from gpud.access.identity import CALLER, DEED, Caller, Deed, Role
from gpud.access.refusals import AccessRefused, AccessWithdrawn, RoleMissing
from gpud.access.rights import RIGHTS, changes
from gpud.access.tokens import bearer
from gpud.clock import Moment
from gpud.errors import GpudError, OptionInvalid
from gpud.rpc.errors import code_of, internal_status, status_of

log = structlog.get_logger()

Context = grpc.aio.ServicerContext[Any, Any]
# grpcio's own health servicer writes this stream itself.
_WRITTEN = "grpc.health.v1.Health/Watch"
# What an answer or a request names, the first that is there: for the audit.
_SUBJECTS = ("reservation", "instance", "device", "node", "name", "model")


@dataclass(slots=True)
class _Attempt:
    """A call from when it came in; `caller` once that is known."""

    method: str  # "service/Method"
    request: object
    context: Context
    began: Moment
    caller: Caller | None = None
    deed: Deed = field(default_factory=Deed)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """How a call ended, as the audit tells it."""

    code: str
    reason: str = ""
    message: str = ""
    subject: str = ""
    of_right: bool = False  # refused for want of a right
    name: str = ""  # of the caller, where it was not let in


CLIENT_LEFT = _Outcome(
    code="CANCELLED",
    reason="CLIENT_LEFT",
    message="the client left before its answer; what was decided by then stands",
)


def _done(answer: object) -> _Outcome:
    return _Outcome(code="OK", subject=_subject(answer))


class Gate:
    """One listener's gate: methods are wrapped by it and registered there."""

    def __init__(self, door: Door, access: Access) -> None:
        self._door = door
        self._access = access

    def servicer(self, name: str, servicer: object) -> object:
        """A stand-in for a servicer of the service `name`, each method of it behind this gate."""
        stand_in = type("Guarded", (), {})()
        for each in dir(servicer):
            if each[0].isupper():
                method: Any = getattr(servicer, each)
                full = f"{name}/{each}"
                if full == _WRITTEN:
                    method = _yielding(method)
                stream = inspect.isasyncgenfunction(method)
                setattr(stand_in, each, (self._stream if stream else self._unary)(full, method))
        return stand_in

    def unknown(self, method: str) -> grpc.RpcMethodHandler[Any, Any]:
        """What answers a method that there is not: only an admin learns that."""

        async def refuse(requests: object, context: Context) -> None:
            attempt = _Attempt(method, requests, context, self._access.clock.now())
            try:
                attempt.caller = self._access.identify(self._door, self._shown(context))
                if attempt.caller.role is not Role.ADMIN:
                    raise _role_missing(method, attempt.caller, None)
            except GpudError as error:
                status = self._refused(attempt, error)
                await context.abort_with_status(rpc_status.to_status(status))
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"this gpud has no {method}")

        return grpc.stream_stream_rpc_method_handler(refuse)

    def _unary(
        self, name: str, method: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Awaitable[Any]]:
        access, audited = self._access, changes(name)

        async def call(request: Any, context: Context) -> Any:
            attempt = _Attempt(name, request, context, access.clock.now())
            try:
                attempt.caller = caller = access.identify(self._door, self._shown(context))
                _enter(attempt, caller)
                with access.calling(caller, attempt.began.boottime, changing=audited):
                    answer = await method(request, context)
            except GpudError as error:
                status = self._refused(attempt, error)
            except (grpc.aio.AbortError, asyncio.CancelledError):
                self._audit(attempt, CLIENT_LEFT)
                raise
            except Exception:  # noqa: BLE001 — the last net: a client never sees a traceback
                status = self._broken(attempt)
            else:
                if audited:
                    self._audit(attempt, _done(answer))
                return answer
            return await context.abort_with_status(rpc_status.to_status(status))

        return call

    def _stream(
        self, name: str, method: Callable[..., AsyncIterator[Any]]
    ) -> Callable[..., AsyncIterator[Any]]:
        access, audited = self._access, changes(name)

        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            attempt = _Attempt(name, request, context, access.clock.now())
            task = asyncio.current_task()
            last: object = None
            try:
                shown = self._shown(context)
                attempt.caller = caller = access.identify(self._door, shown)
                _enter(attempt, caller)
                with access.streaming(caller, shown, task, changing=audited):
                    async for answer in method(request, context):
                        last = answer if audited else None
                        yield answer
            except (GpudError, DecodeError) as error:
                status = self._refused(attempt, _told(error))
            except (grpc.aio.AbortError, asyncio.CancelledError, GeneratorExit) as end:
                if not access.was_cut(task):
                    self._audit(attempt, replace(CLIENT_LEFT, subject=_subject(last)))
                    raise
                name_now = attempt.caller.name if attempt.caller else ""
                status = self._refused(attempt, AccessWithdrawn(caller=name_now))
                if isinstance(end, GeneratorExit):
                    raise  # it was cut in the midst of a message: nobody is left to be told
            except Exception:  # noqa: BLE001 — as above
                status = self._broken(attempt)
            else:
                self._audit(attempt, _done(last))
                return
            await context.abort_with_status(rpc_status.to_status(status))

        return call

    def _shown(self, context: Context) -> Shown:
        door = self._door
        token = ""
        for key, value in context.invocation_metadata() or ():
            if key == "authorization":
                token = bearer(value if isinstance(value, str) else value.decode("latin-1"))
        origin = self._origin(context)
        if door.kind is not DoorKind.CERTIFICATES:
            return Shown(origin=origin, token=token)
        pem = next(iter(context.auth_context().get("x509_pem_cert", ())), None)
        if pem is None:
            return Shown(origin=origin, token=token)
        peer = self._access.peer(pem)
        return Shown(
            origin=origin,
            token=token,
            names=(*peer.uris, *peer.dns_names),
            serial=peer.serial,
            fingerprint=peer.fingerprint,
        )

    def _origin(self, context: Context) -> str:
        return self._door.label if self._door.kind is DoorKind.SOCKET else context.peer()

    def _refused(self, attempt: _Attempt, error: GpudError) -> status_pb2.Status:
        """A refusal is a decision too: the log and the audit say why, with the numbers."""
        known = error.caller if isinstance(error, AccessWithdrawn) else ""
        self._audit(
            attempt,
            _Outcome(
                code=code_of(error).name,
                reason=error.reason,
                message=error.summary,
                of_right=isinstance(error, AccessRefused),
                name=known,
            ),
        )
        caller, short = attempt.caller, attempt.method.removeprefix("gpud.v1.")
        if self._access.may_log(caller.name if caller else known, attempt.method, error.reason):
            log.info("rpc.refused", method=short, reason=error.reason, message=str(error))
        return status_of(error)

    def _broken(self, attempt: _Attempt) -> status_pb2.Status:
        """Log the exception being handled; its id is all that the client gets."""
        error_id = secrets.token_hex(6)
        log.error("rpc.bug", method=attempt.method, error_id=error_id, exc_info=True)  # noqa: LOG014
        self._audit(attempt, _Outcome(code="INTERNAL", reason="INTERNAL", message=error_id))
        return internal_status(error_id)

    def _audit(self, attempt: _Attempt, outcome: _Outcome) -> None:
        """Tell what was done, or refused; of reads only what was refused for want of a right."""
        if not changes(attempt.method) and not outcome.of_right:
            return
        caller, request, ended = attempt.caller, attempt.request, self._access.clock.now()
        self._access.record(
            AuditEntry(
                wall=ended.wall,
                name=caller.name if caller else outcome.name,
                role=caller.role.name.lower() if caller else "",
                proof=caller.proof.value if caller else "",
                origin=caller.origin if caller else self._origin(attempt.context),
                method=attempt.method.removeprefix("gpud.v1."),
                subject=attempt.deed.subject or outcome.subject or _subject(request),
                owner=caller.acting_for(getattr(request, "owner", "")) if caller else "",
                request_id=getattr(request, "request_id", ""),
                outcome=outcome.code,
                reason=outcome.reason,
                message=outcome.message,
                milliseconds=1000 * (ended.boottime - attempt.began.boottime),
            )
        )


def _yielding(method: Callable[..., Awaitable[None]]) -> Callable[..., AsyncIterator[Any]]:
    """A stream whose method writes its messages itself, as one that yields: none."""

    async def call(request: object, context: Context) -> AsyncIterator[Any]:
        none: tuple[object, ...] = ()
        await method(request, context)
        for each in none:
            yield each

    return call


def _subject(message: object) -> str:
    for each in _SUBJECTS:
        value = getattr(message, each, "")
        name = value if isinstance(value, str) else getattr(value, "name", "")
        if name:
            return str(name)
    return ""


def _enter(attempt: _Attempt, caller: Caller) -> None:
    """Let the method see who calls, and tell what it came to change. Raises RoleMissing."""
    required = RIGHTS.get(attempt.method)
    if required is None or caller.role < required:
        raise _role_missing(attempt.method, caller, required)
    CALLER.set(caller)
    DEED.set(attempt.deed)


def _role_missing(method: str, caller: Caller, required: Role | None) -> RoleMissing:
    return RoleMissing(
        method=method.removeprefix("gpud.v1."),
        role=caller.role.name.lower(),
        required=required.name.lower() if required is not None else "",
    )


def _told(error: GpudError | DecodeError) -> GpudError:
    """A later message of a stream is read in its method; the one of a unary call before it."""
    if isinstance(error, GpudError):
        return error
    return OptionInvalid(field="message", problem=f"not protobuf ({error})")
