"""Tokens: forged, changed, old, of another run, of nobody."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.access.identity import Role
from gpud.access.refusals import IdentityMissing
from gpud.access.tokens import (
    MAX_RECENT,
    MINTED_PREFIX,
    MINTED_SECONDS,
    Configured,
    Minted,
    Recent,
    Tokens,
    bearer,
    check_minted,
    digest,
    mint,
)

KEY, OTHER = b"k" * 32, b"o" * 32
ANNA = Minted(name="anna@host", uid=1001, expires_boottime=MINTED_SECONDS, nonce="n")


def test_a_minted_token_is_good_until_it_is_five_minutes_old() -> None:
    token = mint(KEY, ANNA)
    assert check_minted(KEY, token, 0.0) == ANNA
    assert check_minted(KEY, token, MINTED_SECONDS - 0.001) == ANNA
    with pytest.raises(IdentityMissing, match="older than 5 minutes"):
        check_minted(KEY, token, MINTED_SECONDS)


def test_one_of_another_run_is_refused() -> None:
    with pytest.raises(IdentityMissing, match="not minted by this run"):
        check_minted(OTHER, mint(KEY, ANNA), 0.0)


@given(at=st.integers(min_value=0), character=st.characters())
def test_one_that_was_changed_anywhere_is_refused(at: int, character: str) -> None:
    token = mint(KEY, ANNA)
    at = len(MINTED_PREFIX) + at % (len(token) - len(MINTED_PREFIX))
    forged = token[:at] + character + token[at + 1 :]
    if forged != token:
        with pytest.raises(IdentityMissing):
            check_minted(KEY, forged, 0.0)


@given(token=st.text(max_size=200))
def test_anything_else_is_refused(token: str) -> None:
    with pytest.raises(IdentityMissing):
        check_minted(KEY, token, 0.0)
    with pytest.raises(IdentityMissing):
        Tokens({}).find(token)


def test_a_configured_one_is_found_by_its_hash_alone() -> None:
    ci = Configured(name="ci", sha256=digest("gpud_abc"), role=Role.OPERATOR)
    tokens = Tokens({"ci": ci})
    assert tokens.find("gpud_abc") is ci
    for other in ("gpud_abd", "", ci.sha256):
        with pytest.raises(IdentityMissing, match="not one of this node's"):
            tokens.find(other)


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic abc", "token", "Bearer " + "x" * 1025]
)
def test_a_header_that_holds_no_token(header: str) -> None:
    with pytest.raises(IdentityMissing, match="Bearer TOKEN"):
        bearer(header)


def test_the_scheme_may_be_written_as_it_likes() -> None:
    assert bearer("bearer abc") == bearer("Bearer abc") == "abc"


def test_a_token_that_was_checked_before_is_still_looked_at_for_its_age() -> None:
    recent = Recent(KEY)
    token = mint(KEY, Minted(name="anna@host", uid=7, expires_boottime=100.0, nonce="n"))
    assert recent.check(token, 0.0) == recent.check(token, 99.9)
    with pytest.raises(IdentityMissing, match="older than 5 minutes"):
        recent.check(token, 100.0)
    with pytest.raises(IdentityMissing, match="was not minted"):
        recent.check(token[:-1] + ("a" if token[-1] != "a" else "b"), 0.0)


def test_no_more_tokens_are_remembered_than_may_be() -> None:
    recent = Recent(KEY)
    for number in range(MAX_RECENT + 10):
        minted = Minted(name="anna@host", uid=7, expires_boottime=100.0, nonce=str(number))
        assert recent.check(mint(KEY, minted), 0.0) == minted
    assert len(recent._checked) == MAX_RECENT
