"""Pure: does one order of all that happened explain every answer, and agree with real time?

The journal gives the order of the changes: the n-th line leads to the state n. Each call is put at
a state that explains its answer, under these rules:

- a change comes after every change whose call had ended before its own call began;
- a call sees at least what had been answered before it began, and nothing of what was asked only
  after it had ended;
- what one call saw, no later call sees undone.

Refusals are judged by decisions that may still be on their way to the disk, all other answers by
what is durable: what a refusal saw binds later refusals, what an answer showed binds all.
Renewals leave no line in the journal; a lease's end is checked as a register of its own.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.proof.concurrent.history import (
    Devices,
    Entry,
    Get,
    History,
    List,
    Operation,
    Refused,
    Release,
    Renew,
    Reserve,
    Seen,
)
from tests.proof.concurrent.order import FOREVER_NS, Change, Floor, Windows
from tests.proof.concurrent.register import Access, explain

GRANTED = "GRANTED"
# Moments in answers come from floats that resolve a quarter of a microsecond.
CLOCK_SLACK_NS = 1_000


@dataclass(slots=True)
class Life:
    """One reservation: where its bytes were booked and freed, and the calls around that."""

    grant: Seen
    granted_at: int
    reserve: Operation
    ended_at: int | None = None
    ending: str = ""
    releases: list[Operation] = field(default_factory=list)
    leases: list[Access] = field(default_factory=list)

    def holds_at(self, state: int) -> bool:
        return self.granted_at <= state and (self.ended_at is None or state < self.ended_at)

    def over_at(self, state: int) -> bool:
        return self.ended_at is not None and self.ended_at <= state


def check(history: History) -> list[str]:
    """What no order explains; empty when all is explained."""
    return Checker(history).run()


class Checker:
    """One history; `run` once."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._wrong: list[str] = []
        self._lives: dict[str, Life] = {}
        # By state: bytes granted on each device, and a number that stands for the set of names.
        self._sums: list[dict[str, int]] = [dict.fromkeys(history.capacities, 0)]
        self._sets: list[int] = [0]
        draw = random.Random(1)
        self._numbers: defaultdict[str, int] = defaultdict(lambda: draw.getrandbits(64))

    def run(self) -> list[str]:
        self._replay()
        if self._wrong:
            return self._wrong  # without an order the rest says nothing
        changes = self._changes()
        self._check_order(changes)
        self._place(changes)
        for name, life in self._lives.items():
            self._check_lease(name, life)
        return self._wrong

    def _need(self, truth: bool, what: str) -> None:
        if not truth:
            self._wrong.append(what)

    # The journal, replayed on sums of our own.

    def _replay(self) -> None:
        made = {
            operation.call.answer.name: operation
            for operation in self._history.operations
            if isinstance(operation.call, Reserve) and isinstance(operation.call.answer, Seen)
        }
        for state, entry in enumerate(self._history.journal, 1):
            if entry.ending:
                self._replay_end(state, entry)
            else:
                self._replay_grant(state, entry, made.get(entry.name))
        for name in made.keys() - self._lives.keys():
            self._need(False, f"{name} was answered, and the journal has no grant of it")

    def _replay_grant(self, state: int, entry: Entry, operation: Operation | None) -> None:
        sums, number = self._sums[-1], self._sets[-1]
        if operation is None:
            self._need(False, f"{state}: {entry.name} was granted, and no call was told so")
        elif entry.name in self._lives:
            self._need(False, f"{state}: {entry.name} was granted twice")
        else:
            assert isinstance(operation.call, Reserve)
            assert isinstance(operation.call.answer, Seen)
            life = Life(grant=operation.call.answer, granted_at=state, reserve=operation)
            self._lives[entry.name] = life
            self._check_grant(operation.call, entry)
            sums = sums | {device: sums[device] + size for device, size in life.grant.grants}
            for device, size in life.grant.grants:
                capacity = self._history.capacities[device]
                self._need(
                    sums[device] <= capacity,
                    f"{state}: {entry.name} got {size} bytes of {device}, on which then "
                    f"{sums[device]} of {capacity} are granted",
                )
            number ^= self._numbers[entry.name]
        self._sums.append(sums)
        self._sets.append(number)

    def _check_grant(self, asked: Reserve, entry: Entry) -> None:
        told = asked.answer
        assert isinstance(told, Seen)
        devices = tuple(device for device, _ in told.grants)
        right = (
            told.state == GRANTED
            and len(set(devices)) == len(devices) == asked.count
            and all(size == asked.bytes for _, size in told.grants)
            and set(devices) <= set(asked.devices or self._history.capacities)
        )
        self._need(right, f"{entry.name} is not what was asked: {told} for {asked.bytes} bytes")
        self._need(
            sorted(devices) == sorted(entry.devices),
            f"{entry.name} was told {devices}, the journal says {entry.devices}",
        )

    def _replay_end(self, state: int, entry: Entry) -> None:
        sums, number = self._sums[-1], self._sets[-1]
        life = self._lives.get(entry.name)
        if life is None or life.ended_at is not None:
            self._need(False, f"{state}: {entry.name} ended, and was not granted then")
        else:
            life.ended_at, life.ending = state, entry.ending
            sums = sums | {device: sums[device] - size for device, size in life.grant.grants}
            number ^= self._numbers[entry.name]
        self._sums.append(sums)
        self._sets.append(number)

    # Real time, between changes.

    def _changes(self) -> list[Change]:
        for operation in self._history.operations:
            if isinstance(operation.call, Release) and operation.call.name in self._lives:
                self._lives[operation.call.name].releases.append(operation)
        return [self._change(state, entry) for state, entry in enumerate(self._history.journal, 1)]

    def _change(self, state: int, entry: Entry) -> Change:
        """A grant is its call's. An end is some release's, or nobody's when the lease ran out."""
        life = self._lives[entry.name]
        if not entry.ending:
            return Change(begin_ns=life.reserve.begin_ns, end_ns=life.reserve.end_ns, state=state)
        if entry.ending != "RELEASED":
            self._need(entry.ending == "EXPIRED", f"{entry.name} ended as {entry.ending}")
            return Change(begin_ns=-FOREVER_NS, end_ns=FOREVER_NS, state=state)
        answered = [each for each in life.releases if isinstance(_answer(each), Seen)]
        self._need(bool(answered), f"{entry.name} was released, and nobody was told so")
        return Change(
            begin_ns=min((each.begin_ns for each in answered), default=-FOREVER_NS),
            end_ns=min((each.end_ns for each in answered), default=FOREVER_NS),
            state=state,
        )

    def _check_order(self, changes: Sequence[Change]) -> None:
        earliest_end = FOREVER_NS
        for change in reversed(changes):
            self._need(
                earliest_end >= change.begin_ns,
                f"{change.state}: its call began after that of a later change had ended",
            )
            earliest_end = min(earliest_end, change.end_ns)

    # Every call, put at a state.

    def _place(self, changes: Sequence[Change]) -> None:
        """At the first state that explains it: what later calls must see is then the least."""
        window = Windows(changes, len(self._history.journal))
        durable, decided = Floor(), Floor()
        for operation in sorted(self._history.operations, key=lambda each: each.begin_ns):
            refused = isinstance(_answer(operation), Refused)
            low, high = window.of(operation)
            shown = durable.before(operation.begin_ns)
            if refused:
                shown = max(shown, decided.before(operation.begin_ns), key=lambda each: each.state)
            explains = self._explanation(operation)
            states = range(max(low, shown.state), high + 1)
            found = next((state for state in states if explains(state)), None)
            if found is not None:
                (decided if refused else durable).add(operation, found)
                continue
            since = f", since {_told(shown.by)} had shown {shown.state}" if shown.by else ""
            self._need(
                False, f"no state of {states.start} … {high} explains {_told(operation)}{since}"
            )

    def _explanation(self, operation: Operation) -> Callable[[int], bool]:
        call = operation.call
        if isinstance(call, List):
            return self._explain_list(operation, call)
        if isinstance(call, Devices):
            return lambda state: self._sums[state] == call.answer
        if isinstance(call, Reserve):
            return self._explain_reserve(call)
        life = self._lives.get(call.name)
        if life is None:
            return lambda _: False
        if isinstance(call.answer, Refused):
            return _explain_refusal(call, call.answer, life)
        return self._explain_one(operation, call.answer, life)

    def _explain_list(self, operation: Operation, call: List) -> Callable[[int], bool]:
        number = 0
        for seen in call.answer:
            life = self._lives.get(seen.name)
            if life is None or not _same(seen, life.grant) or seen.state != GRANTED:
                return lambda _: False
            number ^= self._numbers[seen.name]
            life.leases.append(_read(operation, seen))
        return lambda state: self._sets[state] == number

    def _explain_reserve(self, call: Reserve) -> Callable[[int], bool]:
        answer = call.answer
        if isinstance(answer, Seen):
            life = self._lives[answer.name]
            life.leases.append(_write(life.reserve, answer))
            return lambda state: state == life.granted_at
        if answer.reason != "VRAM_INSUFFICIENT":
            return lambda _: False
        return lambda state: self._lacks(call, answer, self._sums[state])

    def _lacks(self, call: Reserve, refused: Refused, sums: dict[str, int]) -> bool:
        """Whether it could not be granted then, and its numbers are those of then.

        What others use on the device is the daemon's own observation: here it need only add up.
        """
        fitting = 0
        for device in call.devices or self._history.capacities:
            told = _Terms(refused.facts, self._history.aliases[device])
            left = self._history.capacities[device] - sums[device] - told.of_others
            if (told.granted, told.grantable) != (sums[device], max(0, left)):
                return False
            fitting += left >= call.bytes
        return fitting < call.count

    def _explain_one(self, operation: Operation, seen: Seen, life: Life) -> Callable[[int], bool]:
        claimed = None if isinstance(operation.call, Get) else operation.call.generation
        if not _same(seen, life.grant) or claimed not in {None, life.grant.generation}:
            return lambda _: False
        if seen.state == GRANTED:
            if isinstance(operation.call, Release):
                return lambda _: False
            wrote = isinstance(operation.call, Renew)
            life.leases.append((_write if wrote else _read)(operation, seen))
            return life.holds_at
        if isinstance(operation.call, Renew) or seen.state != life.ending:
            return lambda _: False
        return life.over_at

    # A lease's end.

    def _check_lease(self, name: str, life: Life) -> None:
        told = explain(life.leases)
        self._need(not told.wrong, f"{name}: {told.wrong}")
        if life.ending == "EXPIRED" and told.last_values:
            assert life.ended_at is not None
            ended_ns = self._history.journal[life.ended_at - 1].wall_ns
            due_ns = min(told.last_values)
            self._need(
                ended_ns + CLOCK_SLACK_NS >= due_ns,
                f"{name} expired {(due_ns - ended_ns) / 1e6:.3f} ms before its lease's end",
            )


class _Terms:
    """What a refusal told of one device; a fact that is missing is no fact that fits."""

    def __init__(self, facts: Mapping[str, str], alias: str) -> None:
        def told(name: str) -> int:
            text = facts.get(f"{alias}.{name}_bytes", "")
            return int(text) if text.isdigit() else -1

        self.granted = told("granted")
        self.grantable = told("grantable")
        self.of_others = told("foreign") + told("unattributed") + told("leaked")


def _explain_refusal(
    call: Renew | Release | Get, refused: Refused, life: Life
) -> Callable[[int], bool]:
    generation = life.grant.generation
    if isinstance(call, Get):
        return lambda _: False  # it was told of, and is listed long after its end
    if call.generation not in {None, generation}:
        right = refused.reason == "GENERATION_MISMATCH" and refused.facts.get("current") == str(
            generation
        )
        return lambda state: right and life.granted_at <= state
    if refused.reason == "WRONG_STATE" and isinstance(call, Renew):
        return lambda state: life.over_at(state) and refused.facts.get("state") == life.ending
    return lambda _: False


def _same(seen: Seen, grant: Seen) -> bool:
    return (seen.grants, seen.generation) == (grant.grants, grant.generation)


def _answer(operation: Operation) -> object:
    return operation.call.answer


def _read(operation: Operation, seen: Seen) -> Access:
    return Access(
        begin_ns=operation.begin_ns, end_ns=operation.end_ns, value=seen.expire_ns, wrote=False
    )


def _write(operation: Operation, seen: Seen) -> Access:
    return Access(
        begin_ns=operation.begin_ns, end_ns=operation.end_ns, value=seen.expire_ns, wrote=True
    )


def _told(operation: Operation) -> str:
    text = repr(operation.call)
    return text if len(text) < 400 else f"{text[:400]}…"
