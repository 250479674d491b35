"""Phantoms of further models that attend: plain, with windows, with experts, encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.models.phantoms import (
    Shapes,
    attention,
    block,
    decoder,
    decoder_keys,
    encoder,
    experts,
    feed_forward,
    outer,
    write_phantom,
)


def qwen2(path: Path) -> None:
    """The proportions of Qwen2.5 0.5B: biases on queries, keys and values."""
    biases: Shapes = {"attn_q.bias": (896,), "attn_k.bias": (128,), "attn_v.bias": (128,)}
    decoder(
        path, "qwen2", embd=896, layers=8, ff=4864, heads=14, kv_heads=2, tied=True,
        vocabulary=32000, kind="Q8_0", extra_parts=biases,
    )  # fmt: skip


def gemma2(path: Path) -> None:
    """Every second layer sees a window of 1024; scores are capped."""
    norms: Shapes = {"post_attention_norm": (1024,), "post_ffw_norm": (1024,)}
    keys = {
        "attention.sliding_window": 1024,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    }
    decoder(
        path, "gemma2", heads=4, kv_heads=2, head=256, tied=True, vocabulary=32000,
        extra_keys=keys, extra_parts=norms,
    )  # fmt: skip


def mixtral(path: Path) -> None:
    """The llama family with experts of the whole feed-forward width."""
    keys = {"expert_count": 8, "expert_used_count": 2}
    decoder(path, "llama", kind="Q4_0", extra_keys=keys, extra_parts=experts(1024, 8, 2816))


def qwen2_experts(path: Path) -> None:
    """Experts beside a shared one that every token passes."""
    keys = {
        "expert_count": 8,
        "expert_used_count": 4,
        "expert_feed_forward_length": 704,
        "expert_shared_feed_forward_length": 2816,
    }
    parts: Shapes = {
        **experts(1024, 8, 704),
        "attn_q.bias": (1024,),
        "attn_k.bias": (256,),
        "attn_v.bias": (256,),
        "ffn_gate_inp_shexp": (1024,),
        "ffn_gate_shexp": (2816, 1024),
        "ffn_up_shexp": (2816, 1024),
        "ffn_down_shexp": (1024, 2816),
    }
    decoder(path, "qwen2moe", kind="Q4_0", extra_keys=keys, extra_parts=parts)


def llama4(path: Path) -> None:
    """Three layers of four see a chunk of 8192; every second has experts."""
    embd, ff = 1024, 2816
    keys = {
        **decoder_keys(embd, 8, ff, 16, 4, 64),
        "expert_count": 8,
        "expert_used_count": 1,
        "expert_feed_forward_length": 1408,
        "interleave_moe_layer_step": 2,
    }
    routed: Shapes = {
        **experts(embd, 8, 1408),
        "ffn_norm": (embd,),
        "ffn_gate_shexp": (1408, embd),
        "ffn_up_shexp": (1408, embd),
        "ffn_down_shexp": (embd, 1408),
    }
    shapes = outer(embd, 1000)
    for number in range(8):
        after = routed if number % 2 else feed_forward(embd, ff)
        shapes |= block(number, {**attention(embd, 16, 4, 64), **after})
    write_phantom(path, "llama4", keys, shapes, kind="Q4_0")


def cohere2(path: Path) -> None:
    """Attention and feed-forward beside each other; three layers of four see a window."""
    keys: dict[str, Any] = {
        **decoder_keys(1024, 8, 2816, 16, 4, 64),
        "attention.sliding_window": 512,
        "attention.layer_norm_epsilon": 1e-5,
        "logit_scale": 0.25,
    }
    parts = {**attention(1024, 16, 4, 64), **feed_forward(1024, 2816)}
    del parts["ffn_norm"]
    shapes = outer(1024, 1000, tied=True)
    for number in range(8):
        shapes |= block(number, parts)
    write_phantom(path, "cohere2", keys, shapes)


def latent_experts(path: Path) -> None:
    """DeepSeek V2: one compressed vector a token, experts after the first layer."""
    embd, heads, rank, rope, plain, value, query = 1024, 16, 512, 64, 128, 128, 768
    keys = {
        **decoder_keys(embd, 6, 2816, heads, 1, rank + rope),
        "attention.value_length": rank,
        "attention.kv_lora_rank": rank,
        "attention.q_lora_rank": query,
        "attention.key_length_mla": plain + rope,
        "attention.value_length_mla": value,
        "rope.dimension_count": rope,
        "leading_dense_block_count": 1,
        "expert_count": 16,
        "expert_used_count": 6,
        "expert_feed_forward_length": 704,
        "expert_shared_count": 2,
        "rope.scaling.yarn_log_multiplier": 0.07,
    }
    attending: Shapes = {
        "attn_norm": (embd,),
        "attn_q_a": (query, embd),
        "attn_q_a_norm": (query,),
        "attn_q_b": (heads * (plain + rope), query),
        "attn_kv_a_mqa": (rank + rope, embd),
        "attn_kv_a_norm": (rank,),
        "attn_k_b": (heads, rank, plain),
        "attn_v_b": (heads, value, rank),
        "attn_output": (embd, heads * value),
        "ffn_norm": (embd,),
    }
    routed: Shapes = {
        **experts(embd, 16, 704),
        "ffn_gate_shexp": (1408, embd),
        "ffn_up_shexp": (1408, embd),
        "ffn_down_shexp": (embd, 1408),
    }
    shapes = outer(embd, 1000)
    for number in range(6):
        after = routed if number else feed_forward(embd, 2816)
        shapes |= block(number, {**attending, **after})
    write_phantom(path, "deepseek2", keys, shapes)


def nomic(path: Path) -> None:
    """An encoder with rotated queries and a gated feed-forward."""
    embd, ff = 768, 3072
    keys = {
        "context_length": 2048,
        "embedding_length": embd,
        "block_count": 12,
        "feed_forward_length": ff,
        "attention.head_count": 12,
        "attention.layer_norm_epsilon": 1e-12,
        "attention.causal": False,
        "pooling_type": 1,
        "rope.freq_base": 1000.0,
    }
    parts: Shapes = {
        "attn_qkv": (3 * embd, embd),
        "attn_output": (embd, embd),
        "ffn_up": (ff, embd),
        "ffn_gate": (ff, embd),
        "ffn_down": (embd, ff),
    }
    for name in ("attn_output_norm", "layer_output_norm"):
        parts |= {name: (embd,), f"{name}.bias": (embd,)}
    shapes: Shapes = {
        "token_embd.weight": (1000, embd),
        "token_types.weight": (2, embd),
        "token_embd_norm.weight": (embd,),
        "token_embd_norm.bias": (embd,),
    }
    for number in range(12):
        shapes |= block(number, parts)
    write_phantom(path, "nomic-bert", keys, shapes)


def stablelm(path: Path) -> None:
    """A family that the server knows and our table does not."""
    parts: Shapes = {
        **attention(1024, 16, 4, 64),
        **feed_forward(1024, 2816),
        "attn_norm.bias": (1024,),
        "ffn_norm.bias": (1024,),
    }
    keys = {
        **decoder_keys(1024, 6, 2816, 16, 4, 64),
        "attention.layer_norm_epsilon": 1e-5,
        "use_parallel_residual": False,
    }
    shapes: Shapes = {**outer(1024, 1000), "output_norm.bias": (1024,)}
    for number in range(6):
        shapes |= block(number, parts)
    write_phantom(path, "stablelm", keys, shapes)


def reranker(path: Path) -> None:
    """An encoder whose pooled row passes two small matrices."""
    encoder(
        path,
        pooling=4,
        extra={
            "cls.weight": (384, 384),
            "cls.bias": (384,),
            "cls.output.weight": (1, 384),
            "cls.output.bias": (1,),
        },
    )


def olmo2(path: Path) -> None:
    """Norms after attention and feed-forward instead of before; no window."""
    parts = {**attention(1024, 16, 16, 64), **feed_forward(1024, 2816)}
    for name in ("attn_norm", "ffn_norm"):
        del parts[name]
    parts |= {"attn_q_norm": (1024,), "attn_k_norm": (1024,)}
    parts |= {"post_attention_norm": (1024,), "post_ffw_norm": (1024,)}
    shapes = outer(1024, 1000)
    for number in range(6):
        shapes |= block(number, parts)
    write_phantom(path, "olmo2", decoder_keys(1024, 6, 2816, 16, 16, 64), shapes)


def phi3(path: Path) -> None:
    """Queries, keys and values in one matrix, gate and up in another; its window is left aside."""
    shapes = outer(1024, 1000)
    for number in range(6):
        shapes |= block(
            number,
            {
                "attn_norm": (1024,),
                "attn_qkv": (3 * 1024, 1024),
                "attn_output": (1024, 1024),
                "ffn_norm": (1024,),
                "ffn_up": (2 * 2816, 1024),
                "ffn_down": (1024, 2816),
            },
        )
    keys = {**decoder_keys(1024, 6, 2816, 16, 16, 64), "attention.sliding_window": 2047}
    keys["rope.scaling.original_context_length"] = 4096
    write_phantom(path, "phi3", keys, shapes)
