"""What is sent: prompts of a length, requests in the engine's own words."""

from __future__ import annotations

import pytest

from gpud.benchmarking.workload import (
    Dialect,
    first_guess,
    nearest,
    next_guess,
    prompt,
    request,
)
from gpud.models.model import EngineKind, ModelKind


def dialect(
    kind: ModelKind, engine: EngineKind = EngineKind.LLAMA_CPP, *, pools: bool = True
) -> Dialect:
    return Dialect(engine=engine, kind=kind, model="m", salt="s4lt", pools=pools)


def test_prompts_are_the_same_each_time_and_differ_from_each_other() -> None:
    assert prompt(50, 7) == prompt(50, 7)
    several = [prompt(50, number) for number in range(200)]
    assert len({text[:40] for text in several}) == 200
    assert {tuple(sorted(text.split())) for text in several} == {tuple(sorted(several[0].split()))}
    assert prompt(1, 3)


@pytest.mark.parametrize("per_word", [0.3, 1, 1.7, 6])
@pytest.mark.parametrize("overhead", [0, 12])
@pytest.mark.parametrize("wanted", [16, 128, 4000])
def test_the_length_is_found_in_few_guesses(per_word: float, overhead: int, wanted: int) -> None:
    tried: dict[int, int] = {}
    guess: int | None = first_guess(wanted)
    while guess is not None and len(tried) < 6:
        tried[guess] = overhead + round(per_word * guess)
        guess = next_guess(wanted, tried)
    found = tried[nearest(wanted, tried)]
    assert abs(found - wanted) <= max(1, per_word, wanted * 0.01)


def test_a_template_that_is_longer_than_the_prompt_leaves_one_word() -> None:
    tried = {1: 40}
    assert next_guess(8, tried) is None
    assert nearest(8, tried) == 1


def test_a_server_that_counts_the_same_whatever_is_sent_ends_the_search() -> None:
    tried: dict[int, int] = {}
    guess: int | None = first_guess(1000)
    while guess is not None and len(tried) < 100:
        tried[guess] = 10
        guess = next_guess(1000, tried)
        if len(tried) == 6:
            break
    assert len(tried) == 6


def test_each_engine_is_kept_from_its_cache_and_from_ending_early() -> None:
    path, body = request(dialect(ModelKind.CHAT), "hi", 9)
    assert path == "/v1/chat/completions"
    assert body["messages"] == [{"role": "user", "content": "hi"}]
    assert (body["max_tokens"], body["stream"], body["temperature"]) == (9, True, 0)
    assert body["stream_options"] == {"include_usage": True}
    assert (body["ignore_eos"], body["cache_prompt"]) == (True, False)
    path, body = request(dialect(ModelKind.COMPLETION, EngineKind.VLLM), "hi", 9)
    assert (path, body["prompt"], body["model"]) == ("/v1/completions", "hi", "m")
    assert (body["ignore_eos"], body["cache_salt"]) == (True, "s4lt")
    _, body = request(dialect(ModelKind.CHAT, EngineKind.COMMAND), "hi", 9)
    assert not {"ignore_eos", "cache_prompt", "cache_salt"} & body.keys()


def test_what_is_not_generated_is_asked_for_whole() -> None:
    embedding = request(dialect(ModelKind.EMBEDDING), "a b", 9)
    assert embedding == ("/v1/embeddings", {"model": "m", "input": "a b"})
    unpooled = request(dialect(ModelKind.EMBEDDING, pools=False), "a b", 9)
    assert unpooled == ("/embedding", {"content": "a b"})
    path, body = request(dialect(ModelKind.RERANK), "a b c", 9)
    assert (path, body["query"], body["documents"]) == ("/v1/rerank", "a", ["b c"])
