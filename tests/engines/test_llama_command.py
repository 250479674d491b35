"""The command line of llama-server, for builds old and new."""

from __future__ import annotations

import re
import string
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.engines.engine import EngineProgram, StartRequest
from gpud.engines.llama_command import (
    DEFAULTS,
    PLAIN_CACHE_TYPES,
    QUANTIZED_CACHE_TYPES,
    RANGES,
    arguments,
    check_options,
    environment,
    lock_flags,
    read_flags,
    read_version,
)
from gpud.errors import OptionInvalid
from gpud.models.model import EngineKind, Model, ModelKind, ModelOptions
from tests.engines.conftest import Request
from tests.fakes.stub_engine import HELP as NEWER_HELP

OLDER_HELP = (Path(__file__).parents[1] / "golden" / "llama_server_help_older.txt").read_text()


def program(help_text: str) -> EngineProgram:
    return EngineProgram(
        kind=EngineKind.LLAMA_CPP,
        path="/usr/bin/llama-server",
        version="1",
        flags=read_flags(help_text),
    )


NEWER, OLDER = program(NEWER_HELP), program(OLDER_HELP)

# The allow-list: every flag that may ever stand in an argv, and what its value may look like.
NUMBER, CACHE_TYPE = r"\d{1,8}", "|".join(PLAIN_CACHE_TYPES + QUANTIZED_CACHE_TYPES)
GRAMMAR: dict[str, str | None] = {
    "--model": r"/.*",
    "--alias": r"[A-Za-z0-9][\w.-]*",
    "--host": r"127\.0\.0\.1",
    "--port": NUMBER,
    "--ctx-size": NUMBER,
    "--parallel": NUMBER,
    "--batch-size": NUMBER,
    "--ubatch-size": NUMBER,
    "--cache-type-k": CACHE_TYPE,
    "--cache-type-v": CACHE_TYPE,
    "--n-gpu-layers": NUMBER,
    "--threads": NUMBER,
    "--device": "none",
    "--fit": "off",
    "--cache-ram": "0",
    "--verbosity": "4",
    "--kv-unified": None,
    "--no-kv-unified": None,
    "--embedding": None,
    "--reranking": None,
    "--metrics": None,
    "--no-ui": None,
    "--no-webui": None,
    "--offline": None,
    "--load-mode": r"mmap\+mlock",
    "--mlock": None,
    "--api-key-file": r"/.*",
}


def parsed(argv: tuple[str, ...], flash_attention: str | None) -> dict[str, str | None]:
    """Flags and values by the grammar; fails on anything else."""
    grammar = GRAMMAR | {"--flash-attn": flash_attention}
    words, found = list(argv[1:]), {}
    while words:
        flag = words.pop(0)
        form = grammar[flag]
        assert flag not in found
        found[flag] = None if form is None else words.pop(0)
        if form is not None:
            assert re.fullmatch(form, found[flag] or "", re.DOTALL)
    return found


any_options = st.builds(
    ModelOptions,
    **{name: st.none() | st.integers(least, most) for name, (least, most) in RANGES.items()},
    cache_type_k=st.none() | st.sampled_from(PLAIN_CACHE_TYPES + QUANTIZED_CACHE_TYPES),
    cache_type_v=st.none() | st.sampled_from((*QUANTIZED_CACHE_TYPES, "f16")),
    flash_attention=st.none() | st.sampled_from(["on", "off", "auto"]),
    kv_unified=st.none() | st.booleans(),
    embedding=st.none() | st.booleans(),
)
wild_options = st.builds(
    ModelOptions,
    **dict.fromkeys(RANGES, st.none() | st.integers()),
    **dict.fromkeys(
        ("cache_type_k", "cache_type_v", "flash_attention"), st.none() | st.text(max_size=20)
    ),
)
any_paths = st.text(string.printable, min_size=1).map(lambda text: Path("/models") / f"_{text}")


@given(
    options=any_options | wild_options,
    model_path=any_paths,
    kind=st.sampled_from(ModelKind),
    devices=st.lists(st.sampled_from(["GPU-1", "GPU-2"]), unique=True).map(tuple),
    build=st.sampled_from([(NEWER, "on|off|auto"), (OLDER, None)]),
    lock_memory=st.booleans(),
    key_path=st.none() | st.just(Path("/run/i/key/api-key")),
)
def test_every_argv_is_of_the_grammar(
    options: ModelOptions,
    model_path: Path,
    kind: ModelKind,
    devices: tuple[str, ...],
    build: tuple[EngineProgram, str | None],
    lock_memory: bool,
    key_path: Path | None,
) -> None:
    try:
        checked = check_options(options)
    except OptionInvalid:
        return
    model = Model(
        id="tiny", engine=EngineKind.LLAMA_CPP, kind=kind, path="x", options=ModelOptions()
    )
    request = StartRequest(
        model=model,
        options=checked,
        model_path=model_path,
        host="127.0.0.1",
        port=1,
        visible_devices=devices,
        directory=Path("/run/i"),
        lock_memory=lock_memory,
        key_path=key_path if build[0] is NEWER else None,
    )
    engine, flash_attention = build
    found = parsed(arguments(engine, request), flash_attention)
    assert set(found) <= set(engine.flags), "a flag that this build does not know"
    assert found["--model"] == str(model_path)
    assert int(found["--ubatch-size"] or 0) <= int(found["--batch-size"] or 0)
    assert (found["--n-gpu-layers"] == "0") >= (not devices)
    if checked.cache_type_v in QUANTIZED_CACHE_TYPES:
        assert found.get("--flash-attn", "off") != "off"


def test_newer_build_on_the_host(request_for: Request) -> None:
    argv = arguments(NEWER, request_for())
    assert argv == (
        "/usr/bin/llama-server", "--model", "/srv/models/tiny.gguf", "--alias", "tiny",
        "--host", "127.0.0.1", "--port", "18080", "--ctx-size", "4096", "--parallel", "1",
        "--batch-size", "2048", "--ubatch-size", "512",
        "--cache-type-k", "f16", "--cache-type-v", "f16", "--flash-attn", "auto",
        "--n-gpu-layers", "0", "--device", "none", "--no-kv-unified",
        "--fit", "off", "--cache-ram", "0", "--metrics", "--no-ui", "--offline",
        "--verbosity", "4",
    )  # fmt: skip


def test_older_build_on_a_device(request_for: Request) -> None:
    options = ModelOptions(gpu_layers=20, threads=2, cache_type_v="q8_0", kv_unified=True)
    argv = arguments(OLDER, request_for(options=options, devices=("GPU-1",)))
    assert argv[13:] == (
        "--batch-size", "2048", "--ubatch-size", "512",
        "--cache-type-k", "f16", "--cache-type-v", "q8_0", "--flash-attn",
        "--n-gpu-layers", "20", "--threads", "2", "--metrics", "--no-webui",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("build", "flags"), [(NEWER, ("--load-mode", "mmap+mlock")), (OLDER, ("--mlock",))]
)
def test_the_model_is_locked_as_the_build_knows_it(
    build: EngineProgram, flags: tuple[str, ...], request_for: Request
) -> None:
    plain = arguments(build, request_for())
    locked = arguments(build, replace(request_for(), lock_memory=True))
    assert [word for word in locked if word not in plain] == list(flags)
    assert lock_flags(build.flags) == list(flags)


def test_a_build_that_knows_neither_way_cannot_lock() -> None:
    modes = "--load-mode MODE - mmap: memory-map model"
    assert lock_flags({"--model": "", "--load-mode": modes}) == []


@pytest.mark.parametrize(
    ("kind", "flag"), [(ModelKind.EMBEDDING, "--embedding"), (ModelKind.RERANK, "--reranking")]
)
@pytest.mark.parametrize("build", [NEWER, OLDER])
def test_kind_of_model_chooses_what_is_served(
    kind: ModelKind, flag: str, build: EngineProgram, request_for: Request
) -> None:
    assert flag in arguments(build, request_for(kind=kind))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (ModelOptions(context_length=0), "context_length"),
        (ModelOptions(context_length=2**24 + 1), "context_length"),
        (ModelOptions(context_length=4, parallel=5), "context_length"),
        (ModelOptions(parallel=0), "parallel"),
        (ModelOptions(batch=256), "ubatch"),
        (ModelOptions(ubatch=4096), "ubatch"),
        (ModelOptions(gpu_layers=-1), "gpu_layers"),
        (ModelOptions(threads=0), "threads"),
        (ModelOptions(cache_type_k="q9"), "cache_type_k"),
        (ModelOptions(cache_type_v="f16;reboot"), "cache_type_v"),
        (ModelOptions(cache_type_v="q8_0", flash_attention="off"), "cache_type_v"),
        (ModelOptions(flash_attention="1"), "flash_attention"),
    ],
)
def test_bad_options_name_their_field(options: ModelOptions, field: str) -> None:
    with pytest.raises(OptionInvalid) as refused:
        check_options(options)
    assert refused.value.field == field


def test_what_is_not_said_has_a_default() -> None:
    assert check_options(ModelOptions()) == DEFAULTS
    assert check_options(ModelOptions(ubatch=64)).ubatch == 64


def test_environment_is_made_from_nothing(
    request_for: Request, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "1")
    own = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    base = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    host = environment(request_for(), None)
    assert host == base | own | {"CUDA_VISIBLE_DEVICES": ""}
    cards = environment(request_for(devices=("GPU-1", "GPU-2")), "/opt/cuda/lib64")
    assert cards["CUDA_VISIBLE_DEVICES"] == "GPU-1,GPU-2"
    assert cards["LD_LIBRARY_PATH"] == "/opt/cuda/lib64"
    # An empty part, or a relative one, is a folder that the engine may write to.
    mixed = environment(request_for(), ":/opt/cuda/lib64::lib:$ORIGIN:/usr/local/nvidia/lib")
    assert mixed["LD_LIBRARY_PATH"] == "/opt/cuda/lib64:/usr/local/nvidia/lib"
    assert "LD_LIBRARY_PATH" not in environment(request_for(), ":lib:\n/x")


def test_flags_come_with_their_form() -> None:
    older = read_flags(OLDER_HELP)
    assert older["--flash-attn"].startswith("-fa, --flash-attn enable")
    assert {"--no-mmap", "--embeddings", "--n-gpu-layers"} <= set(older)
    assert not {"--fit", "--offline", "--cache-ram", "--no-ui"} & set(older)
    assert "--list-devices" not in older, "named in a description only"
    assert "[on|off|auto]" in read_flags(NEWER_HELP)["--flash-attn"]


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("version: 0.7.0 (build 11669, commit D)\nbuilt with", "0.7.0 (build 11669, commit D)"),
        ("ggml_cuda_init: found 1\nversion: 4567 (abcdef0)\n", "4567 (abcdef0)"),
        ("nothing of the kind", "unknown"),
    ],
)
def test_version_is_read(text: str, version: str) -> None:
    assert read_version(text) == version
