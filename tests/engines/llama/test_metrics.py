"""What llama-server counts: as build 11669 told it, as older builds did, and as none can have."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpud.engines.counting.counters import Counters, given_between
from gpud.engines.llama.metrics import counters, pulse

GOLDEN = Path(__file__).parents[2] / "golden/llama_server_metrics.txt"


def test_of_the_present_build_all_is_read() -> None:
    """2000 tokens of requests that ended, and 2601 of each of the two that are served."""
    told = counters(GOLDEN.read_text())
    assert (told.running, told.waiting, told.slots_full) == (2, 1, True)
    assert (told.generated_tokens, told.prompt_tokens, told.cached_tokens) == (2000, 28, 24)
    assert told.looked_up_tokens == 52
    assert (told.steps, told.token_steps) == (4601, 4601)
    assert told.given_tokens == pytest.approx(2000 + 2 * 2601, abs=0.1)
    assert (told.prompt_seconds, told.generation_seconds) == (0.019106, 0.329113)
    absent = (told.requests, told.failed, told.request, told.time_to_first_token)
    assert absent == (None, None, None, None)


def test_of_an_older_build_what_it_has_not_is_unknown() -> None:
    told = counters(
        "llamacpp:prompt_tokens_total 5\nllamacpp:tokens_predicted_total 7\n"
        "llamacpp:kv_cache_usage_ratio 0.25\nllamacpp:requests_processing 1\n"
        "llamacpp:requests_deferred 0\nllamacpp:kv_cache_tokens 12\n"
    )
    assert told == Counters(
        running=1, waiting=0, kv_used_ratio=0.25, prompt_tokens=5, generated_tokens=7
    )


def test_tokens_are_told_by_steps_only_where_each_step_gives_one() -> None:
    text = GOLDEN.read_text()
    with_drafts = text.replace("num_drafts_total 0", "num_drafts_total 9")
    embedding = text.replace("tokens_predicted_total 2000", "tokens_predicted_total 0")
    for other in (with_drafts, embedding):
        told = counters(other)
        assert (told.given_tokens, told.token_steps) == (None, None)
        assert told.slot_steps is not None


def test_of_a_server_that_ran_for_weeks_the_digits_of_its_mean_do_not_do() -> None:
    def after(steps: int, running: int) -> Counters:
        return counters(
            GOLDEN.read_text()
            .replace("n_decode_total 4601", f"n_decode_total {steps}")
            .replace("requests_processing 2", f"requests_processing {running}")
        )

    before = after(90_000_000, 2)
    assert before.given_tokens is None
    assert given_between(before, after(90_000_100, 2)) == 200
    assert given_between(before, after(90_000_100, 4)) == 300
    assert given_between(before, after(100, 2)) == 0, "the requests' own counter stood still"


@pytest.mark.parametrize(
    "text",
    [
        "llamacpp:requests_processing -1\nllamacpp:tokens_predicted_total -5\n",
        "llamacpp:requests_processing 1e300\nllamacpp:tokens_predicted_total 1e300\n",
        "llamacpp:requests_processing NaN\nllamacpp:tokens_predicted_total NaN\n",
        "llamacpp:kv_cache_usage_ratio 7\n",
        "<html><body>404</body></html>",
        "",
    ],
)
def test_what_no_server_can_have_counted_is_not_believed(text: str) -> None:
    assert counters(text).is_blank
    assert pulse(text).running is None


def test_one_that_was_counted_twice_is_one() -> None:
    assert counters("llamacpp:requests_processing 2\n" * 2).running == 2
