"""What eight clients are told at once has one order: the journal's."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.proof.concurrent.checker import check
from tests.proof.concurrent.clients import CLIENTS, Clients
from tests.proof.concurrent.history import Refused, Reserve, Seen
from tests.proof.record import asked, record
from tests.running import Gpud

OPERATIONS = asked(2_000, CLIENTS * 20_000)
SEED = 5
# Cards that no other test has: a process of theirs would count on ours, and blur the sums.
CARDS = '[[devices.simulated]]\ncard = "rtx-3080"\ncount = 4\n'

pytestmark = [pytest.mark.proof, pytest.mark.timeout(1200)]


async def test_concurrent_answers_agree_with_the_order_of_commits(
    gpud: Callable[..., Gpud],
) -> None:
    began = time.monotonic()
    daemon = gpud(cards=0, extra=CARDS).start()
    history = await Clients(daemon, SEED).run(OPERATIONS)
    wrong = check(history)
    done = len(history.operations)
    record(
        f"R5 concurrent history, {CLIENTS} clients: answers against the commit order",
        OPERATIONS, done, len(wrong), time.monotonic() - began,
    )  # fmt: skip
    assert wrong == []
    assert done >= OPERATIONS
    # It is worth something only if all of this happened.
    endings = Counter(entry.ending for entry in history.journal)
    answers = Counter(
        answer.reason if isinstance(answer, Refused) else answer.state
        for operation in history.operations
        if isinstance(answer := getattr(operation.call, "answer", None), Seen | Refused)
    )
    assert endings[""] > OPERATIONS / 20
    assert endings["RELEASED"] > OPERATIONS / 20
    refusals = [each for each in history.operations if isinstance(each.call, Reserve)]
    assert len(refusals) > endings[""]
    assert {"VRAM_INSUFFICIENT", "WRONG_STATE", "GENERATION_MISMATCH"} <= answers.keys(), answers
    ordered = sorted(history.operations, key=lambda each: each.begin_ns)
    meetings = [other.begin_ns < one.end_ns for one, other in itertools.pairwise(ordered)]
    assert sum(meetings) > OPERATIONS / 2
