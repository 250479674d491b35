"""Vllm with told answers; the real one is in tests/vllm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gpud.engines.api_key import ApiKey
from gpud.engines.engine import Readiness, Warmth
from gpud.engines.probe import Answer, ProbeFailed, ProbeFault
from gpud.engines.vllm.engine import Vllm
from gpud.models.model import EngineKind, Model, ModelKind, ModelOptions
from tests.fakes.probe import FakeProbe, said

ENDPOINT = "http://127.0.0.1:1"
BUSY = (Path(__file__).parents[2] / "golden/vllm/metrics_busy.txt").read_bytes()
METRICS = {"/metrics": Answer(status=200, body=BUSY)}
KEY = ApiKey("k" * 20)


def engine(probe: FakeProbe) -> Vllm:
    return Vllm(("vllm", "serve"), Path("/nowhere"), probe)


def model(kind: ModelKind) -> Model:
    return Model(id="tiny", engine=EngineKind.VLLM, kind=kind, path="t", options=ModelOptions())


@pytest.mark.parametrize(
    ("answer", "readiness"),
    [
        (ProbeFault.REFUSED, Readiness.REFUSED),
        (ProbeFault.TIMEOUT, Readiness.LOADING),
        (ProbeFault.BROKEN, Readiness.BROKEN),
        (Answer(status=200, body=b""), Readiness.READY),
        (Answer(status=503, body=b""), Readiness.BROKEN),
    ],
)
async def test_readiness(answer: Answer | ProbeFault, readiness: Readiness) -> None:
    assert await engine(FakeProbe({"/health": answer})).readiness(ENDPOINT) is readiness


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (ModelKind.CHAT, "/v1/chat/completions"),
        (ModelKind.COMPLETION, "/v1/completions"),
        (ModelKind.EMBEDDING, "/v1/embeddings"),
        (ModelKind.RERANK, "/v1/rerank"),
    ],
)
async def test_each_kind_is_warmed_and_probed_in_its_own_way(kind: ModelKind, path: str) -> None:
    probe = FakeProbe({path: said(200, {}), **METRICS})
    one = engine(probe)
    warmth = await one.warm_up(ENDPOINT, model(kind), ModelOptions(), KEY)
    # The sums stood still between the two readings: nothing is made of them.
    assert warmth == Warmth(tokens_per_second=None, time_to_first_token_seconds=None)
    await one.probe(ENDPOINT, model(kind), ModelOptions(), KEY)
    bodies = [body for method, _, body in probe.asked if method == "POST"]
    assert all(body is not None and body["model"] == "tiny" for body in bodies)
    assert set(probe.keys) == {"k" * 20}
    if kind in {ModelKind.CHAT, ModelKind.COMPLETION}:
        assert [body["max_tokens"] for body in bodies if body] == [4, 1]


async def test_an_embedding_is_asked_of_a_model_that_was_made_to_embed() -> None:
    probe = FakeProbe({"/v1/embeddings": said(200, {})})
    await engine(probe).probe(ENDPOINT, model(ModelKind.CHAT), ModelOptions(embedding=True))
    assert probe.asked[0][1].endswith("/v1/embeddings")


class Growing(FakeProbe):
    """Its sums have grown at the second look."""

    async def get(self, url: str, timeout_seconds: float, key: ApiKey | None = None) -> Answer:
        if not url.endswith("/metrics"):
            return await super().get(url, timeout_seconds, key)
        looks = [asked for asked in self.asked if asked[0] == "GET"]
        self.asked.append(("GET", url, None))
        return Answer(status=200, body=_sums(grown=bool(looks)))


async def test_the_speed_is_what_its_own_sums_grew_by() -> None:
    probe = Growing({"/v1/completions": said(200, {})})
    warmth = await engine(probe).warm_up(ENDPOINT, model(ModelKind.COMPLETION), ModelOptions())
    assert warmth.tokens_per_second == pytest.approx(3 / 0.5)
    assert warmth.time_to_first_token_seconds == pytest.approx(0.25)


def _sums(*, grown: bool) -> bytes:
    sums = {
        "time_to_first_token_seconds_count": 2 if grown else 1,
        "time_to_first_token_seconds_sum": 1.25 if grown else 1.0,
        "inter_token_latency_seconds_count": 13 if grown else 10,
        "inter_token_latency_seconds_sum": 2.5 if grown else 2.0,
    }
    return "".join(f'vllm:{name}{{engine="0"}} {value}\n' for name, value in sums.items()).encode()


FULL = ModelOptions(max_num_batched_tokens=512)
LISTED = said(200, {"data": [{"id": "tiny", "max_model_len": 256}]})


def prompts(probe: FakeProbe) -> list[object]:
    return [body["prompt"] for method, _, body in probe.asked if method == "POST" and body]


async def test_a_whole_step_is_tried_where_it_takes_no_time_that_matters() -> None:
    answered = said(200, {"usage": {"prompt_tokens": 10}})
    probe = Growing({"/v1/completions": answered})
    probe.answers["/v1/models"] = LISTED
    await engine(probe).warm_up(ENDPOINT, model(ModelKind.COMPLETION), FULL)
    assert [len(prompt) for prompt in prompts(probe)[1:]] == [255]  # type: ignore[arg-type]
    # 0.25 s for ten tokens: 2048 of them might take a minute.
    slow = Growing({"/v1/completions": answered})
    long = ModelOptions(max_num_batched_tokens=2048)
    await engine(slow).warm_up(ENDPOINT, model(ModelKind.COMPLETION), long)
    assert len(prompts(slow)) == 1


async def test_a_step_for_which_there_is_no_memory_fails_the_load() -> None:
    class Small(Growing):
        async def post_json(
            self,
            url: str,
            body: Mapping[str, Any],
            timeout_seconds: float,
            key: ApiKey | None = None,
        ) -> Answer:
            await super().post_json(url, body, timeout_seconds, key)
            if len(body["prompt"]) > 100:
                return said(500, {"error": "out of memory"})
            return said(200, {"usage": {"prompt_tokens": 10}})

    probe = Small({"/v1/completions": said(200, {}), "/v1/models": LISTED})
    with pytest.raises(ProbeFailed, match=r"500 .*out of memory"):
        await engine(probe).warm_up(ENDPOINT, model(ModelKind.COMPLETION), FULL)


async def test_a_refusal_is_told_with_its_words() -> None:
    probe = FakeProbe({"/v1/completions": said(404, {"error": "no such model"})})
    with pytest.raises(ProbeFailed, match=r"404 .*no such model"):
        await engine(probe).probe(ENDPOINT, model(ModelKind.COMPLETION), ModelOptions())


async def test_requests_in_flight_are_those_that_run_and_those_that_wait() -> None:
    assert await engine(FakeProbe(METRICS)).in_flight(ENDPOINT) == 1
    assert await engine(FakeProbe()).in_flight(ENDPOINT) is None
    assert await engine(FakeProbe()).pulse(ENDPOINT) is None
    silent = FakeProbe({"/metrics": Answer(status=404, body=b"")})
    assert await engine(silent).pulse(ENDPOINT) is None
    mute = FakeProbe({"/metrics": Answer(status=200, body=b"")})
    assert await engine(mute).in_flight(ENDPOINT) is None


async def test_sleep_names_its_level_and_wake_follows() -> None:
    answers = {
        "/sleep?level=2": said(200, {"status": "sleeping", "level": 2}),
        "/wake_up": said(200, {"status": "awake"}),
        "/is_sleeping": said(200, {"is_sleeping": True}),
    }
    one = engine(FakeProbe(answers))
    await one.sleep(ENDPOINT, 2)
    assert await one.is_sleeping(ENDPOINT) is True
    await one.wake(ENDPOINT)
    # From level 2 its weights are read again, into room that it was given back.
    steps = ("/wake_up?tags=weights", "/collective_rpc", "/wake_up")
    deep = FakeProbe({path: said(200, {}) for path in steps})
    await engine(deep).wake(ENDPOINT, level=2)
    lacks = FakeProbe({path: said(200 if path != steps[1] else 404, {}) for path in steps})
    with pytest.raises(ProbeFailed, match="404"):
        await engine(lacks).wake(ENDPOINT, level=2)
    # Without sleep_mode there are no such routes.
    plain = engine(FakeProbe({path: said(404, {"detail": "Not Found"}) for path in answers}))
    assert await plain.is_sleeping(ENDPOINT) is None
    with pytest.raises(ProbeFailed, match="404"):
        await plain.sleep(ENDPOINT, 2)
    assert await engine(FakeProbe()).is_sleeping(ENDPOINT) is None


def test_it_needs_as_many_devices_as_ranks() -> None:
    one = engine(FakeProbe())
    assert one.devices_needed(ModelOptions()) == 1
    assert one.devices_needed(ModelOptions(tensor_parallel_size=4)) == 4
    assert one.contexts_per_device(ModelOptions()) == 1
