"""The table of proofs: one line each, kept until the same proof is run again."""

from __future__ import annotations

from typing import Any

import pytest

from tests.proof.table import BEGIN, END, README, updated

PAGE = f"before\n{BEGIN}\n{END}\nafter\n"


def result(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "name": name, "date": "2026-11-21", "asked": 10, "done": 10, "violations": 0,
        "seconds": 1.5, "proving": True,
    } | fields  # fmt: skip


def test_lines_are_added_in_order_and_replaced() -> None:
    page = updated(
        PAGE, [result(name) for name in ("R10 bad input", "cycles", "I13 full disk", "R2 calls")]
    )
    names = [line.split("|")[1].strip() for line in page.splitlines() if "| 10 |" in line]
    assert names == ["R2 calls", "R10 bad input", "cycles", "I13 full disk"]
    page = updated(page, [result("R2 calls", asked=20, done=20)])
    assert "| R2 calls | 20 | 20 | 0 violations | 1.5 | 2026-11-21 |" in page
    assert page.count("R2 calls") == 1
    assert "R10 bad input" in page
    assert page.count("| cycles |") == 1, "whatever it is called"
    assert page.startswith("before\n")
    assert page.endswith("after\n")


def test_what_failed_says_so() -> None:
    page = updated(PAGE, [result("R1 kills", violations=2, done=9)])
    assert "**2 violations**, **incomplete**" in page


def test_a_run_of_the_tests_alone_is_no_proof() -> None:
    assert "R1" not in updated(PAGE, [result("R1 kills", proving=False)])


def test_a_page_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="put them back"):
        updated("no table", [])


def test_the_page_has_the_place() -> None:
    assert updated(README.read_text(), []).count(BEGIN) == 1
