"""Long work in threads: joined, told of, ended by the last who waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from gpud.clock import SystemClock
from gpud.models.sources.jobs import Control, Jobs, JobStalled, JobStopped, Manner, NoTurn, Step
from gpud.threads import ThreadRefused
from tests.fakes.threads import none_left

PATIENCE_SECONDS = 60.0


class Work:
    """Work that goes on until the test lets it end."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_end = threading.Event()
        self.started = threading.Event()
        self.stopped = threading.Event()

    def __call__(self, control: Control) -> int:
        self.begun += 1
        control.tell(Step(words="works", done_bytes=1, total_bytes=4), always=True)
        self.started.set()
        try:
            with control.closing(self.may_end.set):
                assert self.may_end.wait(PATIENCE_SECONDS)
            control.check()
        except JobStopped:
            self.stopped.set()
            raise
        return self.begun


def jobs(at_once: int = 4) -> Jobs:
    return Jobs(SystemClock(), at_once)


async def begun(work: Work) -> None:
    assert await asyncio.to_thread(work.started.wait, PATIENCE_SECONDS)


def telling() -> tuple[list[Step], Callable[[Step], None], asyncio.Event]:
    told: list[Step] = []
    first = asyncio.Event()

    def tell(step: Step) -> None:
        told.append(step)
        first.set()

    return told, tell, first


async def test_those_who_ask_for_the_same_wait_for_one() -> None:
    made, work = jobs(), Work()
    told, tell, first = telling()
    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
        one = tasks.create_task(made.run("k", work, tell))
        await first.wait()
        late, tell_late, told_late = telling()
        two = tasks.create_task(made.run("k", work, tell_late))
        await told_late.wait()  # whoever comes later is told where it is
        assert made.running("k") == told[0]
        work.may_end.set()
    assert (one.result(), two.result(), work.begun) == (1, 1, 1)
    assert told == late == [Step(words="works", done_bytes=1, total_bytes=4)]
    assert made.running("k") is None
    assert await made.run("k", work, tell) == 2


async def test_it_goes_on_as_long_as_somebody_waits() -> None:
    made, work = jobs(), Work()
    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
        one = tasks.create_task(made.run("k", work, lambda _: None))
        two = tasks.create_task(made.run("k", work, lambda _: None))
        await begun(work)
        one.cancel()
        await asyncio.wait([one])
        assert not work.may_end.is_set()
        work.may_end.set()
        assert await two == 1


async def test_it_ends_with_the_last_who_waits_and_can_begin_anew() -> None:
    made, work = jobs(), Work()
    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
        one = tasks.create_task(made.run("k", work, lambda _: None))
        await begun(work)
        one.cancel()
        await asyncio.wait([one])
        # It is being ended; whoever comes now gets another, not its end.
        two = tasks.create_task(made.run("k", work, lambda _: None))
        assert await two == 2
    assert work.stopped.is_set()


async def test_what_it_raises_all_of_them_get() -> None:
    def work(control: Control) -> None:
        raise OSError(5, "bad disk")

    made = jobs()
    found = await asyncio.gather(
        *(made.run("k", work, lambda _: None) for _ in range(2)), return_exceptions=True
    )
    assert [str(each) for each in found] == ["[Errno 5] bad disk"] * 2


async def test_work_that_tells_nothing_is_left() -> None:
    work = Work()
    with pytest.raises(TimeoutError):
        await jobs().run("k", work, lambda _: None, Manner(stall_seconds=0.05))
    assert await asyncio.to_thread(work.stopped.wait, PATIENCE_SECONDS)


class Hung:
    """Work that is blocked, whatever it is asked, until the test ends."""

    def __init__(self) -> None:
        self.lets_go = threading.Event()

    def __call__(self, control: Control) -> int:
        assert self.lets_go.wait(PATIENCE_SECONDS)
        return 0


async def test_what_hangs_gives_its_turn_back_and_is_refused_until_its_thread_ends() -> None:
    made, hung = jobs(at_once=1), Hung()
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(JobStalled):
            await made.run("bad", hung, lambda _: None, Manner(stall_seconds=0.05))
        assert await made.run("ok", lambda _: 7, lambda _: None) == 7
        with pytest.raises(JobStalled):  # at once, and no second thread
            await made.run("bad", hung, lambda _: None)
        hung.lets_go.set()
        while True:
            with suppress(JobStalled):
                assert await made.run("bad", hung, lambda _: None) == 0
                break
            await asyncio.sleep(0)
        # Its turn was given back once, not twice.
        first, second = Work(), Work()
        one = asyncio.ensure_future(made.run("1", first, lambda _: None))
        await begun(first)
        _, tell, first_told = telling()
        two = asyncio.ensure_future(made.run("2", second, tell))
        await first_told.wait()
        assert second.begun == 0
        first.may_end.set()
        second.may_end.set()
        assert await asyncio.gather(one, two) == [1, 1]


async def test_a_turn_comes_back_from_one_that_hangs_and_that_nobody_waits_for() -> None:
    made, hung = jobs(at_once=1), Hung()
    async with asyncio.timeout(PATIENCE_SECONDS):
        left = asyncio.ensure_future(
            made.run("bad", hung, lambda _: None, Manner(stall_seconds=0.05))
        )
        await asyncio.sleep(0)
        left.cancel()
        assert await made.run("ok", lambda _: 7, lambda _: None) == 7
    hung.lets_go.set()


async def test_nobody_waits_for_a_turn_for_ever() -> None:
    made, work = Jobs(SystemClock(), 1, wait_seconds=0.0), Work()
    async with asyncio.timeout(PATIENCE_SECONDS):
        one = asyncio.ensure_future(made.run("1", work, lambda _: None))
        await begun(work)
        with pytest.raises(NoTurn):
            await made.run("2", work, lambda _: None, Manner(stall_seconds=PATIENCE_SECONDS))
        work.may_end.set()
        assert await one == 1


async def test_works_of_two_kinds_do_not_meet() -> None:
    made, work = jobs(), Work()
    async with asyncio.timeout(PATIENCE_SECONDS):
        one = asyncio.ensure_future(made.run("k", work, lambda _: None))
        await begun(work)
        other = asyncio.ensure_future(
            made.run("k", lambda _: "x", lambda _: None, Manner(kind="other"))
        )
        work.may_end.set()
        assert (await one, await other) == (1, "x")


async def test_only_so_many_at_once() -> None:
    made, first, second = jobs(at_once=1), Work(), Work()
    told, tell, waits = telling()
    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
        one = tasks.create_task(made.run("1", first, lambda _: None))
        await begun(first)
        two = tasks.create_task(made.run("2", second, tell))
        await waits.wait()
        assert told[0].words == "waits for others to end"
        assert second.begun == 0
        first.may_end.set()
        second.may_end.set()
        assert (await one, await two) == (1, 1)


def test_a_step_in_words() -> None:
    step = Step(
        words="downloads", done_bytes=2**30, total_bytes=2**32, bytes_per_second=80 * 2.0**20
    )
    assert str(step) == "downloads 1 GiB of 4 GiB, 80 MiB/s"
    assert step.fraction == 0.25
    assert str(Step(words="asks the hub")) == "asks the hub"
    assert Step(words="downloads", done_bytes=7).fraction is None


async def test_where_no_thread_starts_the_next_who_asks_is_served() -> None:
    made = jobs()
    with none_left(), pytest.raises(ThreadRefused, match="cannot work on /files"):
        await made.run("fetch:/files", lambda _: 1, lambda _: None)
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await made.run("fetch:/files", lambda _: 1, lambda _: None) == 1
