from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from gpuctl.options import _MODEL_OPTIONS, model_options
from gpud.v1.models_pb2 import (
    MODEL_KIND_CHAT,
    DeleteModelResponse,
    EstimateFootprintResponse,
    ListModelsResponse,
    ModelOptions,
    ModelSource,
    RegisterModelRequest,
    RegisterModelResponse,
)
from gpud.v1.node_pb2 import ENGINE_VLLM
from tests.fakes.daemon import FakeDaemon
from tests.gpuctl import samples
from tests.gpuctl.conftest import Gpuctl

Golden = Callable[[str, str], None]


@pytest.fixture(autouse=True)
def _scripted(daemon: FakeDaemon) -> None:
    daemon.answers["EstimateFootprint"] = EstimateFootprintResponse(footprint=samples.footprint())


def test_models(gpuctl: Gpuctl, golden: Golden) -> None:
    golden("models_wide", gpuctl("models", "-o", "wide").out)


def test_estimate(gpuctl: Gpuctl, golden: Golden) -> None:
    golden("estimate", gpuctl("estimate", "tiny").out)


@pytest.mark.parametrize(
    ("of", "words"),
    [
        ("3.86 MiB of the engine's own buffers", " (3.86 MiB of the engine's own buffers)"),
        ("", ""),  # a daemon that does not say
    ],
)
def test_estimate_tells_whose_error_it_is(
    gpuctl: Gpuctl, daemon: FakeDaemon, of: str, words: str
) -> None:
    told = samples.footprint()
    told.past_error, told.past_error_of = -0.012, of
    daemon.answers["EstimateFootprint"] = EstimateFootprintResponse(footprint=told)
    (_, _, last) = gpuctl("estimate tiny").out.strip().rpartition("; ")
    assert last == f"last measured -1.2% against the estimate{words}"


def test_estimate_prints_the_bare_footprint(gpuctl: Gpuctl) -> None:
    plain = json.loads(gpuctl("estimate", "tiny", "-o", "json").out)
    assert plain["total_bytes"] == 752 * samples.MIB
    assert plain["items"][0]["what"] == "FOOTPRINT_WHAT_WEIGHTS"
    assert "past_error" not in plain


def test_every_option_of_the_api_is_an_option_of_the_command() -> None:
    assert len(_MODEL_OPTIONS) == len(ModelOptions.DESCRIPTOR.fields)

    @model_options
    def declared() -> None: ...

    names = {option.name for option in declared.__click_params__}  # type: ignore[attr-defined]
    assert names == {field.name for field in ModelOptions.DESCRIPTOR.fields}


def test_options_that_were_given_travel_and_no_others(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    gpuctl("estimate", "models/tiny", "--device", "gpu0")
    gpuctl(
        "estimate tiny --context-length 4096 --parallel 2 --batch 512 --ubatch 128 "
        "--cache-type-k q8_0 --cache-type-v f16 --flash-attention on --gpu-layers 0 --threads 4 "
        "--no-kv-unified --embedding --threads-batch 3 --tensor-split 3,1 --split-mode layer "
        "--no-mmap --mlock --cache-reuse 256 --continuous-batching --cache-ram-bytes 1MiB "
        "--pooling mean --sleep-idle-seconds 60 --dtype auto --quantization awq "
        "--kv-cache-dtype fp8 --max-num-seqs 8 --max-num-batched-tokens 2048 "
        "--tensor-parallel-size 2 --enforce-eager --kv-cache-bytes 2GiB --no-sleep-mode"
    )
    bare, full = daemon.requests["EstimateFootprint"]
    assert bare.model == full.model == "models/tiny"
    assert bare.device == "gpu0"
    assert bare.options == ModelOptions()
    assert full.options == ModelOptions(
        context_length=4096,
        parallel=2,
        batch=512,
        ubatch=128,
        cache_type_k="q8_0",
        cache_type_v="f16",
        flash_attention="on",
        gpu_layers=0,
        threads=4,
        kv_unified=False,
        embedding=True,
        threads_batch=3,
        tensor_split=[3.0, 1.0],
        split_mode="layer",
        mmap=False,
        mlock=True,
        cache_reuse=256,
        continuous_batching=True,
        cache_ram_bytes=samples.MIB,
        pooling="mean",
        sleep_idle_seconds=60,
        dtype="auto",
        quantization="awq",
        kv_cache_dtype="fp8",
        max_num_seqs=8,
        max_num_batched_tokens=2048,
        tensor_parallel_size=2,
        enforce_eager=True,
        kv_cache_bytes=2 * 1024 * samples.MIB,
        sleep_mode=False,
    )
    said = {field.name for field, _ in full.options.ListFields()}
    assert said == {field.name for field in ModelOptions.DESCRIPTOR.fields}, "all of them"


# Adding to the catalogue, and taking from it.


def test_a_model_is_registered_with_all_that_was_said(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    made = samples.model()
    made.source.url = "https://example.com/tiny.gguf"
    daemon.answers["RegisterModel"] = RegisterModelResponse(model=made)
    ended = gpuctl(
        f"models register tiny --url https://example.com/tiny.gguf?key=1 --sha256 {'0' * 64} "
        "--engine vllm --kind chat --profile p106-100 --mmproj eye.gguf --parallel 2 --dry-run "
        "--request-id again --label service=voice --label team=a"
    )
    (request,) = daemon.requests["RegisterModel"]
    assert ended.code == 0
    assert "https://example.com/tiny.gguf" in ended.out
    assert request.owner
    request.owner = ""
    assert request == RegisterModelRequest(
        request_id="again",
        validate_only=True,
        name="models/tiny",
        engine=ENGINE_VLLM,
        kind=MODEL_KIND_CHAT,
        options=ModelOptions(parallel=2),
        url="https://example.com/tiny.gguf?key=1",
        sha256="0" * 64,
        mmproj="eye.gguf",
        profile="p106-100",
        labels={"service": "voice", "team": "a"},
    )


def test_a_model_of_a_hub_is_registered(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    made = samples.model()
    made.source.MergeFrom(ModelSource(hub="org/tiny", revision="main", file="q8.gguf"))
    daemon.answers["RegisterModel"] = RegisterModelResponse(model=made)
    ended = gpuctl("models register models/tiny --hub org/tiny --revision main --file q8.gguf")
    (request,) = daemon.requests["RegisterModel"]
    assert (request.hub, request.revision, request.file) == ("org/tiny", "main", "q8.gguf")
    assert not request.validate_only
    assert "hub:org/tiny@main q8.gguf" in ended.out


def test_a_model_is_deleted(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["DeleteModel"] = DeleteModelResponse(
        model=samples.model(), freed_bytes=2 * samples.MIB
    )
    ended = gpuctl("models delete tiny --keep-files")
    (request,) = daemon.requests["DeleteModel"]
    assert (request.name, request.keep_files, request.validate_only) == (
        "models/tiny",
        True,
        False,
    )
    assert ended.out.split() == ["MODEL", "FREED", "tiny", "2", "MiB"]


def test_the_group_alone_lists_in_every_form(gpuctl: Gpuctl) -> None:
    assert json.loads(gpuctl("models", "-o", "json").out)["models"][0]["name"] == "models/tiny"
    assert gpuctl("-o", "name", "models").out == "models/tiny\n"
    assert gpuctl("models", "nonsense").code == 2
    assert "register" in gpuctl("models", "--help").out


def test_what_an_entry_hides_is_told(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    made = samples.model()
    made.notice = "hides the one that ada@rig registered under this name"
    daemon.answers["ListModels"] = ListModelsResponse(models=[made])
    assert "hides the one that ada@rig" in gpuctl("models").out


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("list", "`gpuctl models` lists them"),
        ("show tiny", "`gpuctl show tiny` shows one"),
        ("get", "`gpuctl show NAME` shows one"),
        ("add tiny", "`gpuctl models register tiny` adds one"),
        ("rm tiny", "`gpuctl models delete tiny` takes one away"),
    ],
)
def test_what_others_call_it_leads_to_our_word(words: str, advice: str, gpuctl: Gpuctl) -> None:
    ended = gpuctl(f"models {words}")
    assert ended.code == 2
    assert advice in ended.err


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        ("load tiny --ctx 512", "--context-length"),
        ("load tiny --ctx-size=512", "--context-length"),
        ("estimate tiny --n-gpu-layers 3", "--gpu-layers"),
        ("status --ctx 512", "--context"),  # which has no context length
    ],
)
def test_an_engine_s_word_for_an_option_leads_to_ours(
    words: str, ours: str, gpuctl: Gpuctl
) -> None:
    ended = gpuctl(words)
    assert ended.code == 2
    assert f"Did you mean '{ours}'?" in ended.err
