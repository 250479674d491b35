"""vLLM's command line, by the --help of 0.32 (cut to the entries that bear on it)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpud.devices.snapshot import DeviceKind
from gpud.engines.api_key import ApiKey
from gpud.engines.engine import ENVIRONMENT_NAMES, EngineProgram, StartRequest
from gpud.engines.vllm import command, options
from gpud.errors import OptionInvalid
from gpud.models.footprint import DeviceTraits
from gpud.models.hugging_face.footprint import estimate
from gpud.models.model import EngineKind, Model, ModelKind, ModelOptions
from gpud.units import GIB, MIB
from tests.models.hugging_face.test_footprint import llama
from tests.models.hugging_face.writing import Shape

HELP = (Path(__file__).parents[2] / "golden/vllm/serve_help.txt").read_text()
PROGRAM = EngineProgram(
    kind=EngineKind.VLLM,
    path="/opt/vllm/bin/vllm",
    version="0.32.0",
    flags=command.read_flags(HELP),
)
LLAMA = llama(Shape())
HOST = DeviceTraits(kind=DeviceKind.HOST, model_name="host")


def request(said: ModelOptions = ModelOptions(), **changes: Any) -> StartRequest:  # noqa: B008
    checked = options.check_options(said)
    model = Model(
        id="tiny", engine=EngineKind.VLLM, kind=ModelKind.CHAT, path="tiny", options=said
    )
    footprint = estimate(LLAMA, options.settle(checked, LLAMA), HOST)
    made = StartRequest(
        model=model,
        options=checked,
        model_path=Path("/var/lib/gpud/instances/tiny-1/model"),
        host="127.0.0.1",
        port=18080,
        visible_devices=(),
        directory=Path("/var/lib/gpud/instances/tiny-1"),
        grant_bytes=footprint.total_bytes,
        device_bytes=24 * GIB,
    )
    return replace(made, **changes)


def argv(said: ModelOptions = ModelOptions(), **changes: Any) -> list[str]:  # noqa: B008
    return command.arguments(PROGRAM, ("serve",), request(said, **changes), LLAMA)


def value(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


def test_flags_are_read_with_their_texts() -> None:
    flags = PROGRAM.flags
    assert set(command.NEEDED_FLAGS) <= flags.keys()
    # Two names of one entry, a negation beside it, and choices.
    assert flags["--quantization"].startswith("--quantization QUANTIZATION, -q")
    assert {"--enforce-eager", "--no-enforce-eager", "--device-memory-utilization"} <= set(flags)
    assert "{auto,bfloat16,float,float16,float32,half}" in flags["--dtype"]
    # A flag that a text speaks of is none of the build.
    assert "--help=all" not in flags
    assert "-cc.mode" not in " ".join(flags)


def test_the_whole_command_line() -> None:
    said = ModelOptions(
        context_length=512, max_num_seqs=4, max_num_batched_tokens=512, dtype="float32"
    )
    cache = 2 * 2 * 32 * 4 * 128 * (4 * 512 // 128 + 1)
    words = argv(said)
    assert words == [
        "/opt/vllm/bin/vllm", "serve", "/var/lib/gpud/instances/tiny-1/model",
        "--served-model-name", "tiny",
        "--host", "127.0.0.1", "--port", "18080",
        "--load-format", "safetensors",
        "--max-model-len", "512",
        "--max-num-seqs", "4",
        "--max-num-batched-tokens", "512",
        "--kv-cache-memory-bytes", str(cache),
        "--gpu-memory-utilization", value(words, "--gpu-memory-utilization"),
        "--tensor-parallel-size", "1",
        "--dtype", "float32",
        "--disable-uvicorn-access-log", "--disable-fastapi-docs",
    ]  # fmt: skip


def test_memory_is_derived_from_the_promise_and_never_exceeds_it() -> None:
    """The fraction is of the whole card, what the driver's context takes left out."""
    card = {"visible_devices": ("GPU-1",), "device_bytes": 80 * GIB}
    for granted in (3 * GIB, 10 * GIB, 79 * GIB):
        told = command.memory(LLAMA, request(grant_bytes=granted, **card))
        assert told.utilization * 80 * GIB <= granted
        assert told.utilization * 80 * GIB >= granted - 2 * GIB
        assert 0 < told.utilization <= 1
        assert told.cache_bytes < granted
    pinned = ModelOptions(kv_cache_bytes=4 * GIB)
    assert command.memory(LLAMA, request(pinned, grant_bytes=6 * GIB)).cache_bytes == 4 * GIB
    with pytest.raises(OptionInvalid, match="a cache of 4 GiB is more than the promise of 3 GiB"):
        command.memory(LLAMA, request(pinned, grant_bytes=3 * GIB))


def test_a_cache_that_an_encoder_lacks_is_a_mebibyte() -> None:
    encoder = llama(Shape(), architectures=["BertModel"])
    assert command.memory(encoder, request()).cache_bytes == MIB
    words = command.arguments(PROGRAM, ("serve",), request(), encoder)
    assert int(value(words, "--max-num-batched-tokens")) >= int(value(words, "--max-model-len"))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (ModelOptions(dtype="bfloat16"), ["--dtype", "bfloat16"]),
        (ModelOptions(quantization="awq"), ["--quantization", "awq"]),
        (ModelOptions(kv_cache_dtype="fp8"), ["--kv-cache-dtype", "fp8"]),
        (ModelOptions(tensor_parallel_size=2), ["--tensor-parallel-size", "2"]),
        (ModelOptions(max_num_seqs=7), ["--max-num-seqs", "7"]),
        (ModelOptions(embedding=True), ["--runner", "pooling", "--convert", "embed"]),
    ],
)
def test_each_option_is_passed_on(said: ModelOptions, words: list[str]) -> None:
    made = argv(said, grant_bytes=3 * GIB)
    at = made.index(words[0])
    assert made[at : at + len(words)] == words


def test_switches_are_passed_when_they_are_on() -> None:
    assert "--enforce-eager" not in argv()
    assert "--enforce-eager" in argv(ModelOptions(enforce_eager=True))
    awake = ModelOptions(sleep_mode=True)
    assert "--enable-sleep-mode" not in argv(awake)  # no CPU build takes it
    assert "--enable-sleep-mode" in argv(awake, visible_devices=("GPU-1",), grant_bytes=3 * GIB)


def test_a_reranker_pools() -> None:
    model = replace(request().model, kind=ModelKind.RERANK)
    assert value(argv(model=model), "--runner") == "pooling"


@pytest.mark.parametrize(
    ("said", "field"),
    [
        (ModelOptions(context_length=0), "context_length"),
        (ModelOptions(max_num_seqs=0), "max_num_seqs"),
        (ModelOptions(max_num_seqs=2**20), "max_num_seqs"),
        (ModelOptions(max_num_batched_tokens=8, max_num_seqs=9), "max_num_batched_tokens"),
        (ModelOptions(tensor_parallel_size=0), "tensor_parallel_size"),
        (ModelOptions(kv_cache_bytes=1), "kv_cache_bytes"),
        (ModelOptions(dtype="int8"), "dtype"),
        (ModelOptions(kv_cache_dtype="--help"), "kv_cache_dtype"),
        (ModelOptions(quantization="--help"), "quantization"),
        (ModelOptions(quantization="awq; rm"), "quantization"),
        (ModelOptions(gpu_layers=3), "gpu_layers"),
        (ModelOptions(parallel=3), "parallel"),
        (ModelOptions(tensor_split=(1.0, 1.0)), "tensor_split"),
    ],
)
def test_what_may_not_be_said_is_refused_by_name(said: ModelOptions, field: str) -> None:
    with pytest.raises(OptionInvalid) as caught:
        options.check_options(said)
    assert caught.value.field == field


def test_what_the_model_cannot_do_is_refused_by_name() -> None:
    longer = options.check_options(ModelOptions(context_length=4096))
    with pytest.raises(OptionInvalid, match="2048 tokens that the model was trained on"):
        options.settle(longer, LLAMA)
    uneven = options.check_options(ModelOptions(tensor_parallel_size=3))
    with pytest.raises(OptionInvalid, match="2 attention heads cannot be shared evenly by 3"):
        options.settle(uneven, LLAMA)
    # Unsaid, it is what the model has, up to 4096.
    unsaid = options.check_options(ModelOptions())
    assert options.settle(unsaid, LLAMA).context_length == 2048
    wide = llama(Shape(), max_position_embeddings=131_072)
    assert options.settle(unsaid, wide).context_length == options.DEFAULT_CONTEXT


def test_a_build_that_lacks_a_choice_or_a_flag_says_so() -> None:
    said = ModelOptions(kv_cache_dtype="fp8")
    older = dict(PROGRAM.flags) | {"--kv-cache-dtype": "--kv-cache-dtype {auto,bfloat16}"}
    with pytest.raises(OptionInvalid, match=r"fp8 is none that /opt.* \(0.32.0\) knows: auto,b"):
        command.arguments(replace(PROGRAM, flags=older), ("serve",), request(said), LLAMA)
    del older["--kv-cache-dtype"]
    with pytest.raises(OptionInvalid, match="has no flag for it"):
        command.arguments(replace(PROGRAM, flags=older), ("serve",), request(said), LLAMA)


def test_reviewed_extra_flags_come_last() -> None:
    model = replace(request().model, extra_args=("--seed", "7"))
    assert argv(model=model)[-2:] == ["--seed", "7"]


def test_the_environment_is_its_own_and_tells_nobody() -> None:
    key = ApiKey("k" * 20)
    made = command.environment(request(key=key), "/opt/cuda/lib::relative:/x;y", "/var/cache/v")
    assert made.keys() <= ENVIRONMENT_NAMES | command.OWN_NAMES
    assert made["HF_HUB_OFFLINE"] == made["VLLM_NO_USAGE_STATS"] == made["DO_NOT_TRACK"] == "1"
    assert made["VLLM_API_KEY"] == "k" * 20
    assert "k" * 20 not in " ".join(argv(key=key))
    assert made["LD_LIBRARY_PATH"] == "/opt/cuda/lib"
    assert made["CUDA_VISIBLE_DEVICES"] == ""
    assert made["VLLM_HOST_IP"] == "127.0.0.1"
    assert made["SPT_NOENV"] == "1"
    assert "VLLM_SERVER_DEV_MODE" not in made
    assert "VLLM_API_KEY" not in command.environment(request(), None, "/c")
    asleep = request(ModelOptions(sleep_mode=True), visible_devices=("GPU-1", "GPU-2"))
    made = command.environment(asleep, None, "/c")
    assert made["VLLM_SERVER_DEV_MODE"] == "1"
    assert made["CUDA_VISIBLE_DEVICES"] == "GPU-1,GPU-2"


def test_sockets_fit_however_long_the_folder_is() -> None:
    """A socket's path may have 107 bytes; vLLM makes its own of 36 under the one it is told."""
    deep = request(directory=Path("/" + "/".join(["d" * 200] * 10)))
    assert command.environment(deep, None, "/c")["VLLM_RPC_BASE_PATH"] == "."
