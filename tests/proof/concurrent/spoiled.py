"""Pure: right histories made wrong in one place, each in another way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from tests.proof.concurrent import honest
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

FAR_NS = 3 * honest.REACH_NS


def swapped(history: History) -> History:
    """Two grants, far apart, change places in the journal."""
    journal = list(history.journal)
    grants = [at for at, entry in enumerate(journal) if not entry.ending]
    one, other = grants[3], grants[-3]
    journal[one], journal[other] = journal[other], journal[one]
    return replace(history, journal=tuple(journal))


def swapped_with_the_next_but_few(history: History) -> History:
    """A grant and a change a little later, whose calls did not meet."""
    at, grant = next(_entries(history, ""))
    begun = _reserve_of(history, grant.name).end_ns
    later = next(
        place
        for place, entry in _entries(history, "")
        if place > at and _reserve_of(history, entry.name).begin_ns > begun
    )
    journal = list(history.journal)
    journal.insert(later, journal.pop(at))
    return replace(history, journal=tuple(journal))


def release_lost(history: History) -> History:
    at, _ = next(_entries(history, "RELEASED"))
    return _without_entry(history, at)


def release_that_nobody_asked_for(history: History) -> History:
    released = {op.call.name for op in history.operations if isinstance(op.call, Release)}
    ended = {entry.name for entry in history.journal if entry.ending}
    name = next(
        entry.name for _, entry in _entries(history, "") if entry.name not in released | ended
    )
    entry = Entry(name=name, ending="RELEASED", wall_ns=history.journal[-1].wall_ns)
    return replace(history, journal=(*history.journal, entry))


def grant_lost(history: History) -> History:
    at, _ = next(_entries(history, ""))
    return _without_entry(history, at)


def granted_twice(history: History) -> History:
    at, entry = next(_entries(history, ""))
    journal = (*history.journal[: at + 1], entry, *history.journal[at + 1 :])
    return replace(history, journal=journal)


def granted_beyond_the_card(history: History) -> History:
    """Asked for more and given more, when there was no more."""

    def larger(call: Reserve) -> Reserve:
        assert isinstance(call.answer, Seen)
        grants = tuple((device, size + 1000) for device, size in call.answer.grants)
        answer = replace(call.answer, grants=grants)
        return replace(call, bytes=call.bytes + 1000, answer=answer)

    return _changed(history, Reserve, lambda call: isinstance(call.answer, Seen), larger)


def granted_another_size(history: History) -> History:
    return _changed(
        history,
        Reserve,
        lambda call: isinstance(call.answer, Seen),
        lambda call: replace(call, bytes=call.bytes + 1),
    )


def refused_what_fitted(history: History) -> History:
    return _changed(
        history,
        Reserve,
        lambda call: isinstance(call.answer, Refused) and call.count == 1,
        lambda call: replace(call, bytes=1),
    )


def refused_with_other_numbers(history: History) -> History:
    def off_by_one(call: Reserve) -> Reserve:
        assert isinstance(call.answer, Refused)
        granted = int(call.answer.facts["gpu0.granted_bytes"]) + 1
        facts = {**call.answer.facts, "gpu0.granted_bytes": str(granted)}
        return replace(call, answer=replace(call.answer, facts=facts))

    return _changed(history, Reserve, lambda call: isinstance(call.answer, Refused), off_by_one)


def refused_without_numbers(history: History) -> History:
    return _changed(
        history,
        Reserve,
        lambda call: isinstance(call.answer, Refused),
        lambda call: replace(call, answer=replace(call.answer, facts={})),
    )


def refused_for_no_reason(history: History) -> History:
    return _changed(
        history,
        Get,
        lambda _: True,
        lambda call: replace(call, answer=Refused(code="NOT_FOUND", reason="NOT_FOUND")),
    )


def shown_after_its_end(history: History) -> History:
    """A stale read: the release had been answered."""
    ends = _moments(history, Release)
    return _changed_operation(
        history,
        lambda op: (
            isinstance(op.call, Get)
            and _state(op) == "RELEASED"
            and op.begin_ns > ends[op.call.name]
        ),
        lambda op: _with_state(op, "GRANTED"),
    )


def ended_before_its_end(history: History) -> History:
    """Nobody had asked for its release yet."""
    begins = {
        op.call.name: op.begin_ns
        for op in reversed(history.operations)
        if isinstance(op.call, Release)
    }
    return _changed_operation(
        history,
        lambda op: (
            isinstance(op.call, Get)
            and _state(op) == "GRANTED"
            and op.end_ns < begins.get(op.call.name, 0)
        ),
        lambda op: _with_state(op, "RELEASED"),
    )


def another_generation(history: History) -> History:
    return _changed(
        history,
        Get,
        lambda call: isinstance(call.answer, Seen),
        lambda call: replace(call, answer=replace(call.answer, generation=2)),
    )


def wrong_generation_let_through(history: History) -> History:
    return _changed(
        history,
        Release,
        lambda _: True,
        lambda call: replace(call, generation=2),
    )


def right_generation_refused(history: History) -> History:
    mismatch = Refused(code="ABORTED", reason="GENERATION_MISMATCH", facts={"current": "1"})
    return _changed(
        history,
        Renew,
        lambda call: isinstance(call.answer, Seen),
        lambda call: replace(call, answer=mismatch),
    )


def renewed_after_its_end(history: History) -> History:
    ends = _moments(history, Release)
    refused = _first(
        history,
        lambda op: (
            isinstance(op.call, Renew)
            and _reason(op) == "WRONG_STATE"
            and op.begin_ns > ends.get(op.call.name, op.begin_ns)
        ),
    )
    assert isinstance(refused.call, Renew)
    made = _reserve_of(history, refused.call.name).call
    assert isinstance(made, Reserve)
    return _instead(
        history, refused, replace(refused, call=replace(refused.call, answer=made.answer))
    )


def renewal_refused_while_granted(history: History) -> History:
    wrong = Refused(code="FAILED_PRECONDITION", reason="WRONG_STATE", facts={"state": "RELEASED"})
    begins = _moments(history, Release)
    return _changed_operation(
        history,
        lambda op: (
            isinstance(op.call, Renew)
            and isinstance(op.call.answer, Seen)
            and op.call.name not in begins
        ),
        lambda op: replace(op, call=replace(op.call, answer=wrong)),
    )


def list_without_one(history: History) -> History:
    """One that had been granted before the list was asked for, and never ended."""
    ended = {entry.name for entry in history.journal if entry.ending}

    def settled(operation: Operation) -> list[Seen]:
        assert isinstance(operation.call, List)
        return [
            seen
            for seen in operation.call.answer
            if seen.name not in ended
            and _reserve_of(history, seen.name).end_ns < operation.begin_ns
        ]

    look = _first(history, lambda op: isinstance(op.call, List) and bool(settled(op)))
    assert isinstance(look.call, List)
    left_out = settled(look)[0]
    rest = tuple(seen for seen in look.call.answer if seen is not left_out)
    return _instead(history, look, replace(look, call=List(answer=rest)))


def list_of_long_ago(history: History) -> History:
    lists = [op for op in history.operations if isinstance(op.call, List)]
    early, late = lists[2], lists[-2]
    return _instead(history, late, replace(late, call=early.call))


def devices_off_by_one(history: History) -> History:
    return _changed(
        history,
        Devices,
        lambda _: True,
        lambda call: Devices(answer={**call.answer, "devices/a": call.answer["devices/a"] + 1}),
    )


def devices_of_long_ago(history: History) -> History:
    looks = [op for op in history.operations if isinstance(op.call, Devices)]
    late = next(op for op in reversed(looks) if op.call.answer != looks[3].call.answer)
    return _instead(history, late, replace(late, call=looks[3].call))


def call_at_another_time(history: History) -> History:
    """A grant of the middle, whose caller says that it called when all was over."""
    made = [op for op in history.operations if _is_grant(op)][len(history.operations) // 12]
    after = max(op.end_ns for op in history.operations) + FAR_NS
    moved = replace(made, begin_ns=after, end_ns=after + 1)
    return _instead(history, made, moved)


def lease_end_that_nobody_set(history: History) -> History:
    return _changed(
        history,
        Get,
        lambda call: isinstance(call.answer, Seen) and call.answer.state == "GRANTED",
        lambda call: replace(call, answer=replace(call.answer, expire_ns=1)),
    )


def lease_end_of_before_a_renewal(history: History) -> History:
    """A stale read of a value that leaves no line in the journal."""
    renewals = [
        op
        for op in history.operations
        if isinstance(op.call, Renew) and isinstance(op.call.answer, Seen)
    ]
    for renewal in renewals:
        assert isinstance(renewal.call, Renew)
        made = _reserve_of(history, renewal.call.name)
        for get in history.operations:
            later = get.begin_ns > renewal.end_ns and made.end_ns < renewal.begin_ns
            if isinstance(get.call, Get) and get.call.name == renewal.call.name and later:
                if _state(get) != "GRANTED":
                    continue
                assert isinstance(made.call, Reserve)
                old = made.call.answer.expire_ns
                answer = replace(get.call.answer, expire_ns=old)
                return _instead(history, get, replace(get, call=replace(get.call, answer=answer)))
    raise AssertionError("no renewal with a look after it")


def expired_too_early(history: History) -> History:
    at, entry = next(_entries(history, "EXPIRED"))
    early = replace(entry, wall_ns=entry.wall_ns - 10**8)
    journal = (*history.journal[:at], early, *history.journal[at + 1 :])
    return replace(history, journal=journal)


def answered_before_its_commit(history: History) -> History:
    """A release is told as done to another caller, and then it is seen that it was not yet.

    As when the release is on its way to the disk, and a second one answered from memory.
    """
    name, first = _long_release(history)
    released = Release(name=name, generation=None, answer=_as(history, name, "RELEASED"))
    get = Get(name=name, answer=_as(history, name, "GRANTED"))
    told = Operation(begin_ns=first.begin_ns + 1, end_ns=first.begin_ns + 2, call=released)
    seen = Operation(begin_ns=first.begin_ns + 3, end_ns=first.begin_ns + 4, call=get)
    return replace(history, operations=(*history.operations, told, seen))


def one_look_undone_by_the_next(history: History) -> History:
    """Either of two looks may have come first, but not both."""
    name, first = _long_release(history)
    ended = Get(name=name, answer=_as(history, name, "RELEASED"))
    granted = Get(name=name, answer=_as(history, name, "GRANTED"))
    looks = (
        Operation(begin_ns=first.begin_ns + 1, end_ns=first.begin_ns + 2, call=ended),
        Operation(begin_ns=first.begin_ns + 3, end_ns=first.begin_ns + 4, call=granted),
    )
    return replace(history, operations=(*history.operations, *looks))


SPOILED: tuple[Callable[[History], History], ...] = (
    swapped, swapped_with_the_next_but_few, release_lost, release_that_nobody_asked_for,
    grant_lost, granted_twice, granted_beyond_the_card, granted_another_size,
    refused_what_fitted, refused_with_other_numbers, refused_without_numbers,
    refused_for_no_reason, shown_after_its_end, ended_before_its_end, another_generation,
    wrong_generation_let_through, right_generation_refused, renewed_after_its_end,
    renewal_refused_while_granted, list_without_one, list_of_long_ago, devices_off_by_one,
    devices_of_long_ago, call_at_another_time, lease_end_that_nobody_set,
    lease_end_of_before_a_renewal, expired_too_early, answered_before_its_commit,
    one_look_undone_by_the_next,
)  # fmt: skip


# What the above is made of.


def _entries(history: History, ending: str) -> Iterator[tuple[int, Entry]]:
    return ((at, entry) for at, entry in enumerate(history.journal) if entry.ending == ending)


def _without_entry(history: History, at: int) -> History:
    return replace(history, journal=(*history.journal[:at], *history.journal[at + 1 :]))


def _first(history: History, wanted: Callable[[Operation], bool]) -> Operation:
    return next(each for each in history.operations if wanted(each))


def _instead(history: History, old: Operation, new: Operation) -> History:
    operations = tuple(new if each is old else each for each in history.operations)
    return replace(history, operations=operations)


def _changed_operation(
    history: History,
    wanted: Callable[[Operation], bool],
    change: Callable[[Operation], Operation],
) -> History:
    old = _first(history, wanted)
    return _instead(history, old, change(old))


def _changed(
    history: History, kind: type[Any], wanted: Callable[[Any], bool], change: Callable[[Any], Any]
) -> History:
    return _changed_operation(
        history,
        lambda op: isinstance(op.call, kind) and wanted(op.call),
        lambda op: replace(op, call=change(op.call)),
    )


def _is_grant(operation: Operation) -> bool:
    return isinstance(operation.call, Reserve) and isinstance(operation.call.answer, Seen)


def _reserve_of(history: History, name: str) -> Operation:
    return _first(history, lambda op: _is_grant(op) and op.call.answer.name == name)


def _state(operation: Operation) -> str:
    answer = operation.call.answer
    return answer.state if isinstance(answer, Seen) else ""


def _reason(operation: Operation) -> str:
    answer = operation.call.answer
    return answer.reason if isinstance(answer, Refused) else ""


def _with_state(operation: Operation, state: str) -> Operation:
    assert isinstance(operation.call, Get)
    answer = replace(operation.call.answer, state=state)
    return replace(operation, call=replace(operation.call, answer=answer))


def _moments(history: History, kind: type[Any]) -> dict[str, int]:
    """When the first call of a kind on each reservation had ended."""
    return {
        op.call.name: op.end_ns for op in reversed(history.operations) if isinstance(op.call, kind)
    }


def _as(history: History, name: str, state: str) -> Seen:
    call = _reserve_of(history, name).call
    assert isinstance(call, Reserve)
    assert isinstance(call.answer, Seen)
    return replace(call.answer, state=state)


def _long_release(history: History) -> tuple[str, Operation]:
    """The release of a reservation that only this one call released, and that took long."""
    names = [op.call.name for op in history.operations if isinstance(op.call, Release)]
    release = _first(
        history,
        lambda op: (
            isinstance(op.call, Release)
            and names.count(op.call.name) == 1
            and _state(op) == "RELEASED"
            and op.end_ns - op.begin_ns > honest.REACH_NS
            and _reserve_of(history, op.call.name).end_ns < op.begin_ns
        ),
    )
    assert isinstance(release.call, Release)
    return release.call.name, release
