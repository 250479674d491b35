"""Pure: what the use of a process proves of that which it takes beside its buffers.

Pages of the host are seen only once they were touched. So a process that uses U, of which up to B
are buffers, takes between U − B and U beside them: the first proves that it takes so much, the
second that it did not take more until then. It may yet, so the law is left for less only down to
the least that is stated for its engine.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What a load takes beside its buffers by the law: any process, and this model in it.

    (On the host a vocabulary lies on the process's heap.) `least_bytes` is what a process counts
    with however little it was seen to take.
    """

    process_bytes: int
    own_bytes: int
    least_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What processes used, the most of it, and how much of that their buffers may be.

    `is_exact`: a driver counted it, and all of its buffers are known. `is_touched`: it is of
    memory that counts once it was touched.
    """

    used_bytes: int
    buffer_bytes: int
    is_exact: bool
    is_touched: bool


def proved(use: Use, law: Beside, known_bytes: int | None) -> int | None:
    """What such a process takes beside its buffers; None: it shows nothing that was not known.

    `known_bytes` is what earlier ones taught; None: nothing.
    """
    most = use.used_bytes - law.own_bytes
    found = most - use.buffer_bytes
    if use.is_exact:
        return found if found > 0 else None
    if use.is_touched and law.least_bytes < law.process_bytes and most < law.process_bytes:
        return max(most, law.least_bytes)
    if found <= law.process_bytes and known_bytes is None:
        return None
    return max(found, law.least_bytes)
