"""Pure: a history that is right by its making, for a checker to accept and for tests to spoil."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from tests.proof.concurrent.history import (
    Call,
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

CAPACITIES = {"devices/a": 1000, "devices/b": 700}
ALIASES = {"devices/a": "gpu0", "devices/b": "gpu1"}
# Between the moments at which operations take effect; each lasts up to four of them to both sides.
STEP_NS = 10_000
REACH_NS = 4 * STEP_NS
TTL_NS = 10**9


@dataclass(slots=True)
class Honest:
    """A ledger of two cards that does one thing at a time."""

    chance: random.Random
    now_ns: int = 10**9
    made: dict[str, Seen] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    journal: list[Entry] = field(default_factory=list)

    def run(self, count: int) -> History:
        """So many operations, each in effect at one moment between its begin and its end."""
        acts = (self._reserve, self._reserve, self._release, self._renew, self._get, self._look)
        for _ in range(count):
            self.now_ns += STEP_NS
            call = self.chance.choice(acts)()
            begin_ns = self.now_ns - self.chance.randrange(REACH_NS)
            end_ns = self.now_ns + self.chance.randrange(REACH_NS)
            self.operations.append(Operation(begin_ns=begin_ns, end_ns=end_ns, call=call))
            self._expire()
        return History(
            capacities=CAPACITIES,
            aliases=ALIASES,
            operations=tuple(self.operations),
            journal=tuple(self.journal),
        )

    def _granted(self) -> dict[str, int]:
        sums = dict.fromkeys(CAPACITIES, 0)
        for seen in self._live():
            for device, size in seen.grants:
                sums[device] += size
        return sums

    def _live(self) -> list[Seen]:
        return [seen for seen in self.made.values() if seen.state == "GRANTED"]

    def _reserve(self) -> Call:
        size, count = self.chance.randrange(1, 400), self.chance.choice((1, 2))
        left = {device: CAPACITIES[device] - used for device, used in self._granted().items()}
        fitting = [device for device in left if left[device] >= size]
        if len(fitting) < count:
            facts = {}
            for device, alias in ALIASES.items():
                facts[f"{alias}.grantable_bytes"] = str(left[device])
                facts[f"{alias}.granted_bytes"] = str(CAPACITIES[device] - left[device])
                for what in ("foreign", "unattributed", "leaked"):
                    facts[f"{alias}.{what}_bytes"] = "0"
            answer: Seen | Refused = _refused("RESOURCE_EXHAUSTED", "VRAM_INSUFFICIENT", facts)
        else:
            answer = Seen(
                name=f"reservations/r-{len(self.made)}",
                state="GRANTED",
                generation=1,
                grants=tuple((device, size) for device in fitting[:count]),
                expire_ns=self.now_ns + TTL_NS,
            )
            self.made[answer.name] = answer
            self._write(answer.name, "", tuple(fitting[:count]))
        return Reserve(bytes=size, count=count, devices=(), answer=answer)

    def _release(self) -> Call:
        if not self.made:
            return self._look()
        seen = self._any()
        if seen.state == "GRANTED":
            seen = self.made[seen.name] = replace(seen, state="RELEASED")
            self._write(seen.name, "RELEASED")
        return Release(name=seen.name, generation=1, answer=seen)

    def _renew(self) -> Call:
        if not self.made:
            return self._look()
        seen = self._any()
        if self.chance.random() < 0.2:
            facts = {"current": "1"}
            refused = _refused("ABORTED", "GENERATION_MISMATCH", facts)
            return Renew(name=seen.name, generation=3, answer=refused)
        if seen.state != "GRANTED":
            refused = _refused("FAILED_PRECONDITION", "WRONG_STATE", {"state": seen.state})
            return Renew(name=seen.name, generation=1, answer=refused)
        renewed = replace(seen, expire_ns=self.now_ns + TTL_NS)
        self.made[seen.name] = renewed
        return Renew(name=seen.name, generation=1, answer=renewed)

    def _get(self) -> Call:
        if not self.made:
            return self._look()
        seen = self._any()
        return Get(name=seen.name, answer=seen)

    def _look(self) -> Call:
        if self.chance.random() < 0.5:
            return Devices(answer=self._granted())
        return List(answer=tuple(self._live()))

    def _expire(self) -> None:
        """Now and then a lease runs out: the time jumps to its end."""
        live = self._live()
        if live and self.chance.random() < 0.02:
            due = min(live, key=lambda seen: seen.expire_ns or 0)
            self.now_ns = max(self.now_ns, due.expire_ns or 0)
            self.made[due.name] = replace(due, state="EXPIRED")
            self._write(due.name, "EXPIRED")
            self.now_ns += 2 * REACH_NS

    def _any(self) -> Seen:
        """One of the newest, so that they meet."""
        return self.chance.choice(list(self.made.values())[-8:])

    def _write(self, name: str, ending: str, devices: tuple[str, ...] = ()) -> None:
        entry = Entry(name=name, ending=ending, wall_ns=self.now_ns, devices=devices)
        self.journal.append(entry)


def _refused(code: str, reason: str, facts: dict[str, str]) -> Refused:
    return Refused(code=code, reason=reason, facts=facts)


def history(seed: int, count: int = 600) -> History:
    """One of them."""
    return Honest(chance=random.Random(seed)).run(count)
