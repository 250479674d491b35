"""Pure: HTTP/2 as bytes, made by hand: a client of a library would not misbehave."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES = 9
# Nobody has to take a larger frame; headers that need more go on in CONTINUATION.
MOST_BYTES = 16_384
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
CANCEL = 8
ENHANCE_YOUR_CALM = 11


class Kind(IntEnum):
    """What a frame is (RFC 9113, section 6)."""

    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One of them, as it came."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def error_code(self) -> int:
        """Of a GOAWAY."""
        return int.from_bytes(self.payload[4:8])


def frame(kind: Kind, payload: bytes = b"", *, stream: int = 0, flags: int = 0) -> bytes:
    return b"".join((len(payload).to_bytes(3), bytes((kind, flags)), stream.to_bytes(4), payload))


def opening(stream: int, path: str, metadata: Sequence[tuple[str, str]] = ()) -> bytes:
    """The headers of a call; its message is still to come."""
    fields = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *metadata,
    )
    block = b"".join(_literal(name, value) for name, value in fields)
    pieces = [block[at : at + MOST_BYTES] for at in range(0, len(block), MOST_BYTES)]
    kinds = [Kind.HEADERS, *[Kind.CONTINUATION] * (len(pieces) - 1)]
    return b"".join(
        frame(kind, piece, stream=stream, flags=END_HEADERS if piece is pieces[-1] else 0)
        for kind, piece in zip(kinds, pieces, strict=True)
    )


def message(stream: int, body: bytes = b"") -> bytes:
    """The one message of a call, and its end; of one frame."""
    prefixed = b"\0" + len(body).to_bytes(4) + body
    return frame(Kind.DATA, prefixed, stream=stream, flags=END_STREAM)


def reset(stream: int) -> bytes:
    return frame(Kind.RST_STREAM, CANCEL.to_bytes(4), stream=stream)


def ping(number: int) -> bytes:
    return frame(Kind.PING, number.to_bytes(8))


def endless(stream: int, path: str) -> Iterator[bytes]:
    """Headers that say of no frame that it is the last one, each frame full of new names."""
    first = bytearray(opening(stream, path))
    first[4] &= ~END_HEADERS
    yield bytes(first)
    number = 0
    while True:
        block = bytearray()
        while len(block) < MOST_BYTES - 128:
            block += _literal(f"x-{number}", "v" * 64)
            number += 1
        yield frame(Kind.CONTINUATION, bytes(block), stream=stream)


def answer_to(came: Frame) -> bytes:
    """The acknowledgement that it asks for; of others nothing."""
    if came.kind not in {Kind.SETTINGS, Kind.PING} or came.flags & ACK:
        return b""
    payload = came.payload if came.kind == Kind.PING else b""
    return frame(Kind(came.kind), payload, flags=ACK)


def taken(buffer: bytearray) -> Iterator[Frame]:
    """The frames that are there as a whole, taken out of the buffer."""
    while len(buffer) >= HEAD_BYTES:
        end = HEAD_BYTES + int.from_bytes(buffer[:3])
        if len(buffer) < end:
            return
        yield Frame(
            kind=buffer[3],
            flags=buffer[4],
            stream=int.from_bytes(buffer[5:HEAD_BYTES]),
            payload=bytes(buffer[HEAD_BYTES:end]),
        )
        del buffer[:end]


def _literal(name: str, value: str) -> bytes:
    """A header that no table is needed for (RFC 7541, section 6.2.2)."""
    return b"\0" + _text(name) + _text(value)


def _text(text: str) -> bytes:
    data = text.encode()
    return _number(len(data)) + data


def _number(value: int) -> bytes:
    """With a prefix of 7 bits (RFC 7541, section 5.1)."""
    if value < 127:
        return bytes((value,))
    out, rest = bytearray((127,)), value - 127
    while rest >= 128:
        out.append(rest % 128 + 128)
        rest //= 128
    out.append(rest)
    return bytes(out)
