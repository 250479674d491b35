"""Phantoms of models that keep a state: Mamba, RWKV, and hybrids with attention beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.models.phantoms import (
    Shapes,
    attention,
    block,
    decoder_keys,
    experts,
    feed_forward,
    outer,
    write_phantom,
)

EMBD, INNER, STATE, KERNEL = 768, 1536, 128, 4
LAYERS = 6


def mamba_keys(*, state: int, steps: int, groups: int = 0) -> dict[str, Any]:
    keys: dict[str, Any] = {
        "ssm.conv_kernel": KERNEL,
        "ssm.inner_size": INNER,
        "ssm.state_size": state,
        "ssm.time_step_rank": steps,
    }
    return {**keys, "ssm.group_count": groups} if groups else keys


def mamba_block(state: int, rank: int, *, norms: bool = False) -> Shapes:
    """The first Mamba: a state of `state` numbers for every element of the inner width."""
    parts: Shapes = {
        "attn_norm": (EMBD,),
        "ssm_in": (2 * INNER, EMBD),
        "ssm_conv1d": (INNER, KERNEL),
        "ssm_conv1d.bias": (INNER,),
        "ssm_x": (rank + 2 * state, INNER),
        "ssm_dt": (INNER, rank),
        "ssm_dt.bias": (INNER,),
        "ssm_out": (EMBD, INNER),
    }
    if norms:
        parts |= {"ssm_dt_norm": (rank,), "ssm_b_norm": (state,), "ssm_c_norm": (state,)}
    return parts


def mamba2_block(steps: int, groups: int) -> Shapes:
    convolution = INNER + 2 * groups * STATE
    return {
        "attn_norm": (EMBD,),
        "ssm_in": (INNER + convolution + steps, EMBD),
        "ssm_conv1d": (convolution, KERNEL),
        "ssm_conv1d.bias": (convolution,),
        "ssm_dt.bias": (steps,),
        "ssm_norm": (groups, INNER // groups),
        "ssm_out": (EMBD, INNER),
    }


def bare(number: int, shape_a: tuple[int, ...], shape_d: tuple[int, ...]) -> Shapes:
    """The two tensors whose names have no ending."""
    return {f"blk.{number}.ssm_a": shape_a, f"blk.{number}.ssm_d": shape_d}


def mamba(path: Path) -> None:
    keys = {
        **decoder_keys(EMBD, LAYERS, 0, 0, 0, 64),
        **mamba_keys(state=16, steps=48),
    }
    for name in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
        del keys[name]
    shapes = outer(EMBD, 1000)
    for number in range(LAYERS):
        shapes |= block(number, mamba_block(16, 48)) | bare(number, (INNER, 16), (INNER,))
    write_phantom(path, "mamba", keys, shapes)


def jamba(path: Path) -> None:
    """One layer of three attends, the others keep a state; each has a feed-forward."""
    kv_heads = [0, 0, 4] * (LAYERS // 3)
    keys = {
        **decoder_keys(EMBD, LAYERS, 2048, 12, kv_heads, 64),
        **mamba_keys(state=16, steps=48),
    }
    shapes = outer(EMBD, 1000)
    for number, own in enumerate(kv_heads):
        if own:
            parts = attention(EMBD, 12, own, 64)
        else:
            parts = mamba_block(16, 48, norms=True)
            shapes |= bare(number, (INNER, 16), (INNER,))
        shapes |= block(number, {**parts, **feed_forward(EMBD, 2048)})
    write_phantom(path, "jamba", keys, shapes)


def falcon_h1(path: Path) -> None:
    """Attention beside the state in every layer."""
    keys = {
        **decoder_keys(EMBD, LAYERS, 2048, 12, 2, 64),
        **mamba_keys(state=STATE, steps=24, groups=1),
    }
    shapes = outer(EMBD, 1000)
    for number in range(LAYERS):
        parts = {**attention(EMBD, 12, 2, 64), **mamba2_block(24, 1)}
        parts |= feed_forward(EMBD, 2048)
        shapes |= block(number, parts) | bare(number, (24, 1), (24, 1))
    # This family's norm has no ending either.
    shapes = {name.replace("ffn_norm.weight", "ffn_norm"): shape for name, shape in shapes.items()}
    write_phantom(path, "falcon-h1", keys, shapes)


def granite_hybrid(path: Path) -> None:
    kv_heads = [0, 0, 4] * (LAYERS // 3)
    keys = {
        **decoder_keys(EMBD, LAYERS, 2048, 12, kv_heads, 64),
        **mamba_keys(state=STATE, steps=24, groups=1),
        "embedding_scale": 12.0,
        "residual_scale": 0.25,
        "attention.scale": 0.015625,
        "logit_scale": 8.0,
    }
    shapes = outer(EMBD, 1000, tied=True)
    for number, own in enumerate(kv_heads):
        if own:
            parts = attention(EMBD, 12, own, 64)
        else:
            parts = mamba2_block(24, 1)
            shapes |= bare(number, (24, 1), (24, 1))
        shapes |= block(number, {**parts, **feed_forward(EMBD, 2048)})
    write_phantom(path, "granitehybrid", keys, shapes)


def nemotron_h(path: Path) -> None:
    """A layer is one of three: a state, attention, or a feed-forward."""
    kv_heads, widths = [0, 0, 4, 0, 0, 0], [0, 3072, 0, 3072, 0, 3072]
    keys = {
        **decoder_keys(EMBD, LAYERS, 0, 12, kv_heads, 64),
        **mamba_keys(state=STATE, steps=24, groups=2),
        "feed_forward_length": widths,
        "attention.layer_norm_epsilon": 1e-5,
    }
    shapes = outer(EMBD, 1000)
    for number, (own, width) in enumerate(zip(kv_heads, widths, strict=True)):
        if own:
            parts = attention(EMBD, 12, own, 64)
        elif width:
            parts = {"attn_norm": (EMBD,), "ffn_up": (width, EMBD), "ffn_down": (EMBD, width)}
        else:
            parts = mamba2_block(24, 2)
            shapes |= bare(number, (24, 1), (24, 1))
        shapes |= block(number, parts)
    write_phantom(path, "nemotron_h", keys, shapes)


def qwen3_next(path: Path) -> None:
    """Gated delta nets in three layers of four, experts and a shared one in each."""
    embd, heads, kv_heads, head = 1024, 8, 2, 128
    key_heads, value_heads, width = 4, 8, 128
    value = value_heads * width
    keys = {
        **decoder_keys(embd, 8, 2048, heads, kv_heads, head),
        "ssm.conv_kernel": KERNEL,
        "ssm.inner_size": value,
        "ssm.state_size": width,
        "ssm.time_step_rank": value_heads,
        "ssm.group_count": key_heads,
        "full_attention_interval": 4,
        "expert_count": 8,
        "expert_used_count": 4,
        "expert_feed_forward_length": 512,
        "expert_shared_feed_forward_length": 512,
    }
    convolution = 2 * key_heads * width + value
    linear: Shapes = {
        "attn_qkv": (convolution, embd),
        "attn_gate": (value, embd),
        "ssm_conv1d": (convolution, KERNEL),
        "ssm_dt.bias": (value_heads,),
        "ssm_ba": (2 * value_heads, embd),
        "ssm_norm": (width,),
        "ssm_out": (embd, value),
    }
    full = {
        **attention(embd, heads, kv_heads, head),
        "attn_q": (2 * heads * head, embd),
        "attn_q_norm": (head,),
        "attn_k_norm": (head,),
    }
    shared: Shapes = {
        "attn_norm": (embd,),
        "post_attention_norm": (embd,),
        "ffn_gate_inp_shexp": (embd,),
        "ffn_gate_shexp": (512, embd),
        "ffn_up_shexp": (512, embd),
        "ffn_down_shexp": (embd, 512),
        **experts(embd, 8, 512),
    }
    shapes = outer(embd, 1000)
    for number in range(8):
        own = full if number % 4 == 3 else linear
        shapes |= block(number, {**own, **shared})
        if own is linear:
            shapes[f"blk.{number}.ssm_a"] = (value_heads,)
    write_phantom(path, "qwen3next", keys, shapes)


def qwen35(path: Path) -> None:
    """As the one before, with a feed-forward instead of experts."""
    embd, heads, kv_heads, head, ff = 1024, 8, 2, 128, 3072
    key_heads, value_heads, width = 8, 16, 64
    value, convolution = value_heads * width, 2 * key_heads * width + value_heads * width
    keys = {
        **decoder_keys(embd, 8, ff, heads, kv_heads, head),
        "ssm.conv_kernel": KERNEL,
        "ssm.inner_size": value,
        "ssm.state_size": width,
        "ssm.time_step_rank": value_heads,
        "ssm.group_count": key_heads,
        "full_attention_interval": 4,
        "rope.dimension_sections": [16, 24, 24, 0],
    }
    linear: Shapes = {
        "attn_qkv": (convolution, embd),
        "attn_gate": (value, embd),
        "ssm_conv1d": (convolution, KERNEL),
        "ssm_dt.bias": (value_heads,),
        "ssm_beta": (value_heads, embd),
        "ssm_alpha": (value_heads, embd),
        "ssm_norm": (width,),
        "ssm_out": (embd, value),
    }
    full = {
        **attention(embd, heads, kv_heads, head),
        "attn_q": (2 * heads * head, embd),
        "attn_q_norm": (head,),
        "attn_k_norm": (head,),
    }
    both = {**feed_forward(embd, ff), "attn_norm": (embd,), "post_attention_norm": (embd,)}
    del both["ffn_norm"]
    shapes = outer(embd, 1000)
    for number in range(8):
        own = full if number % 4 == 3 else linear
        shapes |= block(number, {**own, **both})
        if own is linear:
            shapes[f"blk.{number}.ssm_a"] = (value_heads,)
    write_phantom(path, "qwen35", keys, shapes)


def rwkv7(path: Path) -> None:
    """No attention and no Mamba: a matrix a head, and the rows of the last token."""
    embd, ff, rank = 768, 3072, 64
    keys = {
        "context_length": 131072,
        "embedding_length": embd,
        "block_count": LAYERS,
        "feed_forward_length": ff,
        "attention.head_count": 0,
        "attention.layer_norm_epsilon": 1e-5,
        "wkv.head_size": 64,
        "attention.decay_lora_rank": rank,
        "attention.iclr_lora_rank": rank,
        "attention.value_residual_mix_lora_rank": rank,
        "attention.gate_lora_rank": rank,
        "token_shift_count": 2,
    }
    parts: Shapes = {"time_mix_lerp_fused": (6, 1, 1, embd), "channel_mix_lerp_k": (1, 1, embd)}
    for name in ("attn_norm", "attn_norm_2", "time_mix_ln"):
        parts |= {name: (embd,), f"{name}.bias": (embd,)}
    for name in ("w", "a", "v"):
        parts |= {
            f"time_mix_{name}0": (embd,),
            f"time_mix_{name}1": (rank, embd),
            f"time_mix_{name}2": (embd, rank),
        }
    parts |= {"time_mix_g1": (rank, embd), "time_mix_g2": (embd, rank)}
    parts |= {f"time_mix_{name}": (embd,) for name in ("k_k", "k_a", "r_k")}
    for name in ("key", "value", "receptance", "output"):
        parts[f"time_mix_{name}"] = (embd, embd)
    parts |= {"channel_mix_key": (ff, embd), "channel_mix_value": (embd, ff)}
    shapes: Shapes = {
        **outer(embd, 1000),
        "output_norm.bias": (embd,),
        "token_embd_norm.weight": (embd,),
        "token_embd_norm.bias": (embd,),
    }
    for number in range(LAYERS):
        shapes |= block(number, parts)
    write_phantom(path, "rwkv7", keys, shapes)
