from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from gpuctl.options import _MODEL_OPTIONS, model_options
from gpud.v1.models_pb2 import EstimateFootprintResponse, ModelOptions
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
        "--no-kv-unified --embedding"
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
    )
