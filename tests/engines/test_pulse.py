"""What llama-server's counters say, and how a sleeping one is known without waking it."""

from __future__ import annotations

import pytest

from gpud.engines.engine import Pulse
from gpud.engines.llama.engine import LlamaCpp
from gpud.engines.probe import Answer, ProbeFault
from tests.fakes.probe import FakeProbe, said

ENDPOINT = "http://127.0.0.1:1"
# Of build 11669, shortened.
METRICS = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed, excluding cached tokens
llamacpp:prompt_tokens_total 20
llamacpp:tokens_predicted_total 40
llamacpp:n_decode_total 41
llamacpp:requests_processing {running}
llamacpp:requests_deferred 2
"""


def probe(running: int, **answers: Answer | ProbeFault) -> FakeProbe:
    metrics = Answer(status=200, body=METRICS.format(running=running).encode())
    return FakeProbe({"/metrics": metrics, **{f"/{k}": v for k, v in answers.items()}})


async def pulse(fake: FakeProbe) -> Pulse | None:
    return await LlamaCpp("llama-server", fake).pulse(ENDPOINT)


async def test_work_is_all_that_grows_with_it() -> None:
    assert await pulse(probe(1)) == Pulse(
        running=1, waiting=2, progress=101.0, completed=40.0, tokens=40.0, holds_contexts=True
    )


@pytest.mark.parametrize("sleeping", [True, False])
async def test_an_idle_one_is_asked_whether_it_sleeps(sleeping: bool) -> None:
    told = await pulse(probe(0, props=said(200, {"is_sleeping": sleeping})))
    assert told is not None
    assert told.sleeping is sleeping


async def test_one_that_works_is_not_asked() -> None:
    fake = probe(3)
    await pulse(fake)
    assert [url for _, url, _ in fake.asked] == [f"{ENDPOINT}/metrics"]


@pytest.mark.parametrize("answer", [ProbeFault.TIMEOUT, said(404, {}), said(200, [])])
async def test_a_build_that_does_not_tell_is_awake(answer: Answer | ProbeFault) -> None:
    told = await pulse(probe(0, props=answer))
    assert told is not None
    assert not told.sleeping


@pytest.mark.parametrize("answer", [ProbeFault.TIMEOUT, said(501, {}), said(401, {})])
async def test_no_counters_are_no_pulse(answer: Answer | ProbeFault) -> None:
    assert await pulse(FakeProbe({"/metrics": answer})) is None
