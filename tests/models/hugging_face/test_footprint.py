"""What vLLM needs: exact for its cache, and as measured on a CPU for the rest."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.devices.snapshot import DeviceKind
from gpud.models.footprint import DeviceTraits
from gpud.models.hugging_face.config import HfModel, model_of
from gpud.models.hugging_face.footprint import cache_bytes, estimate, host_bytes
from gpud.models.hugging_face.safetensors import Weight
from gpud.models.model import Confidence, Footprint, FootprintWhat, ModelOptions
from gpud.units import GIB, MIB
from tests.models.hugging_face.writing import Shape, config_of

HOST = DeviceTraits(kind=DeviceKind.HOST, model_name="host")
CARD = DeviceTraits(kind=DeviceKind.GPU, model_name="NVIDIA H200")
OPTIONS = ModelOptions(
    context_length=512, max_num_seqs=4, max_num_batched_tokens=512, dtype="float32"
)


def llama(shape: Shape, dtype: str = "F32", size: int = 4, **changes: object) -> HfModel:
    weights = []
    for name, dimensions in shape.tensors.items():
        count = dimensions[0] * (dimensions[1] if len(dimensions) > 1 else 1)
        weights.append(Weight(name, dtype, dimensions, count * size))
    return model_of(config_of(shape, **changes), weights)


TINY = llama(Shape())
MIDDLE = llama(Shape(hidden=1024, layers=4, heads=16, kv_heads=4, feed_forward=4096))


def of(footprint: Footprint, what: FootprintWhat) -> int:
    return sum(item.bytes for item in footprint.items if item.what is what)


def test_the_cache_is_exact_by_what_vllm_tells() -> None:
    """16 MiB were 32 768 tokens of this model, 256 blocks of 128: as cache_config_info said."""
    pinned = replace(OPTIONS, kv_cache_bytes=16 * MIB)
    assert cache_bytes(TINY, pinned, HOST) == 16 * MIB
    token = 16 * MIB // 32_768
    assert cache_bytes(TINY, OPTIONS, HOST) == token * 128 * (4 * 512 // 128 + 1)
    assert cache_bytes(TINY, OPTIONS, CARD) == token * 16 * (4 * 512 // 16 + 1)
    # 256 MiB were 65 536 tokens of the larger one in half precision.
    half = replace(OPTIONS, dtype="auto", context_length=128, max_num_seqs=1)
    assert cache_bytes(MIDDLE, half, HOST) == 256 * MIB // 65_536 * 2 * 128


@pytest.mark.parametrize(
    ("model", "options", "peak_kib"),
    [
        # RssAnon and RssShmem of all four processes, at their peak: the cache, the model.
        (TINY, replace(OPTIONS, kv_cache_bytes=512 * MIB), 431576 + 5884 + 398868 + 956828),
        (
            MIDDLE,
            ModelOptions(
                context_length=2304,
                max_num_seqs=4,
                max_num_batched_tokens=2048,
                dtype="float32",
                kv_cache_bytes=256 * MIB,
            ),
            431900 + 5884 + 397032 + 1299060,
        ),
        (
            MIDDLE,
            ModelOptions(
                context_length=2304,
                max_num_seqs=4,
                max_num_batched_tokens=2048,
                kv_cache_bytes=256 * MIB,
            ),
            431892 + 5888 + 397176 + 1057800,
        ),
    ],
)
def test_it_holds_what_vllm_was_measured_to_take_on_a_cpu(
    model: HfModel, options: ModelOptions, peak_kib: int
) -> None:
    footprint = estimate(model, replace(options, enforce_eager=True), HOST)
    cold = footprint.total_bytes - footprint.margin_bytes
    assert footprint.confidence is Confidence.LAW
    assert cold == pytest.approx(peak_kib * 1024, rel=0.03)
    assert footprint.total_bytes > peak_kib * 1024


def test_weights_are_counted_in_the_type_that_is_computed_in() -> None:
    half = llama(Shape(), "BF16", 2)
    assert of(estimate(half, OPTIONS, HOST), FootprintWhat.WEIGHTS) == 4 * half.parameter_count
    auto = replace(OPTIONS, dtype="auto")
    assert of(estimate(TINY, auto, HOST), FootprintWhat.WEIGHTS) == 2 * TINY.parameter_count
    packed = llama(Shape(), "I32", 4, quantization_config={"quant_method": "awq"})
    assert of(estimate(packed, auto, HOST), FootprintWhat.WEIGHTS) == packed.file_bytes
    assert estimate(packed, auto, HOST).confidence is Confidence.GUESS


def test_ranks_share_matrices_and_heads_and_not_vectors() -> None:
    shape = Shape(heads=16, kv_heads=4, hidden=1024)
    model = llama(shape, "BF16", 2)
    options = replace(OPTIONS, dtype="auto")
    one = estimate(model, options, CARD)
    four = estimate(model, replace(options, tensor_parallel_size=4), CARD)
    vectors = 2 * shape.hidden * (2 * shape.layers + 1)
    weights = of(one, FootprintWhat.WEIGHTS)
    assert of(four, FootprintWhat.WEIGHTS) == (weights - vectors) // 4 + vectors
    assert of(four, FootprintWhat.KV_CACHE) * 4 == of(one, FootprintWhat.KV_CACHE)
    # Eight ranks of four heads each keep one.
    eight = estimate(model, replace(options, tensor_parallel_size=8), CARD)
    assert of(eight, FootprintWhat.KV_CACHE) == of(four, FootprintWhat.KV_CACHE)
    assert of(four, FootprintWhat.CONTEXT) > of(one, FootprintWhat.CONTEXT)


def test_compressed_keys_and_values_are_one_vector_a_token() -> None:
    latent = llama(Shape(), kv_lora_rank=512, qk_rope_head_dim=64)
    size = cache_bytes(latent, replace(OPTIONS, context_length=64, max_num_seqs=1), CARD)
    assert size == 2 * (512 + 64) * 4 * 64 * 2  # layers, widths, floats, block of 64, two blocks


@pytest.mark.parametrize(
    ("kind", "share"), [("fp8", 4), ("bfloat16", 2), ("float16", 2), ("auto", 1)]
)
def test_a_narrower_cache_takes_less(kind: str, share: int) -> None:
    told = replace(OPTIONS, kv_cache_dtype=kind)
    assert cache_bytes(TINY, told, CARD) * share == cache_bytes(TINY, OPTIONS, CARD)


def test_an_encoder_keeps_nothing() -> None:
    encoder = llama(Shape(), architectures=["BertModel"])
    assert cache_bytes(encoder, OPTIONS, HOST) == 0
    assert cache_bytes(encoder, replace(OPTIONS, kv_cache_bytes=GIB), HOST) == 0


def test_a_card_carries_graphs_and_the_host_the_processes() -> None:
    graphs = estimate(TINY, OPTIONS, CARD)
    eager = estimate(TINY, replace(OPTIONS, enforce_eager=True), CARD)
    assert of(graphs, FootprintWhat.COMPUTE) > of(eager, FootprintWhat.COMPUTE)
    assert graphs.confidence is Confidence.GUESS
    assert host_bytes(TINY, OPTIONS, HOST) == 0
    assert host_bytes(TINY, OPTIONS, CARD) > GIB
    two = replace(OPTIONS, tensor_parallel_size=2)
    assert host_bytes(TINY, two, CARD) > host_bytes(TINY, OPTIONS, CARD) + GIB
    assert all(item.source for item in graphs.items)


@given(
    st.integers(1, 4096),
    st.integers(1, 64),
    st.integers(1, 4096),
    st.sampled_from([HOST, CARD]),
)
def test_property_more_of_anything_is_never_less(
    context: int, sequences: int, tokens: int, device: DeviceTraits
) -> None:
    less = ModelOptions(
        context_length=context, max_num_seqs=sequences, max_num_batched_tokens=tokens
    )
    total = estimate(TINY, less, device).total_bytes
    for more in (
        replace(less, context_length=context + 500),
        replace(less, max_num_seqs=sequences + 1),
        replace(less, max_num_batched_tokens=tokens + 100),
        replace(less, dtype="float32"),
    ):
        assert estimate(TINY, more, device).total_bytes >= total
