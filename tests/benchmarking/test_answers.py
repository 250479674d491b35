"""Answers as they come, cut anywhere."""

from __future__ import annotations

import pytest

from gpud.benchmarking.answers import MAX_EVENT_BYTES, RequestFailed, Streamed, Whole
from gpud.benchmarking.statistics import Timing

STREAM = (
    b'data: {"choices":[{"delta":{"role":"assistant","content":null}}]}\n\n'
    b'data: {"choices":[{"delta":{"content":"one"}}]}\n\n'
    b": a comment\n"
    b'data: {"choices":[{"delta":{"reasoning_content":"two"}}]}\r\n\r\n'
    b'data: {"choices":[{"text":"three"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}\n\n'
    b"data: [DONE]\n\n"
)


def taken(parts: list[bytes]) -> Timing:
    """The parts, a second apart from 1 on."""
    answer = Streamed(0.0)
    for now, part in enumerate(parts, 1):
        answer.take(part, float(now))
    return answer.end(99.0)


def test_the_moments_are_those_of_pieces_with_text() -> None:
    told = taken(STREAM.splitlines(keepends=True))
    assert (told.first, told.last, list(told.gaps)) == (3.0, 8.0, [3.0, 2.0])
    assert (told.prompt_tokens, told.output_tokens, told.ended) == (7, 3, 99.0)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_where_a_stream_is_cut_is_of_no_matter(size: int) -> None:
    parts = [STREAM[at : at + size] for at in range(0, len(STREAM), size)]
    told = taken(parts)
    assert (told.prompt_tokens, told.output_tokens, len(told.gaps)) == (7, 3, 2)


@pytest.mark.parametrize(
    ("body", "kind", "detail"),
    [
        (b"", "broken", "before its end"),
        (STREAM.replace(b"data: [DONE]\n\n", b""), "broken", "before its end"),
        (b"data: {not json}\n\n", "invalid", "malformed"),
        (b'data: {"choices": 3}\n\n', "invalid", "Expected"),
        (b'data: {"error": {"message": "no slot"}}\n\n', "invalid", "no slot"),
        (b'error: {"message": "no slot\x1b[2J"}\n\n', "invalid", "no slot"),
        (b"data: " + b"x" * (MAX_EVENT_BYTES + 1), "invalid", "more than"),
    ],
)
def test_a_stream_that_is_none_is_told_by_kind(body: bytes, kind: str, detail: str) -> None:
    with pytest.raises(RequestFailed, match=detail) as failed:
        taken([body])
    assert failed.value.kind == kind
    assert failed.value.detail.isprintable()


def whole(body: bytes) -> Timing:
    answer = Whole(1.0)
    answer.take(body[:5], 2.0)
    answer.take(body[5:], 3.0)
    return answer.end(4.0)


def test_an_answer_in_one_piece_has_its_latency_alone() -> None:
    told = whole(b'{"data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":5}}')
    assert (told.latency, told.to_first, told.prompt_tokens) == (3.0, None, 5)
    assert whole(b'[{"index":0,"embedding":[[0.1]]}]').prompt_tokens is None


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"error": "no"}', b'"text"'])
def test_what_is_no_answer_is_told(body: bytes) -> None:
    with pytest.raises(RequestFailed) as failed:
        whole(body)
    assert failed.value.kind == "invalid"
