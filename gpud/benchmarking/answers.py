"""Pure: the answer to one request as it comes, part by part: server-sent events, or one object."""

from __future__ import annotations

from array import array
from typing import Any

import msgspec

from gpud.benchmarking.statistics import Timing

# Of one event, or of an answer that is not streamed: an embedding for each of 10 000 tokens is
# some 100 MiB of text, and nobody's benchmark.
MAX_EVENT_BYTES = 16 * 1024 * 1024
_DETAIL_CHARS = 200
REFUSED = "refused"  # kind of a request that was not even taken


class RequestFailed(Exception):
    """A request had no whole answer. `kind` is what failures are counted by."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = "".join(c if c.isprintable() else " " for c in detail)[:_DETAIL_CHARS]


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


class _Whole(msgspec.Struct):
    """What is not streamed; the vectors and scores in it are passed over."""

    usage: _Usage | None = None
    error: Any = None


_EVENTS = msgspec.json.Decoder(_Event)
_WHOLES = msgspec.json.Decoder(_Whole)


class Streamed:
    """The events of a completion. Moments are seconds of the caller's one clock."""

    def __init__(self, sent: float) -> None:
        self._sent = sent
        self._rest = b""
        self._first: float | None = None
        self._last: float | None = None
        self._gaps: array[float] = array("d")
        self._usage = _Usage()
        self._done = False

    def take(self, part: bytes, now: float) -> None:
        """Some bytes of the body. Raises RequestFailed."""
        *lines, self._rest = (self._rest + part).split(b"\n")
        if len(self._rest) > MAX_EVENT_BYTES:
            raise RequestFailed("invalid", f"an event of more than {MAX_EVENT_BYTES} bytes")
        for line in lines:
            name, _, data = line.strip().partition(b":")
            if name == b"data":
                self._take_event(data.strip(), now)
            elif name == b"error":  # older llama-servers
                raise RequestFailed("invalid", data.decode(errors="replace"))

    def end(self, now: float) -> Timing:
        """The body is over. Raises RequestFailed where the stream was not."""
        if not self._done:
            raise RequestFailed("broken", "the stream ended before its end")
        return Timing(
            sent=self._sent,
            ended=now,
            first=self._first,
            last=self._last,
            gaps=self._gaps,
            prompt_tokens=self._usage.prompt_tokens,
            output_tokens=self._usage.completion_tokens,
        )

    def _take_event(self, data: bytes, now: float) -> None:
        if data == b"[DONE]":
            self._done = True
            return
        event = _decoded(_EVENTS, data)
        self._usage = event.usage or self._usage
        if any(map(_has_token, event.choices or ())):
            if self._last is None:
                self._first = now
            else:
                self._gaps.append(now - self._last)
            self._last = now


class Whole:
    """An answer in one piece: an embedding, or a ranking."""

    def __init__(self, sent: float) -> None:
        self._sent = sent
        self._body = bytearray()

    def take(self, part: bytes, _now: float) -> None:
        """Some bytes of the body. Raises RequestFailed."""
        self._body += part
        if len(self._body) > MAX_EVENT_BYTES:
            raise RequestFailed("invalid", f"an answer of more than {MAX_EVENT_BYTES} bytes")

    def end(self, now: float) -> Timing:
        """The body is over. Raises RequestFailed where it is no answer."""
        body = bytes(self._body)
        # llama-server's own form is a list, without a count.
        told = _Whole() if body.lstrip()[:1] == b"[" else _decoded(_WHOLES, body)
        usage = told.usage or _Usage()
        return Timing(sent=self._sent, ended=now, prompt_tokens=usage.prompt_tokens)


def _decoded(decoder: msgspec.json.Decoder[Any], data: bytes) -> Any:
    try:
        told = decoder.decode(data)
    except msgspec.DecodeError as error:
        raise RequestFailed("invalid", str(error)) from error
    if told.error:
        raise RequestFailed("invalid", str(told.error))
    return told


def _has_token(choice: _Choice) -> bool:
    delta = choice.delta or _Delta()
    return bool(choice.text or delta.content or delta.reasoning_content or delta.reasoning)
