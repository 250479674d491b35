"""Who attacks a listener costs others nothing, and the daemon neither memory nor descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import grpc
import pytest

from gpud.access.budgets import MAX_STREAMS, OWNERS_PART
from gpud.rpc.server import (
    MAX_CONNECTIONS,
    MAX_MESSAGE_BYTES,
    MAX_STREAMS_PER_CONNECTION,
    connections_of_each,
)
from gpud.v1 import node_pb2
from tests.access.abuse.attacker import Attacker, Wire, attacking, certified, over_socket, over_tls
from tests.access.abuse.crowd import crowd
from tests.access.abuse.footprint import MIB, Attack, Footprint, answer, pid_of, under
from tests.access.abuse.frames import (
    ENHANCE_YOUR_CALM,
    PREFACE,
    Kind,
    endless,
    frame,
    message,
    opening,
    ping,
    reset,
)
from tests.access.fleet import Fleet, fleet
from tests.proof.record import PROVING, asked
from tests.running import Api, Refusal, refusal_of

pytestmark = [pytest.mark.proof, pytest.mark.timeout(300)]

GET = "/gpud.v1.NodeService/GetNode"
WATCH = "/gpud.v1.NodeService/WatchEvents"
SETTINGS = frame(Kind.SETTINGS)
ACKNOWLEDGED = frame(Kind.SETTINGS, flags=1)
# The daemon alone holds some 70 MiB. What is freed of a burst stays in part with the allocator.
RESETS_GROWTH = 32 * MIB
OPEN_GROWTH = 96 * MIB
LISTENERS = 4  # of the fleet
AT_ONCE = 50  # connections, between two looks
# How long an end is waited for that is due: of a handshake after 5 s, of a keepalive after 80 s.
PATIENCE_SECONDS = 60.0
DEAF_SECONDS = 80.0 + 15.0

SHARE = MAX_STREAMS // OWNERS_PART  # of one owner

Resets = Callable[[int], bytes]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("fleet")) as made:
        yield made


async def wire_to(place: Fleet, way: str) -> Wire:
    if way == "tls":
        return await over_tls(place.port, certified(place.folder, "watcher"))
    return await over_socket(place.socket("viewer"))


# Calls.


@pytest.mark.parametrize(
    ("way", "what", "one"),
    [
        ("socket", "opened", lambda stream: opening(stream, GET) + reset(stream)),
        ("socket", "asked", lambda s: opening(s, WATCH) + message(s) + reset(s)),
        ("tls", "asked", lambda s: opening(s, WATCH) + message(s) + reset(s)),
    ],
    ids=["opened", "asked", "asked over TLS"],
)
async def test_rapid_resets(place: Fleet, way: str, what: str, one: Resets) -> None:
    attack = Attack(
        name=f"R13 rapid resets of calls {what}, {way}: resets",
        asked=asked(2_000, 20_000),
        most_growth_bytes=RESETS_GROWTH,
    )
    async with under(place, attack), attacking(await wire_to(place, way)) as attacker:
        for number in range(attack.asked):
            if not await attacker.send(one(2 * number + 1)):
                break
            attack.done += 1
        await attacker.finish(2 * attack.asked + 1, GET)


async def half_open(place: Fleet, attack: Attack, wire: Wire, count: int, part: bytes) -> None:
    """So many calls whose message never comes whole; done are those that the daemon ended."""
    async with attacking(wire) as attacker:
        for number in range(count):
            stream = 2 * number + 1
            sent = opening(stream, GET) + frame(Kind.DATA, part, stream=stream)
            if not await attacker.send(sent):
                break
        async with asyncio.timeout(PATIENCE_SECONDS):
            await attacker.until(lambda: len(attacker.ended) >= count)
        attack.done += len(attacker.ended)


async def test_half_open_calls_of_a_stranger_keep_nobody_out(place: Fleet) -> None:
    """A certificate without a role: 5000 calls are more than may be under way in all."""
    each, connections = asked(200, 1000), 5
    attack = Attack(
        name="R13 calls without their message, of a stranger: ended",
        asked=each * connections,
        most_growth_bytes=OPEN_GROWTH,
    )
    stranger = certified(place.folder, "nobody")
    async with under(place, attack), asyncio.TaskGroup() as tasks:
        for _ in range(connections):
            wire = await over_tls(place.port, stranger)
            tasks.create_task(half_open(place, attack, wire, each, b""))


async def test_half_open_calls_of_an_operator_keep_nobody_else_out(place: Fleet) -> None:
    """Messages of 256 KiB, of which 1 KiB comes: each has 5 s, and one owner so many places."""
    part = b"\0" + MAX_MESSAGE_BYTES.to_bytes(4) + bytes(1024)
    attack = Attack(
        name="R13 calls with a part of their message, of an operator: ended",
        asked=asked(400, 1000),
        most_growth_bytes=OPEN_GROWTH,
    )
    async with under(place, attack):
        wire = await over_tls(place.port, certified(place.folder, "anna"))
        await half_open(place, attack, wire, attack.asked, part)


async def test_streams_have_an_end_that_calls_do_not_feel(place: Fleet) -> None:
    attack = Attack(
        name=f"R13 streams of one client, {SHARE} may be open: streams",
        asked=asked(SHARE + 200, 5_000),
        most_growth_bytes=OPEN_GROWTH,
    )
    outcomes: list[Refusal | None] = []
    connections = -(-attack.asked // MAX_STREAMS_PER_CONNECTION)
    async with under(place, attack) as admin, contextlib.AsyncExitStack() as stack:
        apis = [await stack.enter_async_context(alone(place)) for _ in range(connections)]
        for first in range(0, attack.asked, 256):
            several = range(first, min(first + 256, attack.asked))
            async with asyncio.TaskGroup() as tasks:
                opened = [
                    tasks.create_task(watched(apis[number % connections], stack))
                    for number in several
                ]
            outcomes += [each.result() for each in opened]
        attack.done = len(outcomes)
        await answer(admin)
        await answer(apis[0])
    refusals = [each for each in outcomes if each is not None]
    assert len(refusals) == attack.asked - SHARE
    assert {(each.code, each.reason) for each in refusals} == {
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
    }
    assert f"viewer has {SHARE} open" in refusals[0].message


@contextlib.asynccontextmanager
async def alone(place: Fleet) -> AsyncIterator[Api]:
    """Over a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    address = f"unix:{place.socket('viewer')}"
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield Api(channel)


async def watched(api: Api, stack: contextlib.AsyncExitStack) -> Refusal | None:
    """A stream that stays until the stack ends, or why there is none."""
    stream = api.node.WatchEvents(node_pb2.WatchEventsRequest(after_sequence=0))
    stack.callback(stream.cancel)
    try:
        assert await stream.read() is not grpc.aio.EOF
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    return None


@pytest.mark.parametrize(
    ("size", "code"), [(MAX_MESSAGE_BYTES, "OK"), (MAX_MESSAGE_BYTES + 1, "RESOURCE_EXHAUSTED")]
)
async def test_a_message_of_more_than_256_kib(place: Fleet, size: int, code: str) -> None:
    # One field that the message does not have: its tag, the length in three bytes, the field.
    length = size - 5
    head = bytes((0xC2, 0x3E, length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14))
    async with place.local("viewer") as channel:
        assert await code_of(channel, head + bytes(length)) == code


@pytest.mark.parametrize(
    ("size", "code"),
    [(7_000, "OK"), (17_000, "RESOURCE_EXHAUSTED"), (10**6, "RESOURCE_EXHAUSTED")],
)
async def test_metadata_of_more_than_16_kib(place: Fleet, size: int, code: str) -> None:
    async with place.local("viewer") as channel:
        assert await code_of(channel, b"", (("x-much", "v" * size),)) == code
        assert await code_of(channel, b"") == "OK"


async def code_of(
    channel: grpc.aio.Channel, body: bytes, metadata: tuple[tuple[str, str], ...] = ()
) -> str:
    call = channel.unary_unary(GET)(body, metadata=metadata)
    return str((await call.code()).name)


async def test_headers_without_end(place: Fleet) -> None:
    attack = Attack(
        name="R13 headers without end: bytes",
        asked=asked(4 * MIB, 64 * MIB),
        most_growth_bytes=RESETS_GROWTH,
    )
    async with under(place, attack), attacking(await wire_to(place, "socket")) as attacker:
        sent = 0
        for each in endless(1, GET):
            if sent >= attack.asked or not await attacker.send(each):
                break
            sent += len(each)
        attack.done = attack.asked  # to its end, or until it was thrown out
        assert Footprint.of(pid_of(place)).resident_bytes < 256 * MIB


# Connections.


async def test_a_ping_flood_ends_its_connection(place: Fleet) -> None:
    attack = Attack(
        name="R13 ping floods: connections ended",
        asked=asked(20, 200),
        most_growth_bytes=RESETS_GROWTH,
    )
    async with under(place, attack):
        for number in range(attack.asked):
            async with attacking(await wire_to(place, "tls" if number % 2 else "socket")) as each:
                await flood(each)
                attack.done += each.closed
                if each.goaway is None or each.goaway.error_code != ENHANCE_YOUR_CALM:
                    attack.fail(f"told {each.goaway}")


async def flood(attacker: Attacker) -> None:
    """A ping as soon as the one before is answered: a handful of them will do."""
    for number in range(100):
        if not await attacker.send(ping(number)):
            break
        await attacker.until(lambda wanted=number: attacker.came[Kind.PING] > wanted)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await attacker.until(lambda: False)


async def test_who_says_nothing_or_half_of_it_is_closed(place: Fleet) -> None:
    hello = bytes.fromhex("1603010200010001fc0303")
    starts = {
        "nothing": ("tcp", b""),
        "half a TLS hello": ("tcp", hello),
        "nothing inside TLS": ("tls", b""),
        "half a preface inside TLS": ("tls", PREFACE[:10]),
        "nothing at a socket": ("socket", b""),
        "half a preface": ("socket", PREFACE[:10]),
        "half a frame": ("socket", PREFACE + SETTINGS[:5]),
    }
    each = asked(20, 120)
    attack = Attack(
        name="R13 slowloris: connections closed in their handshake",
        asked=each * len(starts),
        most_growth_bytes=OPEN_GROWTH,
    )
    async with under(place, attack), asyncio.TaskGroup() as tasks:
        for _ in range(each):
            for way, start in starts.values():
                tasks.create_task(linger(place, way, start, attack))


async def linger(
    place: Fleet, way: str, start: bytes, attack: Attack, seconds: float = PATIENCE_SECONDS
) -> None:
    """Until the server closes."""
    if way == "tcp":
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    else:
        reader, writer = await wire_to(place, way)
    writer.write(start)
    try:
        async with asyncio.timeout(seconds):
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                while await reader.read(4096):
                    pass
        attack.done += 1
    except TimeoutError:
        attack.fail(f"still open: {way}, {start!r}")
    finally:
        writer.transport.abort()


@pytest.mark.skipif(not PROVING, reason="a keepalive is asked for after a minute: in `make prove`")
async def test_who_answers_no_keepalive_is_closed(place: Fleet) -> None:
    attack = Attack(
        name="R13 deaf connections: closed by keepalive",
        asked=3,
        most_growth_bytes=RESETS_GROWTH,
    )
    settled_then = PREFACE + SETTINGS + ACKNOWLEDGED
    async with under(place, attack), asyncio.TaskGroup() as tasks:
        for start in (settled_then, settled_then + opening(1, GET)[:20]):
            tasks.create_task(linger(place, "socket", start, attack, DEAF_SECONDS))
        tasks.create_task(linger(place, "tls", settled_then, attack, DEAF_SECONDS))


@pytest.fixture
def many_files() -> Iterator[int]:
    """How many connections this process may make."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard - 200
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("way", ["TCP", "socket"])
async def test_connections_have_an_end(place: Fleet, way: str, many_files: int) -> None:
    attack = Attack(
        name=f"R13 connections at once, {way}: connections",
        asked=asked(MAX_CONNECTIONS + 300, 10_000),
        most_growth_bytes=OPEN_GROWTH,
    )
    if attack.asked > many_files:
        pytest.skip(f"this process may open {many_files} files; raise the hard limit (ulimit -Hn)")
    address: int | Path = place.port if way == "TCP" else place.socket("viewer")
    pid = pid_of(place)
    bound = connections_of_each(LISTENERS, resource.prlimit(pid, resource.RLIMIT_NOFILE)[0])
    async with under(place, attack) as admin:
        before = most = Footprint.of(pid).descriptors
        with crowd(address) as people:
            for _ in range(attack.asked):
                people.join()
                attack.done += 1
                if attack.done % AT_ONCE == 0:
                    await answer(admin)
                    most = max(most, Footprint.of(pid).descriptors)
            # One is taken by a client that `under` lets be served there.
            async with asyncio.timeout(PATIENCE_SECONDS):
                while people.look() <= attack.asked - bound:
                    await answer(admin)
        print(f"  at most {most} descriptors, {bound} connections are taken")
        # Those that it is about to turn away have one for a moment.
        if most > before + bound + AT_ONCE:
            attack.fail(f"{most} descriptors, {before} before, {bound} connections are taken")


def test_connections_leave_half_of_the_files_to_the_daemon() -> None:
    assert connections_of_each(1, 65_536) == MAX_CONNECTIONS
    assert connections_of_each(4, 1024) == 128
    assert connections_of_each(4, 4) == 1
