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
from gpud.engines.llama.command import (
    arguments,
    lock_flags,
    read_flags,
    read_version,
)
from gpud.engines.llama.options import (
    CHOICES,
    DEFAULTS,
    PLAIN_CACHE_TYPES,
    QUANTIZED_CACHE_TYPES,
    RANGES,
    check_options,
)
from gpud.engines.options.extra_args import REVIEWED, check_extra_args
from gpud.errors import OptionInvalid
from gpud.models.model import EngineKind, Model, ModelKind, ModelOptions
from tests.engines.conftest import Request
from tests.fakes.stub_engine import HELP as NEWER_HELP

OLDER_HELP = (Path(__file__).parents[2] / "golden" / "llama_server_help_older.txt").read_text()


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
    "--cache-ram": NUMBER,
    "--threads-batch": NUMBER,
    "--cache-reuse": NUMBER,
    "--sleep-idle-seconds": NUMBER,
    "--split-mode": "none|layer|row",
    "--tensor-split": r"\d{1,5}(\.\d{1,3})?(,\d{1,5}(\.\d{1,3})?)*",
    "--pooling": "none|mean|cls|last|rank",
    "--cont-batching": None,
    "--no-cont-batching": None,
    "--no-mmap": None,
    "--mmproj": r"/.*",
    # What the configuration may add is of its own grammar, of which this build knows two.
    "--rope-scaling": "none|linear|yarn",
    "--yarn-orig-ctx": r"[0-9]{1,9}",
    "--verbosity": "4",
    "--kv-unified": None,
    "--no-kv-unified": None,
    "--embedding": None,
    "--reranking": None,
    "--metrics": None,
    "--no-ui": None,
    "--no-webui": None,
    "--offline": None,
    "--load-mode": r"mmap\+mlock|mmap|mlock|none",
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
    **{
        name: st.none() | st.sampled_from(CHOICES[name])
        for name in ("flash_attention", "split_mode", "pooling")
    },
    **dict.fromkeys(
        ("kv_unified", "embedding", "mmap", "mlock", "continuous_batching"),
        st.none() | st.booleans(),
    ),
    tensor_split=st.none() | st.lists(st.floats(0.001, 10_000), min_size=1, max_size=4).map(tuple),
)
wild_options = st.builds(
    ModelOptions,
    **dict.fromkeys(RANGES, st.none() | st.integers()),
    **dict.fromkeys(CHOICES, st.none() | st.text(max_size=20)),
    tensor_split=st.none() | st.lists(st.floats(), max_size=20).map(tuple),
)
any_words = st.lists(
    st.sampled_from([*REVIEWED[EngineKind.LLAMA_CPP], "yarn", "4096", "-1", "--host", "--rpc"])
    | st.text(max_size=12),
    max_size=6,
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
    extra_args=any_words | st.just(["--rope-scaling", "yarn", "--yarn-orig-ctx", "4096"]),
)
def test_every_argv_is_of_the_grammar(
    options: ModelOptions,
    model_path: Path,
    kind: ModelKind,
    devices: tuple[str, ...],
    build: tuple[EngineProgram, str | None],
    lock_memory: bool,
    key_path: Path | None,
    extra_args: list[str],
) -> None:
    try:
        checked = check_options(options)
        extra = check_extra_args(EngineKind.LLAMA_CPP, extra_args)
    except OptionInvalid:
        return
    model = Model(
        id="tiny",
        engine=EngineKind.LLAMA_CPP,
        kind=kind,
        path="x",
        options=ModelOptions(),
        extra_args=extra,
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
    try:
        argv = arguments(engine, request)
    except OptionInvalid:
        return  # this build has no flag for it
    found = parsed(argv, flash_attention)
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
    options = ModelOptions(gpu_layers=20, threads=2, cache_type_v="q8_0", mmap=False)
    argv = arguments(OLDER, request_for(options=options, devices=("GPU-1",)))
    assert argv[13:] == (
        "--batch-size", "2048", "--ubatch-size", "512",
        "--cache-type-k", "f16", "--cache-type-v", "q8_0", "--flash-attn",
        "--n-gpu-layers", "20", "--threads", "2", "--no-mmap", "--metrics", "--no-webui",
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
        (ModelOptions(threads_batch=0), "threads_batch"),
        (ModelOptions(cache_reuse=-1), "cache_reuse"),
        (ModelOptions(cache_ram_bytes=-1), "cache_ram_bytes"),
        (ModelOptions(cache_ram_bytes=2**45), "cache_ram_bytes"),
        (ModelOptions(sleep_idle_seconds=2**31), "sleep_idle_seconds"),
        (ModelOptions(pooling="all"), "pooling"),
        (ModelOptions(split_mode="tensor"), "split_mode"),
        (ModelOptions(split_mode="none", tensor_split=(1.0, 1.0)), "split_mode"),
        (ModelOptions(tensor_split=()), "tensor_split"),
        (ModelOptions(tensor_split=(1.0,) * 17), "tensor_split"),
        (ModelOptions(tensor_split=(1.0, 0.0)), "tensor_split"),
        (ModelOptions(tensor_split=(1.0, float("nan"))), "tensor_split"),
        (ModelOptions(tensor_split=(float("inf"),)), "tensor_split"),
        (ModelOptions(max_num_seqs=4), "max_num_seqs"),
        (ModelOptions(tensor_parallel_size=2), "tensor_parallel_size"),
    ],
)
def test_bad_options_name_their_field(options: ModelOptions, field: str) -> None:
    with pytest.raises(OptionInvalid) as refused:
        check_options(options)
    assert refused.value.field == field


def test_an_option_of_another_engine_is_told_as_that() -> None:
    with pytest.raises(OptionInvalid, match="an option of vllm, not of llama_cpp"):
        check_options(ModelOptions(max_num_seqs=4))


NEW_FLAGS = [
    (ModelOptions(threads_batch=3), ("--threads-batch", "3")),
    (ModelOptions(cache_reuse=256), ("--cache-reuse", "256")),
    (ModelOptions(pooling="mean"), ("--pooling", "mean")),
    (ModelOptions(sleep_idle_seconds=60), ("--sleep-idle-seconds", "60")),
    (ModelOptions(continuous_batching=True), ("--cont-batching",)),
    (ModelOptions(continuous_batching=False), ("--no-cont-batching",)),
    (ModelOptions(kv_unified=True), ("--kv-unified",)),
    (ModelOptions(cache_ram_bytes=6 * 2**20 + 1), ("7",)),  # MiB, rounded up, for the rule's 0
    (ModelOptions(mmap=True), ("--load-mode", "mmap")),
    (ModelOptions(mmap=False), ("--load-mode", "none")),
    (ModelOptions(mlock=True), ("--load-mode", "mmap+mlock")),
    (ModelOptions(mmap=False, mlock=True), ("--load-mode", "mlock")),
    (ModelOptions(split_mode="row"), ("--split-mode", "row")),
    (ModelOptions(tensor_split=(3.0, 0.25)), ("--tensor-split", "3,0.25")),
]


@pytest.mark.parametrize(("options", "words"), NEW_FLAGS)
def test_each_option_becomes_its_flag(
    options: ModelOptions, words: tuple[str, ...], request_for: Request
) -> None:
    cards = ("GPU-1", "GPU-2")
    plain = arguments(NEWER, request_for(devices=cards))
    asked = arguments(NEWER, request_for(options=options, devices=cards))
    assert tuple(word for word in asked if word not in plain) == words


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (ModelOptions(threads_batch=3), "threads_batch"),
        (ModelOptions(cache_reuse=256), "cache_reuse"),
        (ModelOptions(sleep_idle_seconds=60), "sleep_idle_seconds"),
        (ModelOptions(continuous_batching=False), "continuous_batching"),
        (ModelOptions(kv_unified=True), "kv_unified"),
        (ModelOptions(cache_ram_bytes=2**20), "cache_ram_bytes"),
        (ModelOptions(split_mode="row"), "split_mode"),
        (ModelOptions(tensor_split=(3.0, 1.0)), "tensor_split"),
    ],
)
def test_an_option_that_a_build_has_no_flag_for_is_refused(
    options: ModelOptions, field: str, request_for: Request
) -> None:
    """Rather than left out without a word."""
    with pytest.raises(OptionInvalid, match=r"llama-server \(1\) has no flag for it") as refused:
        arguments(OLDER, request_for(options=options, devices=("GPU-1", "GPU-2")))
    assert refused.value.field == field


def test_what_a_build_does_anyway_needs_no_flag(request_for: Request) -> None:
    options = ModelOptions(
        continuous_batching=True, mmap=True, mlock=False, cache_ram_bytes=0, kv_unified=False
    )
    assert arguments(OLDER, request_for(options=options)) == arguments(OLDER, request_for())


def test_the_policy_locks_what_is_mapped_or_not(request_for: Request) -> None:
    for mapped, mode in ((None, "mmap+mlock"), (True, "mmap+mlock"), (False, "mlock")):
        request = request_for(options=ModelOptions(mmap=mapped, mlock=False))
        argv = arguments(NEWER, replace(request, lock_memory=True))
        assert argv[argv.index("--load-mode") + 1] == mode
    # A build that cannot lock without mapping is not kept from starting by the policy alone.
    flags = NEWER.flags | {"--load-mode": "MODE - none: no - mmap: map - mmap+mlock: both"}
    request = request_for(options=ModelOptions(mmap=False))
    argv = arguments(replace(NEWER, flags=flags), replace(request, lock_memory=True))
    assert argv[argv.index("--load-mode") + 1] == "none"


def test_a_projector_is_named_beside_the_model(request_for: Request) -> None:
    request = replace(request_for(), mmproj_path=Path("/i/model/mmproj.gguf"))
    argv = arguments(NEWER, request)
    assert argv[argv.index("--mmproj") + 1] == "/i/model/mmproj.gguf"
    with pytest.raises(OptionInvalid) as refused:
        arguments(OLDER, request)
    assert refused.value.field == "mmproj"


def test_what_is_not_said_has_a_default() -> None:
    assert check_options(ModelOptions()) == DEFAULTS
    assert check_options(ModelOptions(ubatch=64)).ubatch == 64


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
