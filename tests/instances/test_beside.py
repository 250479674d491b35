"""What the use of a process proves of what it takes beside its buffers, as values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.instances.measuring.beside import Beside, Use, proved
from gpud.units import MIB

LAW = Beside(process_bytes=12 * MIB, own_bytes=1 * MIB, least_bytes=9 * MIB)
UNSTATED = Beside(process_bytes=12 * MIB, own_bytes=1 * MIB, least_bytes=12 * MIB)


def use(used: int, buffers: int, *, is_exact: bool = False, is_touched: bool = True) -> Use:
    return Use(
        used_bytes=used * MIB,
        buffer_bytes=buffers * MIB,
        is_exact=is_exact,
        is_touched=is_touched,
    )


@pytest.mark.parametrize(
    ("seen", "law", "known", "found"),
    [
        # All of it is less than the law: so much it needed at most, and no less than is stated.
        (use(6, 4), LAW, None, 9),
        (use(11, 4), LAW, None, 10),
        (use(11, 4), LAW, 30, 10),
        # Its buffers, not yet touched, may hide all of it.
        (use(100, 150), LAW, None, None),
        (use(100, 150), LAW, 30, 9),  # so that one that was seen wrong is forgotten in time
        (use(100, 95), LAW, None, None),
        # More than the law, and no buffer explains it.
        (use(121, 100), LAW, None, 20),
        (use(121, 100), LAW, 30, 20),
        # Nobody stated how little may be enough.
        (use(6, 4), UNSTATED, None, None),
        (use(6, 4), UNSTATED, 30, 12),
        # A driver counts what is allocated.
        (use(26, 20, is_exact=True, is_touched=False), UNSTATED, None, 5),
        (use(20, 20, is_exact=True, is_touched=False), UNSTATED, None, None),
        # One whose engine told a part of its buffers is no less than the law.
        (use(26, 20, is_touched=False), LAW, None, None),
        (use(40, 20, is_touched=False), LAW, None, 19),
    ],
)
def test_what_is_proved(seen: Use, law: Beside, known: int | None, found: int | None) -> None:
    told = proved(seen, law, None if known is None else known * MIB)
    assert told == (None if found is None else found * MIB)


@given(
    used=st.integers(0, 300), buffers=st.integers(0, 300), known=st.none() | st.integers(1, 100)
)
def test_on_the_host_it_is_never_less_than_what_no_buffer_explains(
    used: int, buffers: int, known: int | None
) -> None:
    told = proved(use(used, buffers), LAW, known)
    assert told is None or told >= max(LAW.least_bytes, (used - buffers) * MIB - LAW.own_bytes)
    if told is None:
        assert (used - buffers) * MIB - LAW.own_bytes <= LAW.process_bytes
