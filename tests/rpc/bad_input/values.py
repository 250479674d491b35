"""Pure: what can be wrong with a field, by its kind, and how that must be refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from google.protobuf.duration_pb2 import Duration

Code = grpc.StatusCode
INT32_MAX, INT64_MAX = 2**31 - 1, 2**63 - 1
MIB = 2**20
LONG = "x" * 257


@dataclass(frozen=True, kw_only=True)
class Refused:
    """One of these codes; the reason and the field as ErrorInfo and BadRequest tell them."""

    codes: frozenset[grpc.StatusCode]
    reason: str
    field: str = ""


Value: TypeAlias = tuple[str, Any, Refused]
Values: TypeAlias = Iterator[Value]


def refused(code: grpc.StatusCode, reason: str) -> Refused:
    """For what the things are, not for a field."""
    return Refused(codes=frozenset({code}), reason=reason)


def invalid(field: str) -> Refused:
    """For a field."""
    codes = frozenset({Code.INVALID_ARGUMENT})
    return Refused(codes=codes, reason="OPTION_INVALID", field=field)


def not_found(noun: str) -> Refused:
    """For a name."""
    return refused(Code.NOT_FOUND, f"{noun}_NOT_FOUND")


STALE = refused(Code.ABORTED, "GENERATION_MISMATCH")
WRONG_STATE = refused(Code.FAILED_PRECONDITION, "WRONG_STATE")
# What grpc answers before any code of ours runs.
GARBAGE = Refused(codes=frozenset({Code.INTERNAL, Code.UNKNOWN}), reason="")
TOO_LARGE = Refused(codes=frozenset({Code.RESOURCE_EXHAUSTED}), reason="")
TOO_LATE = Refused(codes=frozenset({Code.DEADLINE_EXCEEDED}), reason="")

UNPRINTABLE = (
    ("NUL", "a\0b"),
    ("newline", "a\nb"),
    ("carriage return", "a\rb"),
    ("tab", "a\tb"),
    ("escape sequence", "a\x1b[31mb"),
    ("DEL", "a\x7f"),
    ("right-to-left override", "a\u202eb"),
    ("zero-width space", "a\u200bb"),
    ("line separator", "a\u2028b"),
    ("byte order mark", "\ufeffa"),
)
# Printable, and the name of nothing.
STRANGERS = (
    ("a name of nothing", "none-of-that-name"),
    ("a flag", "-rf"),
    ("a long flag", "--config"),
    ("traversal", "../../etc/passwd"),
    ("an absolute path", "/etc/passwd"),
    ("escaped traversal", "..%2f..%2f"),
    ("a pattern", "*"),
    ("a template", "{name}"),
    ("a shell's substitution", "$(reboot)"),
    ("SQL", "' OR 1=1 --"),
    ("letters of another script", "r-аbc"),
    ("as long as may be", "x" * 256),
)


def text(field: str, limit: int = 256) -> Values:
    """Bounded, printable text; empty is no fault."""
    yield "one too long", "x" * (limit + 1), invalid(field)
    yield "100 KiB", "x" * 100 * 1024, invalid(field)
    for label, value in UNPRINTABLE:
        yield label, value, invalid(field)


def request_id() -> Values:
    return text("request_id", 128)


def name(field: str, collection: str, noun: str) -> Values:
    """What a resource is called by; nothing is called so."""
    yield "empty", "", invalid(field)
    yield "only the collection", f"{collection}/", invalid(field)
    yield from text(field)
    for label, value in STRANGERS:
        yield label, value, not_found(noun)
    yield "the collection twice", f"{collection}/{collection}/x", not_found(noun)
    yield "of another collection", "alerts/x", not_found(noun)


def optional_name(field: str, collection: str, noun: str) -> Values:
    """As a name; but empty is not said."""
    return (each for each in name(field, collection, noun) if each[0] != "empty")


def span(field: str, low: float, high: float) -> Values:
    """Whole seconds `low` … `high`."""
    if low > 0:
        yield "0", Duration(), invalid(field)
        below = Duration(seconds=int(low) - 1, nanos=999_999_999)
        yield "just too short", below, invalid(field)
    yield "negative", Duration(seconds=-1), invalid(field)
    yield "negative by a nanosecond", Duration(nanos=-1), invalid(field)
    yield "just too long", Duration(seconds=int(high), nanos=1_000), invalid(field)
    yield "too long", Duration(seconds=int(high) + 1), invalid(field)
    yield "2^62 s", Duration(seconds=2**62), invalid(field)
    yield "-2^63 s", Duration(seconds=-(2**63)), invalid(field)
    yield "signs that differ", Duration(seconds=5, nanos=-1), invalid(field)
    yield "nanos beyond a second", Duration(seconds=5, nanos=1_000_000_000), invalid(field)


def number(field: str, low: int, high: int, *, most: int = INT32_MAX) -> Values:
    """`low` … `high` of what the type holds up to `most`."""
    yield "one below", low - 1, invalid(field)
    yield "the type's least", -most - 1, invalid(field)
    if high < most:
        yield "one above", high + 1, invalid(field)
        yield "the type's most", most, invalid(field)


def enum(field: str, known: int, *, repeated: bool = False) -> Values:
    """Values 0 … `known`."""
    for label, value in (("unknown", known + 1), ("negative", -1), ("far away", INT32_MAX)):
        yield label, [value] if repeated else value, invalid(field)


def devices(field: str = "devices", noun: str = "DEVICE") -> Values:
    """Names of devices."""
    yield "twice", ["gpu0", "gpu0"], invalid(field)
    yield "twice, written otherwise", ["gpu0", "devices/gpu0"], invalid(field)
    yield "ten thousand times", ["gpu0"] * 10_000, invalid(field)
    for label, value in (("one too long", LONG), *UNPRINTABLE):
        yield label, ["gpu1", value], invalid(field)
    yield "an empty one", [""], not_found(noun)
    for label, value in STRANGERS:
        yield label, ["gpu1", value], not_found(noun)


def page_size() -> Values:
    yield "negative", -1, invalid("page_size")
    yield "the type's least", -INT32_MAX - 1, invalid("page_size")


def page_token(another: str, forged: str) -> Values:
    """`another`: of another list; `forged`: this list's, naming no place in it."""
    for label, value in (
        ("no base64", "?"),
        ("base64 of nothing of ours", "YWJj"),
        ("no ASCII", "ü"),
        ("NUL", "\0"),
        ("100 KiB", "QUFB" * 25 * 1024),
        ("traversal", "../../x"),
        ("of another list", another),
        ("forged", forged),
    ):
        if value:
            yield label, value, invalid("page_token")


def generation() -> Values:
    """The reservation's is 1."""
    for value in (0, 2, -1, INT64_MAX, -INT64_MAX - 1):
        yield f"generation {value}", value, STALE


def labels() -> Values:
    yield "one too many", {str(n): "" for n in range(65)}, invalid("labels")
    yield "ten thousand", {str(n): "" for n in range(10_000)}, invalid("labels")
    yield "a key too long", {"k" * 64: ""}, invalid("labels")
    yield "a key with NUL", {"k\0": ""}, invalid("labels")
    yield "a value too long", {"k": LONG}, invalid("labels[k]")
    yield "a value with an escape sequence", {"k": "\x1b[0m"}, invalid("labels[k]")
