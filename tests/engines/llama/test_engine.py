"""LlamaCpp: with told answers, with a stub program, and with the real llama-server."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gpud.engines.api_key import ApiKey
from gpud.engines.engine import Readiness, StartRequest, Warmth
from gpud.engines.llama import engine as llama
from gpud.engines.llama.engine import LlamaCpp
from gpud.engines.llama.output import parse_buffers
from gpud.engines.probe import HttpProbe, ProbeFailed, ProbeFault
from gpud.errors import EngineMissing
from gpud.models.model import FootprintWhat, ModelKind, ModelOptions
from gpud.units import KIB, MIB
from tests.engines.conftest import Request
from tests.fakes.probe import FakeProbe, said
from tests.fakes.stub_engine import write_stub

ENDPOINT = "http://127.0.0.1:1"
LOADING = said(503, {"error": {"message": "Loading model", "code": 503}})


# With told answers.


@pytest.mark.parametrize(
    ("answer", "readiness"),
    [
        (ProbeFault.REFUSED, Readiness.REFUSED),
        (ProbeFault.TIMEOUT, Readiness.LOADING),
        (ProbeFault.BROKEN, Readiness.BROKEN),
        (LOADING, Readiness.LOADING),
        (said(200, {"status": "ok"}), Readiness.READY),
        (said(200, {"status": "OK?"}), Readiness.BROKEN),
        (said(200, ["ok"]), Readiness.BROKEN),
        (said(404, {}), Readiness.BROKEN),
        (said(503, "gateway"), Readiness.BROKEN),
    ],
)
async def test_readiness(answer: object, readiness: Readiness) -> None:
    engine = LlamaCpp("llama-server", FakeProbe({"/health": answer}))  # type: ignore[dict-item]
    assert await engine.readiness(ENDPOINT) is readiness


TIMINGS = {"prompt_ms": 250.0, "predicted_n": 4, "predicted_per_second": 80.5}
ONE_TOKEN = TIMINGS | {"predicted_n": 1}


@pytest.mark.parametrize(
    ("kind", "path", "answer", "warmth"),
    [
        (ModelKind.CHAT, "/v1/chat/completions", {"timings": TIMINGS}, (80.5, 0.25)),
        (ModelKind.COMPLETION, "/v1/completions", {"timings": TIMINGS}, (80.5, 0.25)),
        (ModelKind.CHAT, "/v1/chat/completions", {"timings": ONE_TOKEN}, (None, 0.25)),
        (ModelKind.CHAT, "/v1/chat/completions", {}, (None, None)),
        (ModelKind.EMBEDDING, "/embedding", {"data": []}, (None, None)),
        (ModelKind.RERANK, "/v1/rerank", {"results": []}, (None, None)),
    ],
)  # fmt: skip
async def test_warm_up_asks_for_what_the_model_is_for(
    kind: ModelKind,
    path: str,
    answer: object,
    warmth: tuple[float | None, float | None],
    request_for: Request,
) -> None:
    probe = FakeProbe({path: said(200, answer)})
    model = request_for(kind=kind).model
    speed, first = warmth
    assert await LlamaCpp("x", probe).warm_up(ENDPOINT, model, ModelOptions()) == Warmth(
        tokens_per_second=speed, time_to_first_token_seconds=first
    )
    assert [url for _, url, _ in probe.asked] == [ENDPOINT + path]


@pytest.mark.parametrize("kind", [ModelKind.CHAT, ModelKind.COMPLETION])
async def test_a_probe_is_one_token_for_one_token(kind: ModelKind, request_for: Request) -> None:
    probe = FakeProbe({"/completion": said(200, {})})
    await LlamaCpp("x", probe).probe(ENDPOINT, request_for(kind=kind).model, ModelOptions())
    ((_, _, body),) = probe.asked
    assert body == {"prompt": [0], "n_predict": 1, "cache_prompt": False}


async def test_warm_up_that_is_refused_fails_with_what_was_said(request_for: Request) -> None:
    probe = FakeProbe({"/embedding": said(501, {"error": "Start it with `--embeddings`"})})
    with pytest.raises(ProbeFailed, match=r"501 .*--embeddings"):
        await LlamaCpp("x", probe).warm_up(
            ENDPOINT, request_for().model, ModelOptions(embedding=True)
        )


@pytest.mark.parametrize(
    ("warmth", "words"),
    [
        ((80.4, 0.1234), "first token after 123 ms, 80 tokens/s"),
        ((None, 2.5), "first token after 2,500 ms"),
        ((6565.0, None), "6565 tokens/s"),
        ((None, None), ""),
    ],
)
def test_the_first_tokens_are_told(warmth: tuple[float | None, float | None], words: str) -> None:
    speed, first = warmth
    assert str(Warmth(tokens_per_second=speed, time_to_first_token_seconds=first)) == words


async def test_in_flight_is_unknown_without_metrics() -> None:
    assert await LlamaCpp("x", FakeProbe()).in_flight(ENDPOINT) is None
    counted = FakeProbe({"/metrics": said(501, {})})
    assert await LlamaCpp("x", counted).in_flight(ENDPOINT) is None


async def test_the_key_is_shown_where_one_is_asked(request_for: Request) -> None:
    probe = FakeProbe({"/v1/chat/completions": said(200, {}), "/metrics": said(200, {})})
    engine, key = LlamaCpp("x", probe), ApiKey("a-key-of-16-bytes")
    await engine.warm_up(ENDPOINT, request_for().model, ModelOptions(), key)
    await engine.in_flight(ENDPOINT, key)
    await engine.in_flight(ENDPOINT)
    # /health is answered without: a probe that shows it there would show it to whoever listens.
    await engine.readiness(ENDPOINT)
    assert probe.keys == ["a-key-of-16-bytes", "a-key-of-16-bytes", None, None]


# With a stub program.


async def test_a_build_without_key_files_is_never_started_open(
    tmp_path: Path, request_for: Request
) -> None:
    engine = LlamaCpp(str(write_stub(tmp_path)), FakeProbe())
    program = await engine.program()
    asked = replace(request_for(), key_path=tmp_path / "key" / "api-key")
    argv = engine.command(program, asked).argv
    assert argv[argv.index("--api-key-file") + 1] == str(tmp_path / "key" / "api-key")
    flags = {name: text for name, text in program.flags.items() if name != "--api-key-file"}
    with pytest.raises(EngineMissing, match="does not name --api-key-file, which models/tiny"):
        engine.command(replace(program, flags=flags), asked)


async def test_program_is_examined_once_per_build(tmp_path: Path) -> None:
    path = write_stub(tmp_path)
    engine = LlamaCpp(str(path), FakeProbe())
    first = await engine.program()
    assert first.version == "0.0.1 (build 1, commit stub)"
    assert await engine.program() is first
    os.utime(path, ns=(1, 1))
    assert await engine.program() is not first


async def test_program_is_found_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_stub(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (await LlamaCpp("llama-server", FakeProbe()).program()).path == str(path)


def script(directory: Path, text: str, mode: int = 0o755) -> str:
    path = directory / "llama-server"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("text", "mode", "problem"),
    [
        (None, 0, "no such file"),
        ("#!/bin/sh\n", 0o644, "not executable"),
        ("#!/bin/sh\necho hello\n", 0o755, "not a llama-server: its --help does not name --model"),
        ("#!/bin/sh\nyes\n", 0o755, "not a llama-server"),
        ("#!/nonexistent/sh\n", 0o755, "cannot be executed: No such file"),
        ("#!/bin/sh\nexec sleep 100\n", 0o755, "gives no end of --help within 0.2 s"),
    ],
)
async def test_what_is_not_a_llama_server_is_said(
    text: str | None, mode: int, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama, "HELP_LIMIT_SECONDS", 0.2 if "0.2" in problem else 60.0)
    path = str(tmp_path / "llama-server") if text is None else script(tmp_path, text, mode)
    with pytest.raises(EngineMissing, match=problem) as missing:
        await LlamaCpp(path, FakeProbe()).program()
    assert missing.value.program == path


async def test_a_name_that_is_nowhere_on_path_is_said() -> None:
    with pytest.raises(EngineMissing, match="llama-nowhere: not on PATH; install it or set"):
        await LlamaCpp("llama-nowhere", FakeProbe()).program()


# With the real one.


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def started(engine: LlamaCpp, request: StartRequest) -> asyncio.subprocess.Process:
    command = engine.command(await engine.program(), request)
    return await asyncio.create_subprocess_exec(
        *command.argv,
        env=command.environment,
        stderr=asyncio.subprocess.STDOUT,
        stdout=asyncio.subprocess.PIPE,
    )


Serving = tuple[LlamaCpp, str, asyncio.subprocess.Process]


@asynccontextmanager
async def served(llama_server: Path, request: StartRequest) -> AsyncIterator[Serving]:
    """A server that was READY; its output can be read once it ended."""
    engine = LlamaCpp(str(llama_server), HttpProbe())
    endpoint = f"http://127.0.0.1:{request.port}"
    async with asyncio.timeout(30):
        child = await started(engine, request)
        try:
            seen = set()
            while Readiness.READY not in seen:
                seen.add(await engine.readiness(endpoint))
                assert child.returncode is None
                assert Readiness.BROKEN not in seen
            yield engine, endpoint, child
        finally:
            if child.returncode is None:
                child.kill()
            await child.communicate()


@pytest.mark.engine
async def test_real_server_warms_up_and_tells_its_buffers(
    llama_server: Path, tiny_model: Path, request_for: Request
) -> None:
    options = ModelOptions(context_length=1000, cache_type_k="q8_0", cache_type_v="q8_0")
    request = request_for(tiny_model, options=options, port=free_port())
    async with served(llama_server, request) as (engine, endpoint, child):
        warmth = await engine.warm_up(endpoint, request.model, request.options)
        assert warmth.tokens_per_second is not None
        assert warmth.tokens_per_second > 0
        assert warmth.time_to_first_token_seconds is not None
        assert await engine.in_flight(endpoint) == 0
        child.terminate()
        output, _ = await child.communicate()
        assert child.returncode == 0
    lines = tuple(output.decode().splitlines())
    sizes = {buffer.what: buffer.bytes for buffer in parse_buffers(lines)}
    # 2 layers × 2 heads × 32 × 2 × 34/32 B × 1024 cells, told with two decimals of a MiB.
    assert sizes[FootprintWhat.KV_CACHE] == pytest.approx(272 * KIB, abs=0.005 * MIB)
    assert FootprintWhat.WEIGHTS in sizes
    assert FootprintWhat.COMPUTE in sizes
    assert engine.measured_bytes(lines) == sum(sizes.values())
    assert engine.explain_exit(lines) == "somebody else told it to stop"


@pytest.mark.engine
async def test_real_server_embeds(
    llama_server: Path, tiny_model: Path, request_for: Request
) -> None:
    request = request_for(tiny_model, kind=ModelKind.EMBEDDING, port=free_port())
    async with served(llama_server, request) as (engine, endpoint, _):
        warmth = await engine.warm_up(endpoint, request.model, request.options)
    assert warmth == Warmth(tokens_per_second=None, time_to_first_token_seconds=None)


def garbage(path: Path) -> Path:
    file = path / "garbage.gguf"
    file.write_bytes(b"NOPE" * 1000)
    return file


def cut_short(path: Path, model: Path) -> Path:
    file = path / "cut.gguf"
    file.write_bytes(model.read_bytes()[: model.stat().st_size // 2])
    return file


@pytest.mark.engine
@pytest.mark.parametrize(
    ("model_of", "meaning"),
    [
        (lambda path, _: garbage(path), "the model file is not a GGUF file"),
        (cut_short, "the model file is cut short"),
        (lambda path, _: path / "missing.gguf", "the model file cannot be opened"),
    ],
)
async def test_real_server_says_why_it_cannot_load(
    model_of: Callable[[Path, Path], Path],
    meaning: str,
    llama_server: Path,
    tiny_model: Path,
    request_for: Request,
    tmp_path: Path,
) -> None:
    engine = LlamaCpp(str(llama_server), HttpProbe())
    request = request_for(model_of(tmp_path, tiny_model), port=free_port())
    child = await started(engine, request)
    output, _ = await asyncio.wait_for(child.communicate(), 20)
    assert child.returncode == 1
    assert engine.explain_exit(tuple(output.decode().splitlines()[-40:])) == meaning


@pytest.mark.engine
async def test_real_server_says_that_its_port_is_taken(
    llama_server: Path, tiny_model: Path, request_for: Request
) -> None:
    engine = LlamaCpp(str(llama_server), HttpProbe())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        child = await started(engine, request_for(tiny_model, port=taken.getsockname()[1]))
        output, _ = await asyncio.wait_for(child.communicate(), 20)
    assert child.returncode == 1
    assert engine.explain_exit(tuple(output.decode().splitlines()[-40:])) == "its port is taken"


@pytest.mark.engine
async def test_real_help_names_what_gpud_passes(llama_server: Path, request_for: Request) -> None:
    engine = LlamaCpp(str(llama_server), FakeProbe())
    program = await engine.program()
    assert program.version != "unknown"
    command = engine.command(program, request_for())
    flags = [word for word in command.argv if word.startswith("--")]
    assert set(flags) <= set(program.flags)
    assert {"--metrics", "--n-gpu-layers", "--flash-attn"} <= set(flags)
