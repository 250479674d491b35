"""The requests of a benchmark, against a server that does what a test tells it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from gpud.benchmarking.answers import RequestFailed
from gpud.benchmarking.benchmark import Level, Plan
from gpud.benchmarking.post import Poster
from gpud.benchmarking.runner import Runner
from gpud.benchmarking.statistics import Tally
from gpud.benchmarking.workload import Dialect
from gpud.clock import SystemClock
from gpud.engines.api_key import ApiKey
from gpud.models.model import EngineKind, ModelKind

SILENCE_SECONDS = 0.3
Write = Callable[[bytes], None]
Manner = Callable[[dict[str, Any], Write], Awaitable[None]]


def head(status: str, headers: str = "Transfer-Encoding: chunked") -> bytes:
    return f"HTTP/1.1 {status}\r\n{headers}\r\n\r\n".encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(told: Any) -> bytes:
    return chunk(b"data: " + msgspec.json.encode(told) + b"\n\n")


def usage(asked: dict[str, Any]) -> dict[str, Any]:
    words = asked["messages"][0]["content"].split()
    counted = {"prompt_tokens": 2 * len(words) + 5, "completion_tokens": asked["max_tokens"]}
    return {"choices": [], "usage": counted}


async def good(asked: dict[str, Any], write: Write) -> None:
    write(head("200 OK"))
    for _ in range(asked["max_tokens"]):
        write(event({"choices": [{"delta": {"content": "x"}}]}))
    write(event(usage(asked)) + chunk(b"data: [DONE]\n\n") + chunk(b""))


async def failing(asked: dict[str, Any], write: Write) -> None:
    write(head("500 No", "Content-Length: 10") + b"no \x1b[31mgo")


async def broken(asked: dict[str, Any], write: Write) -> None:
    write(head("200 OK") + event({"choices": [{"delta": {"content": "x"}}]}))


async def silent(asked: dict[str, Any], write: Write) -> None:
    write(head("200 OK") + event({"choices": [{"delta": {"content": "x"}}]}))
    await asyncio.Event().wait()


async def babbling(asked: dict[str, Any], write: Write) -> None:
    write(b"SSH-2.0-x\r\n")


@dataclass
class Server:
    """`manners`: of the requests from the first on; the last is that of all after it."""

    manners: list[Manner] = field(default_factory=lambda: [good])
    asked: list[dict[str, Any]] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    open_now: int = 0
    open_most: int = 0
    endpoint: str = ""

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_now += 1
        self.open_most = max(self.open_most, self.open_now)
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            length = int(self.heads[-1].partition(b"Content-Length: ")[2].split()[0])
            asked = msgspec.json.decode(await reader.readexactly(length))
            manner = self.manners[min(len(self.asked), len(self.manners) - 1)]
            self.asked.append(asked)
            await asyncio.sleep(0)
            await asyncio.wait(
                (
                    asyncio.ensure_future(manner(asked, writer.write)),
                    asyncio.ensure_future(reader.read()),
                ),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            self.open_now -= 1
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    listening = await asyncio.start_server(made.talk, "127.0.0.1", 0)
    made.endpoint = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with asyncio.timeout(60):
        yield made
    listening.close()


def runner(server: Server, told: list[tuple[int, int]] | None = None, **plan: Any) -> Runner:
    def note(tally: Tally, done: Any) -> None:
        if told is not None:
            told.append((tally.concurrency, tally.ended))

    asked: dict[str, Any] = {"prompts": 6, "prompt_tokens": 64, "output_tokens": 4, "warmup": 1}
    return Runner(
        poster=Poster(
            endpoint=server.endpoint,
            clock=SystemClock(),
            key=ApiKey("0123456789abcdef"),
            silence_seconds=SILENCE_SECONDS,
        ),
        dialect=Dialect(engine=EngineKind.LLAMA_CPP, kind=ModelKind.CHAT, model="tiny", salt="x"),
        plan=Plan(**(asked | plan)),
        on_progress=note,
    )


def kinds(level: Level) -> dict[str, int]:
    return {each.kind: each.count for each in level.errors}


async def test_every_level_sends_its_prompts_so_many_at_once(server: Server) -> None:
    told: list[tuple[int, int]] = []
    work = runner(server, told, concurrency=(1, 3))
    await work.warm_up()
    warm = len(server.asked)
    await work.measure()
    assert server.open_most == 3
    assert [(level.concurrency, level.requests, level.completed) for level in work.levels] == [
        (1, 6, 6), (3, 6, 6)
    ]  # fmt: skip
    for level in work.levels:
        assert (level.prompt_tokens, level.output_tokens, level.errors) == (6 * 65, 24, ())
        assert level.time_to_first_token is not None
    measured = server.asked[warm:]
    assert len({each["messages"][0]["content"] for each in measured}) == 12
    assert all(each["max_tokens"] == 4 for each in measured)
    assert all(b"Authorization: Bearer 0123456789abcdef\r\n" in each for each in server.heads)
    assert told[0] == (1, 0)
    assert told[-1] == (3, 6)
    assert work.output_tokens == sum(each["max_tokens"] for each in server.asked)


async def test_failures_are_counted_by_kind_and_the_run_goes_on(server: Server) -> None:
    work = runner(server, warmup=0, prompts=8)
    await work.warm_up()
    past: list[Manner] = [good] * len(server.asked)
    server.manners = [*past, good, failing, failing, broken, silent, babbling, good]
    await work.measure()
    (level,) = work.levels
    assert kinds(level) == {"HTTP 500": 2, "broken": 1, "timeout": 1, "invalid": 1}
    assert (level.requests, level.completed, level.error_ratio) == (8, 3, 5 / 8)
    assert [each.detail for each in level.errors if each.kind == "HTTP 500"] == ["no  [31mgo"]
    assert level.output_tokens == 12


async def test_nothing_that_listens_is_told_as_that() -> None:
    work = runner(Server(endpoint="http://127.0.0.1:1"), prompts=1)
    with pytest.raises(RequestFailed) as failed:
        await work.warm_up()
    assert failed.value.kind == "refused"
    await work.measure()
    assert kinds(work.levels[0]) == {"refused": 1}


async def test_one_that_is_cancelled_keeps_what_it_had_and_closes_what_is_open(
    server: Server,
) -> None:
    server.manners = [good, good, silent]
    seen = asyncio.Event()

    def note(tally: Tally, _: Any) -> None:
        if tally.ended == 2:
            seen.set()

    work = runner(server, concurrency=(2,), prompts=50)
    work.on_progress = note
    work.poster = Poster(endpoint=server.endpoint, clock=SystemClock())
    async with asyncio.TaskGroup() as tasks:
        measuring = tasks.create_task(work.measure())
        await seen.wait()
        while len(server.asked) < 4:  # noqa: ASYNC110 — two that say nothing
            await asyncio.sleep(0)
        measuring.cancel()
    (level,) = work.levels
    assert (level.requests, level.completed, kinds(level)) == (4, 2, {"cut": 2})
    while server.open_now:  # noqa: ASYNC110 — the server sees them go
        await asyncio.sleep(0)


async def test_a_server_that_counts_nothing_is_measured_all_the_same(server: Server) -> None:
    async def mute(asked: dict[str, Any], write: Write) -> None:
        write(head("200 OK", "X: y") + b'data: {"choices":[{"text":"a"}]}\n\ndata: [DONE]\n\n')

    server.manners = [mute]
    work = runner(server, warmup=0, prompts=2)
    await work.warm_up()
    assert len(server.asked) == 1
    await work.measure()
    (level,) = work.levels
    assert (level.completed, level.prompt_tokens, level.tokens_per_second) == (2, None, None)
    assert level.request_latency is not None


async def test_only_this_host_is_spoken_to() -> None:
    with pytest.raises(ValueError, match="loopback"):
        await runner(Server(endpoint="http://192.0.2.1:80")).warm_up()
