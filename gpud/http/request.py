"""Pure: the head of an HTTP/1 request, out of bytes that a stranger sends, and the answer's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import unquote, urlsplit

# Whoever reads metrics sends some 300 bytes.
MAX_HEAD_BYTES = 8 * 1024
# An empty line ends it. Who types a request by hand ends lines with LF alone.
_END = re.compile(rb"\r?\n\r?\n")
# RFC 9112, 3: a method, a target without blanks, a version.
_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]{1,4096}) HTTP/1\.([01])")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00\r\n]*)")
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A GET or HEAD. `path` is decoded, without its query."""

    path: str
    is_head: bool = False
    keeps_alive: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is sent back."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    kind: str = TEXT
    allow: str = ""  # the methods that there are, where another was asked for


def text(told: str, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    """An answer for a person: a line or several."""
    return Answer(body=f"{told}\n".encode(), status=status)


def head_end(received: bytearray, start: int) -> int | None:
    """Where the head ends that is being received, looked for from `start` on; None: not yet."""
    # It may have begun in what was looked through already.
    found = _END.search(received, max(0, start - 3))
    return found.end() if found else None


def parse(head: bytes) -> Request | Answer:
    """The request, or why it gets none; after such an answer the connection ends."""
    lines = head.rstrip(b"\r\n").replace(b"\r\n", b"\n").split(b"\n")
    first = _LINE.fullmatch(lines[0])
    if first is None:
        return text("cannot read this: it is no HTTP/1 request", HTTPStatus.BAD_REQUEST)
    method, target, minor = first.groups()
    fields: dict[bytes, bytes] = {}
    for line in lines[1:]:
        field = _FIELD.fullmatch(line)
        if field is None:
            return text("cannot read this: one of its lines is no field", HTTPStatus.BAD_REQUEST)
        fields[field[1].lower()] = field[2].strip().lower()
    refusal = _refusal(method, fields)
    if refusal is not None:
        return refusal
    wish = fields.get(b"connection", b"keep-alive" if minor == b"1" else b"close")
    return Request(
        path=unquote(urlsplit(target.decode("ascii")).path, errors="replace"),
        is_head=method == b"HEAD",
        keeps_alive=b"keep-alive" in wish,
    )


def _refusal(method: bytes, fields: dict[bytes, bytes]) -> Answer | None:
    if method not in (b"GET", b"HEAD"):
        told = "cannot do that here: pages are only read (GET, HEAD); gpuctl changes things"
        return Answer(
            body=f"{told}\n".encode(), status=HTTPStatus.METHOD_NOT_ALLOWED, allow="GET, HEAD"
        )
    if b"transfer-encoding" in fields or fields.get(b"content-length", b"0") != b"0":
        told = "cannot take a body with that; send none"
        return text(told, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    return None


def response(answer: Answer, *, is_head: bool, keeps_alive: bool) -> bytes:
    """All that goes over the wire."""
    status = answer.status
    allow = f"Allow: {answer.allow}\r\n" if answer.allow else ""
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        f"Content-Type: {answer.kind}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        f"{allow}Cache-Control: no-store\r\n"
        f"Connection: {'keep-alive' if keeps_alive else 'close'}\r\n\r\n"
    )
    return head.encode("ascii") + (b"" if is_head else answer.body)
