"""What goes over the pipe is what comes out of it, whatever was left out on the way."""

from __future__ import annotations

import os
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.devices.sampling.frames import (
    Again,
    Answer,
    AnyFrame,
    FrameEncoder,
    FrameParser,
    TickEnded,
)
from gpud.devices.sampling.helper import MANY_PROCESSES, FrameWriter
from gpud.devices.snapshot import HostReadings, ProcessUse, Readings
from tests.fakes.cards import process

ANSWERS = st.builds(
    Answer,
    uuid=st.sampled_from(["GPU-a", "GPU-b"]),
    boottime=st.floats(0, 1e6),
    wall=st.floats(0, 1e6),
    readings=st.builds(
        Readings,
        memory_used_bytes=st.sampled_from([None, 0, 1]),
        power_watts=st.sampled_from([None, 0.0, 1.5]),
    ),
    then=st.sampled_from([None, "", "GPU-b"]),
    lost_reason=st.sampled_from(["", "", "gone"]),
    listed=st.booleans(),
    refused=st.booleans(),
    processes=st.sampled_from([None, (), (process(7, 5),)]),
)


@given(st.lists(st.lists(ANSWERS, max_size=6), max_size=6))
def test_every_answer_arrives_whole(batches: list[list[Answer]]) -> None:
    encoder, parser = FrameEncoder(), FrameParser()
    told = [list(parser.feed(encoder.encode(batch))) for batch in batches]
    assert told == batches


def answer(second: float, watts: float) -> Answer:
    return Answer(uuid="GPU-a", boottime=second, wall=second, readings=Readings(power_watts=watts))


def test_what_is_shown_again_is_short_and_the_very_same() -> None:
    encoder, parser = FrameEncoder(), FrameParser()
    sizes, told = [], []
    for second, watts in enumerate([10.0, 10.0, 11.0, 11.0]):
        body = encoder.encode([answer(second, watts)])
        sizes.append(len(body))
        told += parser.feed(body)
    first, same, other, last = (each.readings for each in told if isinstance(each, Answer))
    assert first is same is not other is last
    assert max(sizes[1], sizes[3]) < sizes[0] == sizes[2]


def test_nothing_is_shown_again_that_was_not_shown() -> None:
    body = msgspec.msgpack.encode([Again(uuid="GPU-a", boottime=1.0, wall=1.0)])
    with pytest.raises(ValueError, match="GPU-a"):
        list(FrameParser().feed(len(body).to_bytes(4, "little") + body))


def written(*frames: AnyFrame) -> list[int]:
    """How many frames have arrived after each that was sent."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    parser, counts, count = FrameParser(), [], 0
    try:
        send = FrameWriter(writer).send
        for frame in frames:
            send(frame)
            with suppress(BlockingIOError):
                count += len(list(parser.feed(os.read(reader, 2**20))))
            counts.append(count)
    finally:
        os.close(reader)
        os.close(writer)
    return counts


def listing(count: int) -> Answer:
    uses: tuple[ProcessUse, ...] = tuple(process(pid, 1) for pid in range(1, count + 1))
    return msgspec.structs.replace(answer(1.0, 5.0), listed=True, processes=uses)


def test_a_long_list_does_not_wait_for_the_others() -> None:
    few, many = listing(3), listing(MANY_PROCESSES + 1)
    assert written(few, many, few, TickEnded(host=HostReadings())) == [0, 2, 2, 4]
