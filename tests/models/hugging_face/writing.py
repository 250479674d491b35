"""Tiny folders of models that vLLM really serves, made without its libraries, of noise."""

from __future__ import annotations

import json
import random
import struct
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SPECIAL = ("<pad>", "<s>", "</s>")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A llama's dimensions, some 100 000 numbers."""

    hidden: int = 64
    layers: int = 2
    heads: int = 2
    kv_heads: int = 1
    feed_forward: int = 128
    context: int = 2048
    vocabulary: int = 320

    @property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        key_width = self.hidden // self.heads * self.kv_heads
        found: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.vocabulary, self.hidden),
            "lm_head.weight": (self.vocabulary, self.hidden),
            "model.norm.weight": (self.hidden,),
        }
        for layer in range(self.layers):
            found |= {
                f"model.layers.{layer}.{name}.weight": shape
                for name, shape in {
                    "self_attn.q_proj": (self.hidden, self.hidden),
                    "self_attn.k_proj": (key_width, self.hidden),
                    "self_attn.v_proj": (key_width, self.hidden),
                    "self_attn.o_proj": (self.hidden, self.hidden),
                    "mlp.gate_proj": (self.feed_forward, self.hidden),
                    "mlp.up_proj": (self.feed_forward, self.hidden),
                    "mlp.down_proj": (self.hidden, self.feed_forward),
                    "input_layernorm": (self.hidden,),
                    "post_attention_layernorm": (self.hidden,),
                }.items()
            }
        return found


def config_of(shape: Shape, **changes: Any) -> dict[str, Any]:
    """What config.json says."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.hidden // shape.heads,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "attention_bias": False,
        "mlp_bias": False,
        **changes,
    }


def write_folder(folder: Path, shape: Shape | None = None, *, template: bool = True) -> Path:
    """A whole model of floats; the same shape gives the same bytes."""
    shape = shape or Shape()
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config_of(shape))
    write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2})
    write_json(folder / "tokenizer.json", _tokenizer(shape.vocabulary))
    told = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "model_max_length": shape.context,
    }
    write_json(
        folder / "tokenizer_config.json", told | ({"chat_template": TEMPLATE} if template else {})
    )
    write_weights(folder / "model.safetensors", shape.tensors)
    return folder


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def write_weights(path: Path, tensors: dict[str, tuple[int, ...]], seed: int = 0) -> None:
    """A safetensors file of floats: norms are ones, the rest is noise of a fitting size."""
    noise = random.Random(seed)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = bytearray()
    for name, shape in tensors.items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        scale = shape[-1] ** -0.5
        values = [1.0] * count
        if len(shape) > 1:
            values = [noise.gauss(0, scale) for _ in range(count)]
        begin = len(data)
        data += array("f", values).tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, len(data)]}
    path.write_bytes(packed(header, bytes(data)))


def packed(header: Any, data: bytes = b"") -> bytes:
    """The bytes of a safetensors file with this header, be it right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _tokenizer(vocabulary: int) -> dict[str, Any]:
    """Every byte is a token, as GPT-2 spells bytes; nothing is merged."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [*map(chr, printable), *(chr(256 + at) for at in range(len(others)))]
    tokens = [*SPECIAL, *letters]
    tokens += [f"<extra_{number}>" for number in range(vocabulary - len(tokens))]
    bytewise = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number,
                "content": content,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for number, content in enumerate(SPECIAL)
        ],
        "normalizer": None,
        "pre_tokenizer": {**bytewise, "use_regex": True},
        "post_processor": None,
        "decoder": {**bytewise, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {content: number for number, content in enumerate(tokens)},
            "merges": [],
        },
    }
