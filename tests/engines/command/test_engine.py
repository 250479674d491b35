"""The engine `command`, asked through a probe that is only told about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gpud.devices.snapshot import DeviceKind
from gpud.engines.api_key import ApiKey
from gpud.engines.command.engine import CommandEngine
from gpud.engines.command.program import ProgramRefused
from gpud.engines.engine import Pulse, Readiness, StartRequest
from gpud.engines.probe import Answer, ProbeFailed, ProbeFault
from gpud.errors import OptionInvalid
from gpud.models.catalogue import Inspection
from gpud.models.footprint import DeviceTraits
from gpud.models.learned import EngineBuild, load_key
from gpud.models.model import (
    CommandSpec,
    Confidence,
    EngineKind,
    Model,
    ModelKind,
    ModelOptions,
)
from tests.fakes.probe import FakeProbe, said

AT = "http://127.0.0.1:18080"
SPEC = CommandSpec(
    argv=("/bin/sh", "-c", "${PORT}"),
    health="/up",
    metrics="/m",
    counters=(("running", "jobs"), ("waiting", "queue"), ("progress", "steps")),
    device_bytes=1000,
    host_bytes=10,
    environment=(("OLLAMA_HOST", ":${PORT}"),),
)
MODEL = Model(
    id="whisper",
    engine=EngineKind.COMMAND,
    kind=None,
    path="",
    options=ModelOptions(),
    command=SPEC,
)
HOST = DeviceTraits(kind=DeviceKind.HOST, model_name="host")
CARD = DeviceTraits(kind=DeviceKind.GPU, model_name="P106-100")


def engine(probe: FakeProbe, spec: CommandSpec | None = SPEC) -> CommandEngine:
    return CommandEngine(probe, lambda endpoint: spec if endpoint == AT else None)


@pytest.mark.parametrize(
    ("answer", "readiness"),
    [
        (Answer(status=200, body=b""), Readiness.READY),
        (Answer(status=204, body=b""), Readiness.READY),
        (Answer(status=503, body=b""), Readiness.LOADING),
        (Answer(status=404, body=b""), Readiness.LOADING),
        (Answer(status=302, body=b""), Readiness.BROKEN),
        (Answer(status=401, body=b""), Readiness.BROKEN),
        (ProbeFault.REFUSED, Readiness.REFUSED),
        (ProbeFault.TIMEOUT, Readiness.LOADING),
        (ProbeFault.BROKEN, Readiness.BROKEN),
    ],
)
async def test_readiness_is_its_health_path(
    answer: Answer | ProbeFault, readiness: Readiness
) -> None:
    assert await engine(FakeProbe({"/up": answer})).readiness(AT) is readiness


async def test_of_an_entry_that_is_gone_only_an_answer_counts() -> None:
    probe = FakeProbe({"/": Answer(status=404, body=b"")})
    assert await engine(probe, None).readiness(AT) is Readiness.READY
    assert await engine(FakeProbe(), None).readiness(AT) is Readiness.REFUSED
    assert await engine(probe, None).pulse(AT) is None
    assert await engine(probe, None).in_flight(AT) is None


async def test_its_pulse_is_of_the_metrics_that_its_entry_names() -> None:
    text = b"jobs 2\nqueue 3\nsteps 99\n"
    probe = FakeProbe({"/m": Answer(status=200, body=text)})
    assert await engine(probe).pulse(AT) == Pulse(running=2, waiting=3, progress=99)
    assert await engine(probe).in_flight(AT) == 5
    assert await engine(FakeProbe({"/m": Answer(status=500, body=text)})).pulse(AT) is None
    assert await engine(FakeProbe({"/m": ProbeFault.TIMEOUT})).pulse(AT) is None
    without = replace(SPEC, metrics="", counters=())
    assert await engine(probe, without).in_flight(AT) is None


@pytest.mark.parametrize(
    ("kind", "path", "field"),
    [
        (ModelKind.CHAT, "/v1/chat/completions", "messages"),
        (ModelKind.COMPLETION, "/v1/completions", "prompt"),
        (ModelKind.EMBEDDING, "/v1/embeddings", "input"),
    ],
)
async def test_first_tokens_are_asked_by_kind(kind: ModelKind, path: str, field: str) -> None:
    probe = FakeProbe({path: said(200, {})})
    model = replace(MODEL, kind=kind, command=replace(SPEC, served_name="w-1"))
    await engine(probe).warm_up(AT, model, ModelOptions(), ApiKey("0123456789abcdef"))
    ((method, url, body),) = probe.asked
    assert (method, url) == ("POST", AT + path)
    assert body is not None
    assert body["model"] == "w-1"
    assert field in body
    assert probe.keys == ["0123456789abcdef"]
    with pytest.raises(ProbeFailed, match="500"):
        await engine(FakeProbe({path: said(500, {})})).probe(AT, model, ModelOptions())


async def test_without_a_kind_its_health_is_all_there_is() -> None:
    probe = FakeProbe({"/up": said(200, {})})
    await engine(probe).probe(AT, MODEL, ModelOptions())
    warmth = await engine(probe).warm_up(AT, MODEL, ModelOptions())
    assert warmth.tokens_per_second is None
    assert [url for _, url, _ in probe.asked] == [f"{AT}/up"] * 2
    with pytest.raises(ProbeFailed):
        await engine(FakeProbe()).probe(AT, MODEL, ModelOptions())


def request_for(model: Model, tmp_path: Path) -> StartRequest:
    return StartRequest(
        model=model,
        options=ModelOptions(),
        model_path=tmp_path,
        host="127.0.0.1",
        port=18080,
        visible_devices=("GPU-1",),
        directory=tmp_path,
    )


async def test_it_is_started_as_its_entry_says(tmp_path: Path) -> None:
    asked = engine(FakeProbe())
    program = await asked.program()
    command = asked.command(program, request_for(MODEL, tmp_path))
    assert command.argv == ("/bin/sh", "-c", "18080")
    assert command.environment["OLLAMA_HOST"] == ":18080"
    assert command.environment["CUDA_VISIBLE_DEVICES"] == "GPU-1"
    assert command.environment["HOME"] == str(tmp_path)
    with pytest.raises(ProgramRefused, match="names no argv"):
        asked.command(program, request_for(replace(MODEL, command=None), tmp_path))
    with pytest.raises(ProgramRefused, match="names no argv"):
        await asked.look(replace(MODEL, command=None))
    await asked.look(MODEL)
    gone = replace(SPEC, argv=(f"{tmp_path}/none", "${PORT}"))
    with pytest.raises(ProgramRefused, match="no such file"):
        await asked.look(replace(MODEL, command=gone))


def test_it_is_promised_what_its_entry_declares() -> None:
    asked = engine(FakeProbe())
    seen = Inspection(names=(), artifacts=(), kind=None, command=SPEC)
    on_card = asked.estimate(seen, ModelOptions(), CARD)
    assert (on_card.total_bytes, on_card.confidence) == (1000, Confidence.GUESS)
    assert asked.host_bytes(seen, ModelOptions(), CARD) == 10
    assert asked.estimate(seen, ModelOptions(), HOST).total_bytes == 1010
    assert asked.host_bytes(seen, ModelOptions(), HOST) == 0


@pytest.mark.parametrize(
    "options", [ModelOptions(parallel=1), ModelOptions(dtype="auto"), ModelOptions(mlock=False)]
)
def test_options_are_of_other_engines(options: ModelOptions) -> None:
    with pytest.raises(OptionInvalid, match="not of command"):
        engine(FakeProbe()).check_options(options)


def test_its_last_words_are_understood() -> None:
    explain = engine(FakeProbe()).explain_exit
    assert explain(("listen tcp: bind: Address already in use",)) == "its port is taken"
    assert explain(("torch: CUDA out of memory",)) == "it ran out of memory"
    assert explain(("bye",)) == ""


def test_what_one_was_measured_to_take_is_not_anothers() -> None:
    """They have neither files nor options to tell them apart."""
    build = EngineBuild(kind=EngineKind.COMMAND, version="of the configuration")
    keys = {
        load_key(
            Inspection(names=(), artifacts=(), kind=None, command=replace(SPEC, argv=argv)),
            ModelOptions(),
            build,
            HOST,
        )
        for argv in (("/a", "${PORT}"), ("/b", "${PORT}"), ("/b", "${PORT}"))
    }
    assert len(keys) == 2
