"""What is made of the head of a request, byte by byte."""

from __future__ import annotations

from http import HTTPStatus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpud.http.request import Answer, Request, head_end, parse, response, text

REQUESTS = [
    (b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n", Request(path="/metrics")),
    (b"HEAD / HTTP/1.1\r\n\r\n", Request(path="/", is_head=True)),
    (b"GET /healthz HTTP/1.0\r\n\r\n", Request(path="/healthz", keeps_alive=False)),
    (b"GET /a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", Request(path="/a")),
    (b"GET /a HTTP/1.1\r\nconnection: close\r\n\r\n", Request(path="/a", keeps_alive=False)),
    (b"GET /healthz HTTP/1.1\n\n", Request(path="/healthz")),
    (b"GET /metrics?x=/sd HTTP/1.1\r\n\r\n", Request(path="/metrics")),
    (b"GET http://h:1/metrics HTTP/1.1\r\n\r\n", Request(path="/metrics")),
    (b"GET /metrics/a%20b HTTP/1.1\r\n\r\n", Request(path="/metrics/a b")),
    (b"GET /%ff HTTP/1.1\r\n\r\n", Request(path="/\ufffd")),
    (b"GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", Request(path="/")),
    (b"GET / HTTP/1.1\r\nX:\r\n\r\n", Request(path="/")),
]
REFUSALS = [
    (b"POST /metrics HTTP/1.1\r\n\r\n", 405),
    (b"DELETE / HTTP/1.1\r\n\r\n", 405),
    (b"GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\n", 413),
    (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 413),
    (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 413),
    (b"GET / HTTP/2\r\n\r\n", 400),
    (b"GET /a b HTTP/1.1\r\n\r\n", 400),
    (b"GET /\x00 HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nno field\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nbad name: 1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n folded: 1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\na: \x00\r\n\r\n", 400),
    (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
    (b"PRI * HTTP/2.0\r\n\r\n", 400),
    (b"\r\n\r\n", 400),
]


@pytest.mark.parametrize(("head", "request_"), REQUESTS)
def test_what_is_asked(head: bytes, request_: Request) -> None:
    assert parse(head) == request_


@pytest.mark.parametrize(("head", "status"), REFUSALS)
def test_what_is_refused(head: bytes, status: int) -> None:
    answer = parse(head)
    assert isinstance(answer, Answer)
    assert answer.status == status
    assert answer.body.startswith(b"cannot ")


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_whatever_comes_is_a_request_or_a_refusal(noise: bytes) -> None:
    assert isinstance(parse(noise + b"\r\n\r\n"), (Request, Answer))


@given(st.integers(min_value=0, max_value=40))
def test_an_end_is_found_however_the_head_came(split: int) -> None:
    head = b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n"
    received = bytearray(head[:split])
    assert head_end(received, 0) == (len(head) if split >= len(head) else None)
    received += head[split:] + b"GET"
    assert head_end(received, min(split, len(head))) == len(head)


def test_an_answer_as_it_goes_over_the_wire() -> None:
    found = Answer(body=b"a 1\n", kind="text/plain; version=0.0.4")
    assert response(found, is_head=False, keeps_alive=True) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: 4\r\n"
        b"Cache-Control: no-store\r\nConnection: keep-alive\r\n\r\na 1\n"
    )
    gone = text("no", HTTPStatus.NOT_FOUND)
    assert response(gone, is_head=True, keeps_alive=False) == (
        b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 3\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )


def test_another_method_is_told_those_that_there_are() -> None:
    answer = parse(b"PUT / HTTP/1.1\r\n\r\n")
    assert isinstance(answer, Answer)
    assert b"\r\nAllow: GET, HEAD\r\n" in response(answer, is_head=False, keeps_alive=False)
