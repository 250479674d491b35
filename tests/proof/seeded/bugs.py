"""Bugs that one could make: each a line of the ledger that is changed, and what then is wrong."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Seed:
    what: str
    file: str
    old: str
    new: str


SEEDS = (
    Seed(
        "the reserve is not kept",
        "gpud/ledger/charge.py",
        "held = reserve + charged",
        "held = charged",
    ),
    Seed(
        "what others use is not counted",
        "gpud/ledger/charge.py",
        "            foreign += size\n",
        "            foreign += 0\n",
    ),
    Seed(
        "over-use is not charged",
        "gpud/ledger/charge.py",
        "charged = book.granted_bytes + overuse",
        "charged = book.granted_bytes",
    ),
    Seed(
        "leaked bytes are forgotten",
        "gpud/ledger/charge.py",
        "unattributed + book.leaked_bytes\n",
        "unattributed\n",
    ),
    Seed(
        "a lease ends a moment late",
        "gpud/ledger/books.py",
        "self._due[0][0] <= now.boottime",
        "self._due[0][0] < now.boottime",
    ),
    Seed(
        "a sum is taken off twice",
        "gpud/ledger/books.py",
        "            book.granted_bytes -= grant.bytes\n",
        "            book.granted_bytes -= 2 * grant.bytes\n",
    ),
    Seed(
        "bytes in use are freed at the signal",
        "gpud/ledger/returning.py",
        "if not reservation.bound and not self.carries(reservation):",
        "if not self.carries(reservation):",
    ),
    Seed(
        "bytes are back before the card shows them",
        "gpud/ledger/ending.py",
        "    return more if more > RESIDUE_SLACK_BYTES else 0\n",
        "    return 0\n",
    ),
    Seed(
        "a restart refills a lease after a reboot",
        "gpud/ledger/reservation.py",
        "min(ttl_seconds, max(0.0, self.remaining_seconds(now)))",
        "ttl_seconds",
    ),
    Seed(
        "the wall clock rules",
        "gpud/ledger/reservation.py",
        "            return self.boottime - now.boottime\n",
        "            return self.wall - now.wall\n",
    ),
    Seed(
        "alone is not alone",
        "gpud/ledger/admission/policy.py",
        "    if book.exclusive is not None:",
        "    if False:",
    ),
    Seed(
        "alone beside others",
        "gpud/ledger/admission/admission.py",
        "obstacle = holders_there(book) or strangers_there(sample, book)",
        "obstacle = strangers_there(sample, book)",
    ),
    Seed(
        "classes do not count",
        "gpud/ledger/admission/queue.py",
        "lead = request.priority - Priority.BATCH if settings.by_priority else 0",
        "lead = 0",
    ),
    Seed(
        "anybody may pass",
        "gpud/ledger/admission/queue.py",
        "    return not (sums >> lowest)",
        "    return True or not (sums >> lowest)",
    ),
    Seed(
        "who passed renews for ever",
        "gpud/ledger/ledger.py",
        "if limit is not None:",
        "if False and limit is not None:",
    ),
    Seed(
        "one's own class is ended",
        "gpud/ledger/admission/preemption.py",
        "held.request.priority < entry.request.priority",
        "held.request.priority <= entry.request.priority",
    ),
    Seed(
        "no grace",
        "gpud/ledger/ledger.py",
        "Deadline.after(now, grace)",
        "Deadline.after(now, 0)",
    ),
    Seed(
        "a revoked holder is not fenced",
        "gpud/ledger/returning.py",
        "reservation = replace(reservation, generation=reservation.generation + 1)",
        "pass",
    ),
    Seed(
        "a cordon is lost in a restart",
        "gpud/ledger/ledger.py",
        "        for uuid, cordon in (cordons or {}).items():",
        "        for uuid, cordon in ():",
    ),
    Seed(
        "RAM beside is not looked for",
        "gpud/ledger/admission/admission.py",
        '    place([host], Shape(bytes=size), ReserveRequest(owner="", bytes=size))\n',
        "",
    ),
    Seed(
        "heat does not count",
        "gpud/ledger/admission/policy.py",
        "    if sample.thermal is Thermal.CRITICAL:",
        "    if False:",
    ),
    Seed(
        "nobody is let in",
        "gpud/ledger/ledger.py",
        "        if not self.books.queued or not self._sight.complete:",
        "        if True:",
    ),
)
