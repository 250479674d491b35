"""Which device carries which part of a model, by its tensors."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.devices.snapshot import DeviceKind
from gpud.models.footprint import DeviceTraits, estimate
from gpud.models.gguf import GgufHeader, Tensor
from gpud.models.host_share import host_share
from gpud.models.llama.plan import Plan, Share, shares
from gpud.models.llama.weights import host_weights
from gpud.models.model import Footprint, FootprintWhat, ModelOptions
from gpud.units import MIB

HOST = DeviceTraits(kind=DeviceKind.HOST, model_name="host")
CARD = DeviceTraits(kind=DeviceKind.GPU, model_name="GeForce RTX 4090")
LAYERS = 6


def header(*, tied: bool = False, architecture: str = "llama", **keys: Any) -> GgufHeader:
    """Six blocks of a matrix of 3 MiB, a stack of experts of 2 MiB, a vector of 4 KiB."""
    outer = [
        Tensor("token_embd.weight", (1024, 4096), "f16", 8 * MIB),
        Tensor("output_norm.weight", (1024,), "f32", 4096),
    ]
    if not tied:
        outer.append(Tensor("output.weight", (1024, 4096), "f16", 8 * MIB))
    blocks = [
        tensor
        for number in range(LAYERS)
        for tensor in (
            Tensor(f"blk.{number}.attn_q.weight", (1024, 1536), "f16", 3 * MIB),
            Tensor(f"blk.{number}.ffn_up_exps.weight", (1024, 128, 8), "f16", 2 * MIB),
            Tensor(f"blk.{number}.attn_norm.weight", (1024,), "f32", 4096),
        )
    ]
    told = {
        "context_length": 32768, "embedding_length": 1024, "block_count": LAYERS,
        "feed_forward_length": 2816, "attention.head_count": 16, "attention.head_count_kv": 4,
        "vocab_size": 4096, **keys,
    }  # fmt: skip
    return GgufHeader(
        version=3,
        architecture=architecture,
        metadata={f"{architecture}.{name}": value for name, value in told.items()},
        tensors=(*outer, *blocks),
        data_offset=0,
        file_bytes=0,
    )


def split(*weights: float, **said: Any) -> ModelOptions:
    return ModelOptions(context_length=4096, parallel=1, tensor_split=weights, **said)


def size(footprint: Footprint, what: FootprintWhat) -> int:
    return sum(item.bytes for item in footprint.items if item.what is what)


def carried(told: GgufHeader, options: ModelOptions) -> list[tuple[int, ...]]:
    return [
        Plan.of(told, options, on_host=False, share=share).carried for share in shares(options)
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # Seven places, the output the last of them, dealt by the shares.
        (split(1, 1), [(0, 1, 2, 3), (4, 5)]),
        (split(3, 1), [(0, 1, 2, 3, 4, 5), ()]),
        (split(1, 3), [(0, 1), (2, 3, 4, 5)]),
        (split(1, 1, 1), [(0, 1, 2), (3, 4), (5,)]),
        (split(0, 1), [(), (0, 1, 2, 3, 4, 5)]),
        (split(0, 0), [(0, 1, 2, 3), (4, 5)]),
        (split(1, 1, gpu_layers=4), [(3, 4), (5,)]),
        (split(1, 1, gpu_layers=0), [(), ()]),
        (split(1, 1, split_mode="none"), [(0, 1, 2, 3, 4, 5)]),
        (split(1), [(0, 1, 2, 3, 4, 5)]),
    ],
)
def test_layers_are_dealt_as_llama_cpp_deals_them(
    options: ModelOptions, expected: list[tuple[int, ...]]
) -> None:
    assert carried(header(), options) == expected


@given(
    weights=st.lists(st.floats(0.01, 100), min_size=2, max_size=8),
    gpu_layers=st.integers(0, 9),
    mode=st.sampled_from(["layer", "row"]),
    tied=st.booleans(),
)
def test_the_shares_and_the_host_make_up_the_whole(
    weights: list[float], gpu_layers: int, mode: str, tied: bool
) -> None:
    told = header(tied=tied)
    options = split(*weights, gpu_layers=gpu_layers, split_mode=mode)
    cards = [estimate(told, options, CARD, share) for share in shares(options)]
    plan = Plan.of(told, options, on_host=False, share=shares(options)[0])
    # A tied embedding is read on the host and multiplied with on a card: it lies there twice.
    twice = 8 * MIB if tied and gpu_layers > 0 else 0
    there = sum(size(card, FootprintWhat.WEIGHTS) for card in cards)
    assert there + host_weights(told, plan) == told.tensor_bytes + twice
    whole = size(estimate(told, options, HOST), FootprintWhat.KV_CACHE)
    cached = sum(size(card, FootprintWhat.KV_CACHE) for card in cards)
    assert cached == whole * min(max(gpu_layers - 1, 0), LAYERS) // LAYERS


def test_by_rows_matrices_are_halved_and_the_rest_stays_with_its_layer() -> None:
    first, second = (
        estimate(header(), split(1, 1, split_mode="row"), CARD, share)
        for share in shares(split(1, 1))
    )
    matrices = (LAYERS * 3 + 8) * MIB // 2
    assert size(first, FootprintWhat.WEIGHTS) == matrices + 4 * (2 * MIB + 4096)
    assert size(second, FootprintWhat.WEIGHTS) == matrices + 2 * (2 * MIB + 4096) + 4096


def test_the_dearest_share_is_what_each_of_several_devices_is_asked_for() -> None:
    options = split(3, 1)
    dearest = estimate(header(), options, CARD)
    each = [estimate(header(), options, CARD, share) for share in shares(options)]
    assert dearest.total_bytes == max(one.total_bytes for one in each)
    assert dearest.total_bytes < estimate(header(), split(1), CARD).total_bytes + 64 * MIB
    assert estimate(header(), options, HOST) == estimate(header(), split(1), HOST)


def test_devices_whose_batches_overlap_hold_copies_of_the_inputs() -> None:
    alone, two = (estimate(header(), options, CARD) for options in (split(1), split(1, 1)))
    rows = estimate(header(), split(1, 1, split_mode="row"), CARD)
    inputs = 512 * (36 + 2 * 4096)
    compute = FootprintWhat.COMPUTE
    assert size(two, compute) - size(alone, compute) == 3 * inputs
    assert size(rows, compute) == size(alone, compute)
    partly = estimate(header(), split(1, 1, gpu_layers=4), CARD)
    assert size(partly, compute) == size(alone, compute)


def test_the_share_of_a_device_is_its_part_of_the_whole() -> None:
    assert Share(index=1, weights=(1.0, 3.0)).bounds == (0.25, 1.0)


def test_what_no_card_carries_lies_in_the_hosts_memory() -> None:
    def beside(**said: Any) -> int:
        return host_share(header(), split(1, 1, **said), CARD)

    assert beside(gpu_layers=0) > beside(gpu_layers=3) > beside()
    # Of a model that is wholly offloaded: the inputs' tensor, the process, the runtime, buffers.
    assert 256 * MIB + 8 * MIB < beside() < 340 * MIB
    more = beside(cache_ram_bytes=100 * MIB) - beside()
    assert 100 * MIB <= more <= 111 * MIB
    assert host_share(header(), split(1), HOST) == 0


def test_cached_prompts_count_on_the_host_alone() -> None:
    options = split(1, cache_ram_bytes=100 * MIB)
    assert size(estimate(header(), options, HOST), FootprintWhat.HOST_CACHE) == 100 * MIB
    assert size(estimate(header(), options, CARD), FootprintWhat.HOST_CACHE) == 0


def test_an_encoder_has_no_output_to_lie_on_a_card() -> None:
    bert = header(architecture="bert", tied=True, **{"attention.causal": False})
    bert = GgufHeader(
        version=3,
        architecture="bert",
        metadata=bert.metadata,
        tensors=tuple(each for each in bert.tensors if each.name != "output_norm.weight"),
        data_offset=0,
        file_bytes=0,
    )
    on_card = estimate(bert, ModelOptions(context_length=512), CARD)
    assert size(on_card, FootprintWhat.WEIGHTS) == bert.tensor_bytes - 8 * MIB
