"""The one table from gpud's errors to google.rpc.Status."""

from __future__ import annotations

from dataclasses import fields

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from gpud import errors
from gpud.access.refusals import AccessRefused, IdentityMissing, RequestLate
from gpud.benchmarking.refusals import BenchmarkFailed
from gpud.config_changes import ConfigRefused
from gpud.errors import DeviceShortage, GpudError
from gpud.events import EventsPruned
from gpud.instances.starting import admission
from gpud.models.sources import refusals
from gpud.threads import ThreadRefused

DOMAIN = "gpud"
# A status travels in headers, 8 KiB of which clients take: its words, with all but plain ASCII
# escaped threefold, and the whole of it again in base64. So the words may take 1.5 KiB as escaped,
# the facts 3 KiB, one of them 1 KiB.
MAX_MESSAGE_BYTES = 1500
MAX_FACT_BYTES = 1000
MAX_FACTS_BYTES = 3000
_FACT_OVERHEAD_BYTES = 10

# Looked up along the class's bases, so a new leaf of a known branch has a code at once.
CODES: dict[type[GpudError], grpc.StatusCode] = {
    IdentityMissing: grpc.StatusCode.UNAUTHENTICATED,
    AccessRefused: grpc.StatusCode.PERMISSION_DENIED,
    RequestLate: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.OptionInvalid: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.VramInsufficient: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.LimitReached: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.EnforcementUnavailable: grpc.StatusCode.FAILED_PRECONDITION,
    errors.DeviceUnavailable: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NotServing: grpc.StatusCode.UNAVAILABLE,
    errors.GenerationMismatch: grpc.StatusCode.ABORTED,
    errors.WrongState: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ModelFileInvalid: grpc.StatusCode.FAILED_PRECONDITION,
    refusals.DownloadRefused: grpc.StatusCode.FAILED_PRECONDITION,
    refusals.DownloadFailed: grpc.StatusCode.UNAVAILABLE,
    refusals.DiskInsufficient: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.EngineMissing: grpc.StatusCode.FAILED_PRECONDITION,
    errors.EngineFailed: grpc.StatusCode.ABORTED,
    errors.FootprintExceeded: grpc.StatusCode.ABORTED,
    errors.InstanceLost: grpc.StatusCode.ABORTED,
    BenchmarkFailed: grpc.StatusCode.ABORTED,
    admission.MemoryTaken: grpc.StatusCode.RESOURCE_EXHAUSTED,
    admission.HostExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ThreadRefused: grpc.StatusCode.RESOURCE_EXHAUSTED,
    admission.ContextsRefused: grpc.StatusCode.FAILED_PRECONDITION,
    errors.LoadCancelled: grpc.StatusCode.ABORTED,
    ConfigRefused: grpc.StatusCode.FAILED_PRECONDITION,
    EventsPruned: grpc.StatusCode.OUT_OF_RANGE,
}


def code_of(error: GpudError) -> grpc.StatusCode:
    """The code of an error's class; INTERNAL for one that never should reach the wire."""
    for kind in type(error).__mro__:
        if kind in CODES:
            return CODES[kind]
    return grpc.StatusCode.INTERNAL


def status_of(error: GpudError) -> status_pb2.Status:
    """The rich status: words, reason, and the error's facts as metadata."""
    code = code_of(error)
    info = error_details_pb2.ErrorInfo(
        reason=error.reason, domain=DOMAIN, metadata=_metadata(error)
    )
    details: list[any_pb2.Any] = [_packed(info)]
    if isinstance(error, errors.OptionInvalid):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=_cut(error.field, 100), description=_cut(error.problem, MAX_FACT_BYTES)
        )
        details.append(_packed(error_details_pb2.BadRequest(field_violations=[violation])))
    if isinstance(error, errors.NotServing):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromSeconds(1)
        details.append(_packed(retry))
    return status_pb2.Status(
        code=_number(code), message=_cut(str(error), MAX_MESSAGE_BYTES), details=details
    )


def internal_status(error_id: str) -> status_pb2.Status:
    """What a bug tells the world: where to look, and nothing else."""
    return status_pb2.Status(
        code=code_pb2.INTERNAL,
        message=f"cannot answer: an internal error, in the daemon's log as error_id={error_id}",
        details=[
            _packed(
                error_details_pb2.ErrorInfo(
                    reason="INTERNAL", domain=DOMAIN, metadata={"error_id": error_id}
                )
            )
        ],
    )


def _metadata(error: GpudError) -> dict[str, str]:
    """Every fact of the error; shortages flattened with the device's alias before the name."""
    facts: dict[str, str] = {}
    for name in getattr(error, "__dataclass_fields__", ()):
        value = getattr(error, name)
        if name == "shortages":
            for shortage in value[:8]:
                facts |= _shortage_facts(shortage)
        elif isinstance(value, tuple):
            facts[name] = "\n".join(map(str, value[-10:]))
        elif value is not None:
            facts[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return _fitted(facts)


def _fitted(facts: dict[str, str]) -> dict[str, str]:
    """The facts that travel: numbers and names whole, the longest texts cut."""
    room = MAX_FACTS_BYTES
    fitted: dict[str, str] = {}
    for name, text in sorted(facts.items(), key=lambda fact: len(fact[1])):
        room -= len(name) + _FACT_OVERHEAD_BYTES
        fitted[name] = _cut(text, max(0, min(MAX_FACT_BYTES, room)))
        room -= len(fitted[name].encode())
    return fitted


def _cut(text: str, limit_bytes: int) -> str:
    """As much of a text as takes so many bytes where all but plain ASCII is escaped."""
    used = 0
    for at, char in enumerate(text):
        used += 1 if " " <= char <= "~" and char != "%" else 3 * len(char.encode())
        if used > limit_bytes:
            return text[:at]
    return text


def _shortage_facts(shortage: DeviceShortage) -> dict[str, str]:
    return {
        f"{shortage.alias}.{field.name}": str(getattr(shortage, field.name))
        for field in fields(shortage)
        if getattr(shortage, field.name) not in (None, "")
    }


def _packed(message: object) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)  # type: ignore[arg-type]
    return packed


def _number(code: grpc.StatusCode) -> int:
    number: int = code.value[0]
    return number
