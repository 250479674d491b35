"""The gate around every method: who calls, whether it may, and what is told of it.

Done once per method and listener: a wrapper costs less per call than an interceptor. Errors become
rich statuses here, and bugs an id.
"""

from __future__ import annotations

import asyncio
import inspect
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError
from google.rpc import status_pb2
from grpc_status import rpc_status

from gpud.access.access import Access, OpenStream
from gpud.access.audit import AuditEntry
from gpud.access.auditing.calls import MethodCalls
from gpud.access.doors import Door, DoorKind, Shown
from gpud.access.identity import CALLER, DEED, Caller, Deed, Role
from gpud.access.refusals import AccessRefused, AccessWithdrawn, RoleMissing
from gpud.access.rights import RIGHTS, changes
from gpud.access.tokens import bearer
from gpud.clock import Moment
from gpud.errors import GpudError, OptionInvalid
from gpud.events import CAUSE, Cause
from gpud.rpc.errors import code_of, internal_status, status_of

log = structlog.get_logger()

Context = grpc.aio.ServicerContext[Any, Any]
Handler = Any  # grpc.RpcMethodHandler, whose class takes no parameters when it runs
Decode = Callable[[bytes], Any]
MAX_REQUEST_ID = 128
# What an answer or a request names, the first that is there: for the audit.
_SUBJECTS = ("reservation", "instance", "device", "node", "name", "model")


def _loop_time() -> float:
    """Seconds on the loop's own clock."""
    return asyncio.get_running_loop().time()


@dataclass(slots=True)
class _Attempt:
    """A call from when it came in; `caller` once that is known."""

    method: str  # "service/Method"
    request: object
    context: Context
    began: Moment
    calls: MethodCalls | None = None  # None: of a method that there is not
    since: float = field(default_factory=_loop_time)  # cheaper to compare with than a Moment
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


_OK = "OK"


def _done(answer: object) -> _Outcome:
    return _Outcome(code="OK", subject=_subject(answer))


class Gate:
    """One listener's gate: methods are wrapped by it and registered there.

    Who calls is found out, and room for the call is taken, before its message is read: whoever
    may not call fills neither memory nor places with messages that never end.
    """

    def __init__(self, door: Door, access: Access) -> None:
        self._door = door
        self._access = access
        self._of_admins = door.kind is DoorKind.SOCKET and door.role is Role.ADMIN

    def handler(self, name: str, handler: Handler) -> Handler:
        """A method's handler behind this gate; `name` is "service/Method".

        To gRPC each takes a stream of messages, of which the one of a unary call is read here.
        But for the socket of admins, where nobody else comes in: there gRPC reads it, for less.
        """
        read_here = not (handler.request_streaming or self._of_admins)
        decode = handler.request_deserializer if read_here else None
        shape = "stream" if read_here or handler.request_streaming else "unary"
        if handler.response_streaming:
            made: Any = getattr(grpc, f"{shape}_stream_rpc_method_handler")
            method: Any = handler.stream_stream or handler.unary_stream
            if not inspect.isasyncgenfunction(method):
                method = _yielding(method)
            behaviour: Any = self._stream(name, method, decode)
        else:
            made = getattr(grpc, f"{shape}_unary_rpc_method_handler")
            answer: Any = handler.unary_unary
            behaviour = self._unary(name, answer, decode)
        return made(
            behaviour,
            request_deserializer=handler.request_deserializer if decode is None else None,
            response_serializer=_serializer(handler.response_serializer),
        )

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
        self, name: str, method: Callable[..., Awaitable[Any]], decode: Decode | None
    ) -> Callable[..., Awaitable[Any]]:
        access, audited = self._access, changes(name)
        budgets, calls = access.budgets, access.calls.of(name, "unary")

        async def call(requests: Any, context: Context) -> Any:
            attempt = _Attempt(name, None, context, access.clock.now(), calls)
            cause: Cause | None = None
            try:
                attempt.caller = caller = access.identify(self._door, self._shown(context))
                _enter(attempt, caller)
                budgets.open_call(caller, attempt.began.boottime, changing=audited)
                try:
                    attempt.request = await self._message(attempt, requests, decode)
                    cause = _named(attempt, caller)
                    answer = await method(attempt.request, context)
                finally:
                    if cause is not None:
                        cause.is_over = True
                    budgets.close_call(caller, changing=audited)
            except (GpudError, DecodeError) as error:
                status = self._refused(attempt, _told(error))
            except (grpc.aio.AbortError, asyncio.CancelledError) as end:
                if not _is_strays(end):
                    self._left(attempt, CLIENT_LEFT)
                    raise
                status = self._broken(attempt)
            except Exception:  # noqa: BLE001 — the last net: a client never sees a traceback
                status = self._broken(attempt)
            else:
                self._ended(attempt, _OK)
                if audited:
                    self._audit(attempt, _done(answer))
                return answer
            return await context.abort_with_status(rpc_status.to_status(status))

        return call

    def _stream(
        self, name: str, method: Callable[..., AsyncIterator[Any]], decode: Decode | None
    ) -> Callable[..., AsyncIterator[Any]]:
        access, audited = self._access, changes(name)
        calls = access.calls.of(name, "server_stream")

        async def call(requests: Any, context: Context) -> AsyncIterator[Any]:
            attempt = _Attempt(name, None, context, access.clock.now(), calls)
            stream: OpenStream | None = None
            last: object = None
            try:
                shown = self._shown(context)
                attempt.caller = caller = access.identify(self._door, shown)
                _enter(attempt, caller)
                with access.streaming(caller, shown, changing=audited) as stream:
                    attempt.request = await self._message(attempt, requests, decode)
                    with _naming(attempt, caller):
                        async for answer in method(attempt.request, context):
                            last = answer if audited else None
                            stream.send()
                            yield answer
                            stream.sent()
            except (GpudError, DecodeError) as error:
                status = self._refused(attempt, _told(error))
            except (grpc.aio.AbortError, asyncio.CancelledError, GeneratorExit) as end:
                status = self._cut_short(attempt, stream, end)
                if status is None:
                    self._left(attempt, replace(CLIENT_LEFT, subject=_subject(last)))
                    raise
                if isinstance(end, GeneratorExit):
                    raise  # it took no more messages: nobody is left to be told
            except Exception:  # noqa: BLE001 — as above
                status = self._broken(attempt)
            else:
                self._ended(attempt, _OK)
                self._audit(attempt, _done(last))
                return
            await context.abort_with_status(rpc_status.to_status(status))

        return call

    def _cut_short(
        self, attempt: _Attempt, stream: OpenStream | None, end: BaseException
    ) -> status_pb2.Status | None:
        """What is told where it was not the client that left: a cut of ours, or a bug."""
        if stream is not None and stream.absorb():
            return self._refused(attempt, AccessWithdrawn(caller=stream.caller.name))
        return self._broken(attempt) if _is_strays(end) else None

    async def _message(self, attempt: _Attempt, requests: Any, decode: Decode | None) -> Any:
        """What a method is called with: its one message, or where there are many, all to come.

        Raises RequestLate, OptionInvalid, DecodeError.
        """
        if decode is None:
            return requests
        raw = await self._access.message(attempt.context.read(), attempt.began.boottime)
        if raw is grpc.aio.EOF:
            raise OptionInvalid(field="message", problem="none came")
        return decode(raw)

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
        self._access.refused[error.reason] += 1
        self._ended(attempt, code_of(error).name)
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
        self._ended(attempt, "INTERNAL")
        log.error("rpc.bug", method=attempt.method, error_id=error_id, exc_info=True)  # noqa: LOG014
        self._audit(attempt, _Outcome(code="INTERNAL", reason="INTERNAL", message=error_id))
        return internal_status(error_id)

    def _left(self, attempt: _Attempt, outcome: _Outcome) -> None:
        """Of a client that went before its answer."""
        self._ended(attempt, outcome.code)
        self._audit(attempt, outcome)

    def _ended(self, attempt: _Attempt, code: str) -> None:
        """Count a call where it ends, whoever made it."""
        if attempt.calls is not None:
            attempt.calls.ended(code, _loop_time() - attempt.since)

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
            ),
            decided=bool(attempt.deed.subject),
        )


def _serializer(serialize: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """For messages, and for what is in bytes already: a stream may send the same to many."""
    return lambda answer: answer if type(answer) is bytes else serialize(answer)


def _yielding(method: Callable[..., Awaitable[None]]) -> Callable[..., AsyncIterator[Any]]:
    """A stream whose method writes its messages itself (grpcio's health), as one that yields."""

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


def _named(attempt: _Attempt, caller: Caller) -> Cause:
    """Name the call in what it brings about."""
    cause = Cause(
        method=attempt.method.removeprefix("gpud.v1."),
        request_id=getattr(attempt.request, "request_id", "")[:MAX_REQUEST_ID],
        caller=caller.name,
    )
    CAUSE.set(cause)
    return cause


@contextmanager
def _naming(attempt: _Attempt, caller: Caller) -> Iterator[None]:
    """Name the call until its stream has ended."""
    cause = _named(attempt, caller)
    try:
        yield
    finally:
        cause.is_over = True


def _role_missing(method: str, caller: Caller, required: Role | None) -> RoleMissing:
    return RoleMissing(
        method=method.removeprefix("gpud.v1."),
        role=caller.role.name.lower(),
        required=required.name.lower() if required is not None else "",
    )


def _is_strays(end: BaseException) -> bool:
    """Whether a cancellation was of something that the call waited for, not of the call itself.

    That is a bug of ours; handed on, gRPC would take it for the client's and never answer.
    """
    task = asyncio.current_task()
    is_cancelled = isinstance(end, asyncio.CancelledError)
    return is_cancelled and task is not None and not task.cancelling()


def _told(error: GpudError | DecodeError) -> GpudError:
    """What a caller may be told of an error of its own."""
    if isinstance(error, GpudError):
        return error
    return OptionInvalid(field="message", problem=f"not protobuf ({error})")
