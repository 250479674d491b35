"""Forecasts as they are asked for: of the past that the history has, and of what is known."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from gpud.devices.snapshot import Readings, Sample
from gpud.instances.life import House
from gpud.instances.roster import Roster
from gpud.ledger.charge import Charge, is_stale
from gpud.telemetry.forecast.even import Told, lined_up
from gpud.telemetry.forecast.forecast import (
    Edge,
    Forecast,
    Subject,
    memory_forecast,
    temperature_forecast,
)
from gpud.telemetry.forecast.known import Known, Plans, known_changes
from gpud.telemetry.forecast.outlook import PAST_HORIZONS, STEPS, Past
from gpud.telemetry.history.asking import Asked
from gpud.telemetry.history.fields import BY_NAME
from gpud.telemetry.history.history import History

_FIELDS: Final = tuple(
    BY_NAME[name]
    for name in (
        "memory_used_bytes",
        "observed_bytes",
        "grantable_bytes",
        "charged_bytes",
        "temperature_celsius",
    )
)


# Of the history, in each of a forecast's steps.
_FINER: Final = 10
# Where more than one step in so many has no process list, nothing is known of whose the bytes are.
_MISSING: Final = 10


class Forecasts:
    """Makes forecasts; one at a time, in a thread: a device takes some 80 ms."""

    def __init__(self, history: History, house: House, roster: Roster) -> None:
        self._history = history
        self._house = house
        self._roster = roster
        self._turn = asyncio.Lock()

    async def forecast(
        self, samples: Sequence[Sample], horizon_seconds: float
    ) -> tuple[Forecast, ...]:
        """Of each device its memory and, where it has one, its temperature.

        Raises WrongState where no history is kept.
        """
        async with self._turn:
            plans = self._plans()
            found: list[Forecast] = []
            for sample in samples:
                line_up = await self._seen(sample, horizon_seconds)
                work = self._work(sample, line_up, plans, horizon_seconds)
                found += await asyncio.to_thread(work)
            return tuple(found)

    def _plans(self) -> Plans:
        promises, now = self._house.promises, self._house.clock.now()
        idle = {}
        for instance in self._roster.list():
            signs = self._roster.signs(instance.id)
            deadline = signs.idle_deadline_wall if signs is not None else None
            if instance.reservation and deadline is not None and not instance.ended:
                idle[instance.reservation] = (instance.id, deadline)
        for entry in promises.durable.queued.values():
            place = self._house.places.place(entry)
            if place is not None and place.position == 1:
                moment = promises.ledger.expected(entry, now)
                return Plans(idle=idle, next=None if moment is None else (entry, moment))
        return Plans(idle=idle)

    async def _seen(self, sample: Sample, horizon: float) -> Callable[[], Told]:
        """The past up to now, to be lined up in the thread."""
        end = self._house.clock.now().wall
        asked = Asked(
            subjects=(f"devices/{sample.info.uuid}",),
            fields=_FIELDS,
            begin=end - PAST_HORIZONS * horizon,
            end=end,
            step=max(1, round(horizon / STEPS / _FINER)),
        )
        return partial(lined_up, await self._history.query(asked), _FIELDS, end, horizon)

    def _work(
        self, sample: Sample, line_up: Callable[[], Told], plans: Plans, horizon: float
    ) -> Callable[[], list[Forecast]]:
        """What is reckoned in the thread, with all that it needs."""
        promises, now = self._house.promises, self._house.clock.now()
        books, uuid = promises.durable, sample.info.uuid
        terms = promises.ledger.charges_of((uuid,), books).get(uuid)
        known = () if terms is None else known_changes(terms, books, plans, now, horizon)
        subject = partial(
            Subject,
            device=uuid,
            alias=sample.info.alias,
            now_wall=now.wall,
        )
        critical = self._house.policy.thermal_celsius[-1]
        # What a stale sample shows is not now.
        shown = Readings() if is_stale(sample, now.boottime) else sample.readings
        heat = shown.temperature_celsius

        def work() -> list[Forecast]:
            told = line_up()
            of = partial(subject, steps=told.steps, step=told.step)
            memory = _memory(of(now=shown.memory_used_bytes), told, terms, known)
            if heat is None and not any(told.values["temperature_celsius"]):
                return [memory]
            past = told.past("temperature_celsius", heat)
            return [memory, temperature_forecast(of(now=heat), past, critical)]

        return work


def _memory(
    subject: Subject, told: Told, terms: Charge | None, known: Sequence[Known]
) -> Forecast:
    used = told.past("memory_used_bytes", subject.now)
    if terms is None or terms.total_bytes is None:
        return memory_forecast(subject, used, None, known)
    # The promises' own use is held to stay as it is now: what is known to change of it is known.
    is_now = subject.now is not None
    observed = told.ended("observed_bytes", sum(terms.observed_bytes.values()) if is_now else None)
    if sum(each is None for each in observed) * _MISSING < len(observed):
        used = replace(used, base=observed)
    room = terms.total_bytes - terms.reserve_bytes
    left = told.ended("grantable_bytes", terms.grantable_bytes if is_now else None)
    taken = Past(
        step=told.step,
        values=[None if value is None else room - value for value in left],
        base=told.ended("charged_bytes", terms.charged_bytes if is_now else None),
    )
    edge = Edge(total_bytes=terms.total_bytes, taken=taken, room_bytes=room)
    return memory_forecast(subject, used, edge, known)
