"""What an instance has no room for is refused before anything is sent."""

from __future__ import annotations

import pytest

from gpud.benchmarking.benchmark import Plan
from gpud.benchmarking.refusals import check_fits, slot_tokens
from gpud.errors import OptionInvalid
from gpud.models.model import EngineKind, ModelOptions

LLAMA, VLLM, COMMAND = EngineKind.LLAMA_CPP, EngineKind.VLLM, EngineKind.COMMAND
FOUR = ModelOptions(context_length=4096, parallel=4)


@pytest.mark.parametrize(
    ("engine", "options", "tokens"),
    [
        (LLAMA, FOUR, 1024),
        (LLAMA, ModelOptions(context_length=4096, parallel=4, kv_unified=True), 4096),
        (LLAMA, ModelOptions(context_length=4096), 4096),
        (VLLM, FOUR, 4096),
        (VLLM, ModelOptions(), None),
        (COMMAND, FOUR, None),
    ],
)
def test_the_context_of_one_request(
    engine: EngineKind, options: ModelOptions, tokens: int | None
) -> None:
    assert slot_tokens(engine, options) == tokens


def test_a_prompt_and_its_answer_must_have_room() -> None:
    check_fits(LLAMA, FOUR, Plan(prompt_tokens=960, output_tokens=64))
    check_fits(COMMAND, FOUR, Plan(prompt_tokens=10**6))
    with pytest.raises(
        OptionInvalid, match="961 and an answer of 64 are more than the 1024"
    ) as no:
        check_fits(LLAMA, FOUR, Plan(prompt_tokens=961, output_tokens=64))
    assert no.value.field == "prompt_tokens"
    vectors = ModelOptions(context_length=4096, parallel=4, embedding=True)
    check_fits(LLAMA, vectors, Plan(prompt_tokens=1024, output_tokens=64))
    with pytest.raises(OptionInvalid, match="1025 are more than"):
        check_fits(LLAMA, vectors, Plan(prompt_tokens=1025))
