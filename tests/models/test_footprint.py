"""The laws as tables; test_footprint_truth.py holds them against the real server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.devices.snapshot import DeviceKind
from gpud.models.footprint import DeviceTraits, estimate
from gpud.models.gguf import GgufHeader, GgufInvalid, Tensor
from gpud.models.model import Confidence, Footprint, FootprintWhat, ModelOptions
from gpud.units import MIB

HOST = DeviceTraits(kind=DeviceKind.HOST, model_name="host")
CARD = DeviceTraits(kind=DeviceKind.SIMULATED, model_name="P106-100")
SHAPE = {
    "context_length": 32768, "embedding_length": 1024, "block_count": 6,
    "feed_forward_length": 2816, "attention.head_count": 16, "attention.head_count_kv": 4,
}  # fmt: skip
KEPT = {
    FootprintWhat.WEIGHTS, FootprintWhat.KV_CACHE, FootprintWhat.STATE, FootprintWhat.COMPUTE,
    FootprintWhat.OUTPUT,
}  # fmt: skip


def header(architecture: str = "llama", *, tied: bool = False, **keys: Any) -> GgufHeader:
    """Six blocks of 1 MiB, an embedding and an output of 8 MiB."""
    told: Mapping[str, Any] = {**SHAPE, "vocab_size": 1000, **keys}
    outer = [Tensor("token_embd.weight", (1,), "f16", 8 * MIB)]
    if not tied:
        outer.append(Tensor("output.weight", (1,), "f16", 8 * MIB))
    blocks = [Tensor(f"blk.{number}.x.weight", (1,), "f16", MIB) for number in range(6)]
    return GgufHeader(
        version=3,
        architecture=architecture,
        metadata={f"{architecture}.{name}": value for name, value in told.items()},
        tensors=(*outer, *blocks),
        data_offset=0,
        file_bytes=0,
    )


def options(context_length: int = 4096, parallel: int = 1, **said: Any) -> ModelOptions:
    return ModelOptions(context_length=context_length, parallel=parallel, **said)


def size(footprint: Footprint, what: FootprintWhat) -> int:
    return sum(item.bytes for item in footprint.items if item.what is what)


def host(what: FootprintWhat, told: GgufHeader, wanted: ModelOptions) -> int:
    return size(estimate(told, wanted, HOST), what)


CELL = 6 * 256 * 4  # layers × kv width × (2 + 2) bytes


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (options(4096), 4096 * CELL),
        (options(100), 256 * CELL),
        (options(4096, 3), 3 * 1536 * CELL),
        (options(1025, 4), 4 * 512 * CELL),
        (options(1030, 4, kv_unified=True), 1280 * CELL),
        (options(4096, cache_type_k="f32", cache_type_v="f32"), 4096 * CELL * 2),
        (options(4096, cache_type_k="q8_0", cache_type_v="q8_0"), 4096 * CELL * 34 // 64),
        (options(4096, cache_type_k="q4_0"), 4096 * 6 * 256 * (18 + 64) // 32),
    ],
)
def test_the_cache_follows_slots_and_types(wanted: ModelOptions, expected: int) -> None:
    assert host(FootprintWhat.KV_CACHE, header(), wanted) == expected


ROW = 256 * 4  # kv width × (2 + 2) bytes


@pytest.mark.parametrize(
    ("told", "wanted", "expected"),
    [
        # Every second layer, every sixth, by an interval, by flags; 1024 + 512 cells in a window.
        (header("gemma2", **{"attention.sliding_window": 1024}), options(8192),
         3 * 8192 * ROW + 3 * 1536 * ROW),
        (header("gemma3", **{"attention.sliding_window": 1024}), options(8192, 4),
         4 * (1 * 2048 * ROW + 5 * 1536 * ROW)),
        (header("gemma3", **{"attention.sliding_window": 1024}),
         options(8192, 4, kv_unified=True), 8192 * ROW + 5 * 4608 * ROW),
        (header("gemma3", **{"attention.sliding_window": 1024,
                             "attention.sliding_window_pattern": 3}), options(8192),
         2 * 8192 * ROW + 4 * 1536 * ROW),
        (header("any", **{"attention.sliding_window": 512,
                          "attention.sliding_window_pattern": (1, 0, 0, 0, 0, 0)}), options(8192),
         5 * 8192 * ROW + 1024 * ROW),
        # A window that llama.cpp leaves aside, and one larger than the context.
        (header("phi3", **{"attention.sliding_window": 512}), options(8192), 6 * 8192 * ROW),
        (header("gemma2", **{"attention.sliding_window": 4096}), options(1024), 6 * 1024 * ROW),
        # Heads a layer, widths of their own, layers that read another's cache.
        (header(**{"attention.head_count_kv": (4, 2, 0, 0, 0, 0)}), options(1024),
         1024 * ROW * 3 // 2),
        (header(**{"attention.key_length": 128}), options(1024), 6 * 1024 * 4 * (128 + 64) * 2),
        (header("gemma3n", **{"attention.shared_kv_layers": 4}), options(1024), 2 * 1024 * ROW),
        # One compressed vector for all heads; nothing at all.
        (header("deepseek2", **{"attention.kv_lora_rank": 512, "rope.dimension_count": 64,
                                "attention.key_length_mla": 192}), options(4096),
         6 * 4096 * 576 * 2),
        (header("bert", **{"attention.causal": False}), options(512), 0),
    ],
)  # fmt: skip
def test_the_cache_follows_the_architecture(
    told: GgufHeader, wanted: ModelOptions, expected: int
) -> None:
    assert host(FootprintWhat.KV_CACHE, told, wanted) == expected


def test_recurrent_layers_keep_a_state_a_slot_whatever_the_context() -> None:
    ssm = {
        "ssm.inner_size": 1536, "ssm.state_size": 16, "ssm.conv_kernel": 4,
        "attention.head_count": 0, "attention.head_count_kv": 0,
    }  # fmt: skip
    for context in (1024, 65536):
        told = estimate(header("mamba", **ssm), options(context, 4), HOST)
        assert size(told, FootprintWhat.STATE) == 6 * 4 * (3 * 1536 + 16 * 1536) * 4
        assert size(told, FootprintWhat.KV_CACHE) == 0
    hybrid = header("lfm2", **{"shortconv.l_cache": 3, "attention.head_count_kv": (0, 4) * 3})
    told = estimate(hybrid, options(1024), HOST)
    assert size(told, FootprintWhat.STATE) == 3 * 4 * 2 * 1024
    assert size(told, FootprintWhat.KV_CACHE) == 3 * 1024 * ROW


def test_compute_is_the_servers_own_figure() -> None:
    # 30.52, 42.52 and 557.01 MiB were printed for this shape of 12 layers.
    told = header(block_count=12)
    for wanted, printed in (
        (options(4096), 30.52),
        (options(16384), 42.52),
        (options(16384, 4), 30.52),
        (options(16384, 4, kv_unified=True), 42.52),
        (options(16384, ubatch=128), 10.63),
        (options(16384, ubatch=2048), 170.07),
        (options(16384, flash_attention="off"), 557.01),
    ):
        assert host(FootprintWhat.COMPUTE, told, wanted) / MIB == pytest.approx(printed, abs=0.02)


@pytest.mark.parametrize(
    ("gpu_layers", "expected", "cached"),
    [(None, 14, 6), (7, 14, 6), (6, 13, 5), (1, 8, 0), (0, 0, 0), (99, 14, 6)],
)
def test_a_card_carries_its_share(gpu_layers: int | None, expected: int, cached: int) -> None:
    told = estimate(header(), options(1024, gpu_layers=gpu_layers), CARD)
    assert size(told, FootprintWhat.WEIGHTS) == expected * MIB
    assert size(told, FootprintWhat.KV_CACHE) == cached * 1024 * ROW
    assert size(told, FootprintWhat.OUTPUT) == 0  # in host memory


def test_tied_weights_lie_on_the_card_too() -> None:
    told = estimate(header(tied=True), options(1024), CARD)
    assert size(told, FootprintWhat.WEIGHTS) == 14 * MIB
    assert host(FootprintWhat.WEIGHTS, header(tied=True), options(1024)) == 14 * MIB
    assert host(FootprintWhat.WEIGHTS, header(), options(1024)) == 22 * MIB


def test_a_cards_context_is_its_generations() -> None:
    def context(name: str) -> int:
        traits = DeviceTraits(kind=DeviceKind.GPU, model_name=name)
        return size(estimate(header(), options(1024), traits), FootprintWhat.CONTEXT)

    names = ("P106-100", "NVIDIA A100-SXM4-80GB", "NVIDIA GeForce RTX 4090", "NVIDIA H200")
    sizes = [context(name) for name in names]
    assert sizes == sorted(set(sizes))
    assert context("something new") == context("") == 512 * MIB


def test_the_margin_says_how_far_the_estimate_is_trusted() -> None:
    known, unknown = (
        estimate(header(name), options(4096), HOST) for name in ("llama", "never-seen")
    )
    assert (known.confidence, unknown.confidence) == (Confidence.LAW, Confidence.GUESS)
    subtotal = known.total_bytes - known.margin_bytes
    assert subtotal == unknown.total_bytes - unknown.margin_bytes
    assert known.margin_bytes == int(subtotal * 0.03) + 16 * MIB
    assert unknown.margin_bytes == int(subtotal * 0.15) + 64 * MIB


def test_every_item_says_where_it_came_from() -> None:
    for device in (HOST, CARD):
        for item in estimate(header(), options(4096, 2), device).items:
            assert item.bytes > 0
            assert any(letter.isdigit() for letter in item.source) or "unmeasured" in item.source
    (cache,) = (
        item.source
        for item in estimate(header(), options(512), HOST).items
        if item.what is FootprintWhat.KV_CACHE
    )
    assert cache == "6 layers × (256 f16 + 256 f16) × 1 × 512 cells"


@given(
    context=st.integers(1, 1 << 20),
    parallel=st.integers(1, 64),
    ubatch=st.integers(1, 8192),
    gpu_layers=st.integers(0, 10),
    device=st.sampled_from([HOST, CARD]),
    unified=st.booleans(),
)
def test_more_of_anything_never_needs_less(
    context: int, parallel: int, ubatch: int, gpu_layers: int, device: DeviceTraits, unified: bool
) -> None:
    told = header("gemma3", **{"attention.sliding_window": 1024})
    wanted = options(context, parallel, ubatch=ubatch, gpu_layers=gpu_layers, kv_unified=unified)
    least = estimate(told, wanted, device).total_bytes
    for more in (
        replace(wanted, context_length=context * 2),
        replace(wanted, ubatch=ubatch * 2),
        replace(wanted, gpu_layers=gpu_layers + 1),
    ):
        assert estimate(told, more, device).total_bytes >= least


@pytest.mark.parametrize(
    "key", ["attention.head_count", "attention.head_count_kv", "context_length"]
)
def test_zeros_that_no_model_has_are_refused_before_any_promise(key: str) -> None:
    with pytest.raises(GgufInvalid, match=rf"llama\.{key} = 0"):
        estimate(header(**{key: 0}), options(), HOST)
