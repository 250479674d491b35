"""The requests of a benchmark: so many at once, level after level, each timed from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from gpud.benchmarking import workload
from gpud.benchmarking.answers import REFUSED, RequestFailed, Streamed, Whole
from gpud.benchmarking.benchmark import Level, Plan
from gpud.benchmarking.post import Poster
from gpud.benchmarking.statistics import Tally, Timing
from gpud.benchmarking.workload import Dialect

# Guesses at the words of a prompt before the nearest is taken.
_MAX_GUESSES = 6
# Where nobody listens the engine is gone, and its instance says so soon: no reason to ask on.
_REFUSED_SECONDS = 1.0
# Prompts of the warm-up, and of the guesses, are none of those that are measured.
_WARM_UP_FROM = 10_000_000


@dataclass(slots=True, kw_only=True)
class Runner:
    """What one benchmark sends. `levels` are those that are over, the last perhaps cut short."""

    poster: Poster
    dialect: Dialect
    plan: Plan
    # Of the level under way, and the levels that are over.
    on_progress: Callable[[Tally, Sequence[Level]], None]
    levels: list[Level] = field(default_factory=list)
    output_tokens: int = 0  # given to all requests so far, as the engine counts them
    requests: int = 0
    _words: int = 1

    async def warm_up(self) -> None:
        """Find out the length of the prompts, then send some for nothing. Raises RequestFailed."""
        await self._measure_words()
        for number in range(self.plan.warmup):
            await self._ask(_WARM_UP_FROM + number, self.plan.output_tokens)

    async def measure(self) -> None:
        """Every level. One that is cancelled is kept as far as it came."""
        for place, concurrency in enumerate(self.plan.concurrency):
            tally = Tally(concurrency=concurrency)
            self.on_progress(tally, self.levels)
            began = self._now()
            numbers = iter(range(place * self.plan.prompts, (place + 1) * self.plan.prompts))
            try:
                async with asyncio.TaskGroup() as workers:
                    for _ in range(min(concurrency, self.plan.prompts)):
                        workers.create_task(self._work(numbers, tally))
            finally:
                cut = tally.requests - tally.ended
                if cut:
                    tally.fail("cut", "the run ended first", cut)
                self.levels.append(tally.level(self._now() - began))

    async def _work(self, numbers: Iterator[int], tally: Tally) -> None:
        """One request after another until none is left; they are shared with other workers."""
        for number in numbers:
            tally.requests += 1
            try:
                tally.add(await self._ask(number, self.plan.output_tokens))
            except RequestFailed as failed:
                tally.fail(failed.kind, failed.detail)
                if failed.kind == REFUSED:
                    await self.poster.clock.sleep(_REFUSED_SECONDS)
            self.on_progress(tally, self.levels)

    async def _measure_words(self) -> None:
        """By what the engine counts; one that counts nothing is believed to be as others are."""
        wanted, tried = self.plan.prompt_tokens, dict[int, int]()
        words: int | None = workload.first_guess(wanted)
        while words is not None and len(tried) < _MAX_GUESSES:
            self._words = words
            counted = (await self._ask(_WARM_UP_FROM, 1)).prompt_tokens
            if counted is None:
                return
            tried[words] = counted
            words = workload.next_guess(wanted, tried)
        self._words = workload.nearest(wanted, tried)

    async def _ask(self, number: int, output_tokens: int) -> Timing:
        """Raises RequestFailed."""
        text = workload.prompt(self._words, number)
        path, body = workload.request(self.dialect, text, output_tokens)
        encoded = msgspec.json.encode(body)
        sent = self._now()
        receiver = Streamed(sent) if self.dialect.streams else Whole(sent)
        self.requests += 1
        timing = await self.poster.post(path, encoded, receiver)
        self.output_tokens += timing.output_tokens or 0
        return timing

    def _now(self) -> float:
        return self.poster.clock.now().boottime
