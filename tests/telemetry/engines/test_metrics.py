"""Engines read round after round: what they tell, and those that lie, hang or never end.

The servers are real sockets, asked by the real engine over the real probe.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gpud.benchmarking.benchmarks import Benchmarks
from gpud.engines.api_key import ApiKey
from gpud.engines.counting.counters import Counters
from gpud.engines.engine import Pulse
from gpud.engines.llama.engine import LlamaCpp
from gpud.engines.probe import HttpProbe
from gpud.instances.instance import Instance, InstanceState
from gpud.instances.terms import LoadTerms
from gpud.settings import EngineMetrics as Settings
from gpud.settings import Span
from gpud.telemetry.engines.metrics import EngineMetrics
from gpud.telemetry.engines.reading import EngineReading
from tests.fakes.cards import sample
from tests.instances.health.test_keeping import after, fallen, rounds, up_again
from tests.instances.town import PATIENCE_SECONDS, ToldEngine, Town, town

READY = InstanceState.READY
TOLD = (
    "llamacpp:requests_processing 1\nllamacpp:requests_deferred 0\n"
    "llamacpp:tokens_predicted_total {tokens}\n"
)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n"


class Server:
    """Answers /metrics with `tokens`, or with the manners it is given; `asked` counts."""

    def __init__(self) -> None:
        self.tokens = 100.0
        self.manner = ""
        self.asked = 0
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            await getattr(self, f"_{self.manner}" if self.manner else "_well")(writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # it was left, as it should be
        finally:
            writer.close()

    async def _well(self, writer: asyncio.StreamWriter) -> None:
        body = TOLD.format(tokens=self.tokens).encode()
        writer.write(HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))

    async def _garbage(self, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"\r\n<html>\0\xff\xfe llamacpp:requests_processing one\n" * 50)

    async def _missing(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone")

    async def _silent(self, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async def _endless(self, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"\r\n")
        while True:
            writer.write(b"llamacpp:requests_processing 1\n" * 4096)
            await writer.drain()

    async def _cut(self, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Content-Length: 5000\r\n\r\nllamacpp:requests_pro")


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    made = Server()
    server = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    server.close()


class Asked(ToldEngine):
    """An engine whose counters are those of a server, by instance; the rest is told."""

    def __init__(self, servers: dict[str, Server]) -> None:
        super().__init__()
        self._real = LlamaCpp("llama-server", HttpProbe())
        self._servers = servers

    async def counters(self, endpoint: str, key: ApiKey | None = None) -> Counters | None:
        return await self._real.counters(self._servers[endpoint].url, key)


class Place:
    """A town whose engines are servers here, and who reads them."""

    def __init__(self, town: Town, server: Server) -> None:
        self.town, self.server = town, server
        self.servers: dict[str, Server] = {}
        self.engine = Asked(self.servers)
        town.engine = self.engine
        town.house.engines = {self.engine.kind: self.engine}
        self.metrics = self.reader()

    def reader(self, interval: float = 5.0) -> EngineMetrics:
        benchmarks = Benchmarks(self.town.house, self.town.roster)
        settings = Settings(interval=Span(interval))
        return EngineMetrics(settings, self.town.house, self.town.roster, benchmarks)

    async def load(self, server: Server | None = None) -> Instance:
        id_ = await self.town.load(LoadTerms(devices=("U-gpu0",)))
        made = await self.town.until(id_, READY)
        self.servers[made.endpoint] = server or self.server
        return made

    async def look(self, made: Instance, tokens: float | None = None) -> EngineReading:
        """After five seconds more."""
        if tokens is not None:
            self.server.tokens = tokens
        self.town.clock.advance(5.0)
        self.town.show()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.metrics.look()
        return self.metrics.newest[made.id]


@pytest.fixture
async def place(tmp_path: Path, tiny_model: Path) -> AsyncIterator[Place]:
    async with town(tmp_path, tiny_model, (sample(0),)) as made, serving() as server:
        yield Place(made, server)


async def test_rates_are_of_what_was_read_one_after_the_other(place: Place) -> None:
    made = await place.load()
    first = await place.look(made, 100)
    assert (first.running, first.slots, first.slots_full) == (1, 1, True)
    assert (first.generated_tokens_total, first.generated_tokens_per_second) == (100, None)
    second = await place.look(made, 350)
    assert second.generated_tokens_per_second == 50
    assert second.boottime == place.town.clock.boottime
    assert second.wall == pytest.approx(place.town.clock.wall)
    round_ = place.metrics.rounds.latest
    assert round_ is not None
    assert round_.readings == (second,)


@pytest.mark.parametrize(
    ("manner", "said"),
    [
        ("missing", "status: 404 none"),
        ("silent", "timeout: no whole answer within 1 s"),
        ("endless", "broken: an answer of more than 4194304 bytes"),
        ("cut", "broken: "),
    ],
)
async def test_of_one_that_does_not_answer_the_last_stays_and_why_is_told(
    place: Place, manner: str, said: str
) -> None:
    made = await place.load()
    before = await place.look(made, 100)
    place.server.manner = manner
    told = await place.look(made)
    assert said in told.problem
    assert (told.generated_tokens_total, told.boottime) == (100, before.boottime)
    place.server.manner = ""
    again = await place.look(made, 300)
    assert (again.problem, again.generated_tokens_per_second) == ("", 20)


async def test_of_one_that_never_answered_nothing_is_known_but_why(place: Place) -> None:
    made = await place.load()
    place.server.manner = "missing"
    told = await place.look(made)
    assert "404" in told.problem
    assert (told.running, told.generated_tokens_total) == (None, None)
    assert told.load_seconds == made.load_seconds


async def test_garbage_is_no_counter(place: Place) -> None:
    made = await place.load()
    place.server.manner = "garbage"
    told = await place.look(made)
    assert "none of the counters" in told.problem
    assert told.running is None


async def test_counters_that_go_backwards_have_no_rate_until_they_grow(place: Place) -> None:
    made = await place.load()
    for tokens in (1000, 900, 800):
        told = await place.look(made, tokens)
        assert told.generated_tokens_per_second is None
    assert (await place.look(made, 850)).generated_tokens_per_second == 10


async def test_one_that_hangs_keeps_no_other_from_being_read(place: Place) -> None:
    async with serving() as hanging:
        hanging.manner = "silent"
        stuck, made = await place.load(hanging), await place.load()
        told = await place.look(made, 100)
        assert (told.problem, told.generated_tokens_total) == ("", 100)
        assert "timeout" in place.metrics.newest[stuck.id].problem


async def test_what_its_watch_saw_since_is_not_asked_for_again(place: Place) -> None:
    made = await place.load()
    place.engine.told = Pulse(
        running=0, waiting=0, progress=1.0, counters=Counters(running=0, generated_tokens=7)
    )
    await after(place.town, 6.0)
    await place.metrics.look()
    assert place.metrics.newest[made.id].generated_tokens_total == 7
    assert place.server.asked == 0
    await place.metrics.look()
    assert place.server.asked == 1, "its watch has not looked since"


async def test_beside_a_benchmark_nobody_is_asked(place: Place) -> None:
    made = await place.load()
    first = await place.look(made, 100)
    place.town.house.quiet.hold(made.devices)
    assert await place.look(made, 300) == first
    place.town.house.quiet.release(made.devices)
    assert (await place.look(made)).generated_tokens_per_second == 20
    assert place.server.asked == 2


async def test_a_new_process_is_counted_from_nothing(place: Place) -> None:
    made = await place.load()
    await place.look(made, 100)
    await place.look(made, 200)
    await fallen(place.town, made)
    await after(place.town, 1.0)
    again = await up_again(place.town, made)
    place.servers[again.endpoint] = place.server
    first = await place.look(made, 300)
    assert (first.generated_tokens_per_second, first.restarts) == (None, 1)
    assert (await place.look(made, 400)).generated_tokens_per_second == 20


async def test_what_is_unloaded_is_told_no_more(place: Place) -> None:
    made = await place.load()
    await place.look(made, 100)
    place.town.roster.stop_all("anna", 0.0)
    await place.town.until(made.id, InstanceState.STOPPED)
    await place.metrics.look()
    assert place.metrics.newest == {}
    round_ = place.metrics.rounds.latest
    assert round_ is not None
    assert round_.readings == ()


async def test_rounds_go_on_at_their_interval_and_none_at_none(place: Place) -> None:
    await place.load()
    reader = place.reader(interval=5.0)
    running = asyncio.ensure_future(reader.run())
    told = reader.rounds.follow()
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert (await anext(told))[0] == 1
        await rounds(place.town)
        place.town.clock.advance(5.0)
        assert (await anext(told))[0] == 2
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await place.reader(interval=0.0).run()
