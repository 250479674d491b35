"""Models without weights: real headers of any shape over sparse files, which cost no disk.

llama-server maps them and reserves all that it would for the real ones. Written with gguf-py, so
that what our parser reads was not written by ourselves.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np

ROOT = Path(__file__).parents[2]
Shapes = dict[str, tuple[int, ...]]  # outermost dimension first, as gguf-py has it
# Small matrices that every build wants as floats.
FLOATS = (
    "_norm", ".bias", "conv", "ssm_a", "ssm_d", "ffn_gate_inp", "sinks", "token_types", "lerp",
)  # fmt: skip


def write_tiny(path: Path, *options: str) -> None:
    """The project's own tiny model, written by its program."""
    program = ROOT / "packaging" / "tiny_model.py"
    subprocess.run([sys.executable, program, path, *options], check=True, timeout=60)


def write_phantom(
    path: Path,
    architecture: str,
    keys: Mapping[str, Any],
    shapes: Shapes,
    *,
    vocabulary: int = 1000,
    kind: str = "F16",
) -> None:
    writer = gguf.GGUFWriter(path, architecture)
    add_tokenizer(writer, architecture, vocabulary)
    for name, value in keys.items():
        add_key(writer, f"{architecture}.{name}", value)
    write_tensors(writer, path, shapes, kind)


def write_tensors(writer: gguf.GGUFWriter, path: Path, shapes: Shapes, kind: str) -> None:
    """The rest of the file: the tensors' names, and room for their bytes."""
    for name, shape in shapes.items():
        add_tensor(writer, name, shape, "F32" if is_float(name, shape) else kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    assert writer.fout is not None
    end = writer.fout[0].tell()
    for tensor in writer.tensors[0].values():
        end = writer.ggml_pad(end, 32) + tensor.nbytes
    writer.close()
    os.truncate(path, writer.ggml_pad(end, 32))


def is_float(name: str, shape: tuple[int, ...]) -> bool:
    return len(shape) == 1 or any(part in name for part in FLOATS)


def add_tokenizer(writer: gguf.GGUFWriter, architecture: str, vocabulary: int) -> None:
    wordpiece = "bert" in architecture
    if wordpiece:
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        writer.add_tokenizer_model("bert")
        writer.add_token_type_count(2)
    else:
        special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
        writer.add_tokenizer_model("llama")
    words = [f"\u2581t{number}" for number in range(vocabulary - len(special))]
    kinds = [3] * len(special) + [1] * len(words)
    if not wordpiece:
        kinds[0], kinds[3:259] = 2, [6] * 256
    writer.add_tokenizer_pre("default")
    writer.add_token_list([piece.encode() for piece in special + words])
    writer.add_token_scores([0.0] * vocabulary)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(1 if wordpiece else 0)


def add_key(writer: gguf.GGUFWriter, name: str, value: Any) -> None:
    add: dict[type, Callable[[str, Any], None]] = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
    }
    add[type(value)](name, value)


def add_tensor(writer: gguf.GGUFWriter, name: str, shape: tuple[int, ...], kind: str) -> None:
    type_ = gguf.GGMLQuantizationType[kind]
    elements, size = gguf.GGML_QUANT_SIZES[type_]
    raw = gguf.quant_shape_to_byte_shape(shape, type_) if elements > 1 else shape
    dtype = {"F32": np.float32, "F16": np.float16}.get(kind, np.uint8)
    writer.add_tensor_info(
        name,
        raw,
        np.dtype(dtype),
        int(np.prod(shape)) // elements * size,
        raw_dtype=type_ if elements > 1 else None,
    )


def decoder_keys(
    embd: int, layers: int, ff: int, heads: int, kv_heads: int | Sequence[int], head: int
) -> dict[str, Any]:
    return {
        "context_length": 131072,
        "embedding_length": embd,
        "block_count": layers,
        "feed_forward_length": ff,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.key_length": head,
        "attention.value_length": head,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": head,
    }


def outer(embd: int, vocabulary: int, *, tied: bool = False) -> Shapes:
    shapes: Shapes = {"token_embd.weight": (vocabulary, embd), "output_norm.weight": (embd,)}
    return shapes if tied else {**shapes, "output.weight": (vocabulary, embd)}


def block(number: int, parts: Mapping[str, tuple[int, ...]]) -> Shapes:
    return {
        f"blk.{number}.{name}" + ("" if "." in name else ".weight"): shape
        for name, shape in parts.items()
    }


def feed_forward(embd: int, ff: int) -> Shapes:
    return {
        "ffn_norm": (embd,),
        "ffn_gate": (ff, embd),
        "ffn_up": (ff, embd),
        "ffn_down": (embd, ff),
    }


def experts(embd: int, count: int, width: int) -> Shapes:
    return {
        "ffn_gate_inp": (count, embd),
        "ffn_gate_exps": (count, width, embd),
        "ffn_up_exps": (count, width, embd),
        "ffn_down_exps": (count, embd, width),
    }


def attention(embd: int, heads: int, kv_heads: int, head: int) -> Shapes:
    return {
        "attn_norm": (embd,),
        "attn_q": (heads * head, embd),
        "attn_k": (kv_heads * head, embd),
        "attn_v": (kv_heads * head, embd),
        "attn_output": (embd, heads * head),
    }


def decoder(
    path: Path,
    architecture: str = "llama",
    *,
    embd: int = 1024,
    layers: int = 6,
    ff: int = 2816,
    heads: int = 16,
    kv_heads: int = 4,
    head: int = 64,
    vocabulary: int = 1000,
    kind: str = "F16",
    tied: bool = False,
    extra_keys: Mapping[str, Any] | None = None,
    extra_parts: Shapes | None = None,
) -> None:
    """The llama family: each block attention and a gated feed-forward, plus what is extra."""
    parts = {
        **attention(embd, heads, kv_heads, head),
        **feed_forward(embd, ff),
        **(extra_parts or {}),
    }
    if "ffn_gate_exps" in parts:
        for name in ("ffn_gate", "ffn_up", "ffn_down"):
            del parts[name]
    if architecture == "gpt-oss":
        del parts["ffn_norm"]
    shapes = outer(embd, vocabulary, tied=tied)
    for number in range(layers):
        shapes |= block(number, parts)
    keys = {**decoder_keys(embd, layers, ff, heads, kv_heads, head), **(extra_keys or {})}
    write_phantom(path, architecture, keys, shapes, vocabulary=vocabulary, kind=kind)


def qwen3(path: Path, **shape: Any) -> None:
    head = shape.get("head", 64)
    decoder(path, "qwen3", extra_parts={"attn_q_norm": (head,), "attn_k_norm": (head,)}, **shape)


def qwen3_experts(path: Path) -> None:
    """The proportions of Qwen3-30B-A3B, six layers of it."""
    keys = {"expert_count": 16, "expert_used_count": 8, "expert_feed_forward_length": 768}
    parts = {
        **experts(2048, 16, 768),
        "attn_q_norm": (128,),
        "attn_k_norm": (128,),
    }
    decoder(
        path,
        "qwen3moe",
        embd=2048,
        heads=32,
        head=128,
        ff=6144,
        kind="Q4_0",
        extra_keys=keys,
        extra_parts=parts,
    )


def gemma3(path: Path) -> None:
    """The proportions of Gemma 3 1B: five layers of six see a window of 512."""
    norms = {
        "attn_q_norm": (256,),
        "attn_k_norm": (256,),
        "post_attention_norm": (1152,),
        "post_ffw_norm": (1152,),
    }
    decoder(
        path,
        "gemma3",
        embd=1152,
        layers=12,
        ff=6912,
        heads=4,
        kv_heads=1,
        head=256,
        tied=True,
        kind="Q8_0",
        vocabulary=32000,
        extra_keys={"attention.sliding_window": 512},
        extra_parts=norms,
    )


def gpt_oss(path: Path) -> None:
    embd, ff, count = 1024, 1024, 8
    keys = {
        "expert_count": count,
        "expert_used_count": 4,
        "expert_feed_forward_length": ff,
        "attention.sliding_window": 128,
    }
    parts = {
        **experts(embd, count, ff),
        "post_attention_norm": (embd,),
        "attn_sinks": (16,),
        "attn_q.bias": (1024,),
        "attn_k.bias": (256,),
        "attn_v.bias": (256,),
        "attn_output.bias": (embd,),
        "ffn_gate_inp.bias": (count,),
        "ffn_gate_exps.bias": (count, ff),
        "ffn_up_exps.bias": (count, ff),
        "ffn_down_exps.bias": (count, embd),
    }
    decoder(path, "gpt-oss", embd=embd, ff=ff, extra_keys=keys, extra_parts=parts)


def latent(path: Path) -> None:
    """DeepSeek's attention: one vector of 512 + 64 a token and layer."""
    embd, heads, rank, rope, plain, value, query = 1024, 16, 512, 64, 128, 128, 768
    keys = {
        **decoder_keys(embd, 6, 2048, heads, 1, rank + rope),
        "attention.value_length": rank,
        "attention.kv_lora_rank": rank,
        "attention.q_lora_rank": query,
        "attention.key_length_mla": plain + rope,
        "attention.value_length_mla": value,
        "rope.dimension_count": rope,
        "leading_dense_block_count": 6,
        "expert_count": 0,
        "expert_used_count": 0,
        "expert_feed_forward_length": 512,
        "expert_shared_count": 0,
        "rope.scaling.yarn_log_multiplier": 0.07,
    }
    parts = {
        "attn_norm": (embd,),
        "attn_q_a": (query, embd),
        "attn_q_a_norm": (query,),
        "attn_q_b": (heads * (plain + rope), query),
        "attn_kv_a_mqa": (rank + rope, embd),
        "attn_kv_a_norm": (rank,),
        "attn_k_b": (heads, rank, plain),
        "attn_v_b": (heads, value, rank),
        "attn_output": (embd, heads * value),
        **feed_forward(embd, 2048),
    }
    shapes = outer(embd, 1000)
    for number in range(6):
        shapes |= block(number, parts)
    write_phantom(path, "deepseek2", keys, shapes)


def mamba2(path: Path) -> None:
    """No cache at all: a state of fixed size a slot."""
    embd, inner, state, steps = 768, 1536, 128, 24
    convolution = inner + 2 * state
    keys = {
        "context_length": 131072,
        "embedding_length": embd,
        "block_count": 6,
        "feed_forward_length": 0,
        "attention.head_count": 0,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "ssm.conv_kernel": 4,
        "ssm.inner_size": inner,
        "ssm.state_size": state,
        "ssm.time_step_rank": steps,
        "ssm.group_count": 1,
    }
    parts = {
        "attn_norm": (embd,),
        "ssm_in": (inner + convolution + steps, embd),
        "ssm_conv1d": (convolution, 4),
        "ssm_conv1d.bias": (convolution,),
        "ssm_dt.bias": (steps,),
        "ssm_norm": (1, inner),
        "ssm_out": (embd, inner),
    }
    shapes = outer(embd, 1000)
    for number in range(6):
        shapes |= block(number, parts)
        shapes |= {f"blk.{number}.ssm_a": (steps, 1), f"blk.{number}.ssm_d": (steps, 1)}
    write_phantom(path, "mamba2", keys, shapes)


def short_convolution(path: Path) -> None:
    """LFM2: two layers of three keep two rows instead of a cache."""
    embd, kv_heads = 1024, [0, 0, 4, 0, 0, 4]
    keys = {**decoder_keys(embd, 6, 2816, 16, kv_heads, 64), "shortconv.l_cache": 3}
    shapes: Shapes = {"token_embd.weight": (1000, embd), "token_embd_norm.weight": (embd,)}
    for number, own in enumerate(kv_heads):
        parts = {**attention(embd, 16, own, 64), "attn_q_norm": (64,), "attn_k_norm": (64,)}
        if not own:
            parts = {
                "attn_norm": (embd,),
                "shortconv.conv.weight": (embd, 3),
                "shortconv.in_proj.weight": (3 * embd, embd),
                "shortconv.out_proj.weight": (embd, embd),
            }
        shapes |= block(number, {**parts, **feed_forward(embd, 2816)})
    write_phantom(path, "lfm2", keys, shapes)


def encoder(path: Path, *, pooling: int = 1, extra: Shapes | None = None) -> None:
    """The proportions of bge-small: sees all at once, keeps nothing."""
    embd, ff = 384, 1536
    keys = {
        "context_length": 512,
        "embedding_length": embd,
        "block_count": 12,
        "feed_forward_length": ff,
        "attention.head_count": 12,
        "attention.layer_norm_epsilon": 1e-12,
        "attention.causal": False,
        "pooling_type": pooling,
    }
    parts: Shapes = {"ffn_up": (ff, embd), "ffn_down": (embd, ff)}
    parts |= {"ffn_up.bias": (ff,), "ffn_down.bias": (embd,)}
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        parts |= {name: (embd, embd), f"{name}.bias": (embd,)}
    for name in ("attn_output_norm", "layer_output_norm"):
        parts |= {name: (embd,), f"{name}.bias": (embd,)}
    shapes: Shapes = {
        "token_embd.weight": (1000, embd),
        "token_types.weight": (2, embd),
        "position_embd.weight": (512, embd),
        "token_embd_norm.weight": (embd,),
        "token_embd_norm.bias": (embd,),
        **(extra or {}),
    }
    for number in range(12):
        shapes |= block(
            number,
            {name if "." in name else f"{name}.weight": shape for name, shape in parts.items()},
        )
    write_phantom(path, "bert", keys, shapes)
