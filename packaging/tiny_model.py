#!/usr/bin/env python3
"""Write a tiny, valid llama model with random weights: for the demo and the tests.

It loads in llama-server and answers (nonsense, since its weights are noise). Nothing beside the
standard library is needed.

    python packaging/tiny_model.py OUT [--embd 128] [--layers 2] [--heads 4] [--kv-heads 2]
                                       [--ff 256] [--ctx 2048] [--vocab 512] [--seed 0]
"""

from __future__ import annotations

import argparse
import random
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

ALIGNMENT = 32
MAGIC = b"GGUF"
VERSION = 3

# Kinds of values, types of tensors and file type, by ggml's numbers.
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
TENSOR_F32, TENSOR_F16 = 0, 1
FILE_TYPE_MOSTLY_F16 = 1
TOKEN_NORMAL, TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_BYTE = 1, 2, 3, 6

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WORDS = (
    "the of and to in is it you that he was for on are with as his they be at one have this "
    "from or had by hot word but what some we can out other were all there when up use your how "
    "said an each she which do their time if will way about many then them write would like so "
    "these her long make thing see him two has look more day could go come did number sound no "
    "most people my over know water than call first who may down side been now find"
)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A llama model's dimensions. Heads of 32 elements or more can have a quantized cache."""

    embd: int = 128
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    ff: int = 256
    ctx: int = 2048
    vocab: int = 512

    def tensors(self, vocabulary: int) -> dict[str, tuple[int, ...]]:
        """The name and the shape, innermost dimension first, of each tensor."""
        kv_width = self.embd // self.heads * self.kv_heads
        shapes: dict[str, tuple[int, ...]] = {
            "token_embd.weight": (self.embd, vocabulary),
            "output_norm.weight": (self.embd,),
            "output.weight": (self.embd, vocabulary),
        }
        for layer in range(self.layers):
            block = {
                "attn_norm": (self.embd,),
                "attn_q": (self.embd, self.embd),
                "attn_k": (self.embd, kv_width),
                "attn_v": (self.embd, kv_width),
                "attn_output": (self.embd, self.embd),
                "ffn_norm": (self.embd,),
                "ffn_gate": (self.embd, self.ff),
                "ffn_up": (self.embd, self.ff),
                "ffn_down": (self.ff, self.embd),
            }
            for name, shape in block.items():
                shapes[f"blk.{layer}.{name}.weight"] = shape
        return shapes


def write_model(path: Path, shape: Shape, seed: int = 0) -> None:
    """Write the file whole; the same shape and seed give the same bytes."""
    pieces = vocabulary(shape.vocab)
    keys = metadata(shape, pieces)
    shapes = shape.tensors(len(pieces))
    noise = random.Random(seed)
    with path.open("wb") as file:
        file.write(MAGIC + struct.pack("<IQQ", VERSION, len(shapes), len(keys)))
        file.write(b"".join(keys))
        offset = 0
        for name, dimensions in shapes.items():
            file.write(tensor_record(name, dimensions, offset))
            offset = padded(offset + tensor_bytes(dimensions))
        pad(file)
        for dimensions in shapes.values():
            file.write(weights(dimensions, noise))
            pad(file)


def vocabulary(least: int) -> list[tuple[str, int]]:
    """Pieces and their types: every byte, so that any text can be told, then some words.

    The tokenizer merges two pieces only into a third, so each beginning of a word is a piece too.
    """
    pieces = {"<unk>": TOKEN_UNKNOWN, "<s>": TOKEN_CONTROL, "</s>": TOKEN_CONTROL}
    pieces |= {f"<0x{byte:02X}>": TOKEN_BYTE for byte in range(256)}
    for word in WORDS.split():
        pieces |= {f"\u2581{word[:end]}": TOKEN_NORMAL for end in range(1, len(word) + 1)}
    pieces |= dict.fromkeys(("\u2581", *map(chr, range(33, 127))), TOKEN_NORMAL)
    for number in range(max(least - len(pieces), 0)):
        pieces[f"\u2581token{number}"] = TOKEN_NORMAL
    return list(pieces.items())


def metadata(shape: Shape, pieces: list[tuple[str, int]]) -> list[bytes]:
    """The keys as they lie in the file."""
    numbers = {
        "llama.context_length": shape.ctx,
        "llama.embedding_length": shape.embd,
        "llama.block_count": shape.layers,
        "llama.feed_forward_length": shape.ff,
        "llama.attention.head_count": shape.heads,
        "llama.attention.head_count_kv": shape.kv_heads,
        "llama.rope.dimension_count": shape.embd // shape.heads,
        "general.file_type": FILE_TYPE_MOSTLY_F16,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    texts = {
        "general.architecture": "llama",
        "general.name": "tiny-random-llama",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }
    # Earlier pieces are merged first.
    scores = [float(-rank) for rank in range(len(pieces))]
    return [
        *(key(name, STRING, string(text)) for name, text in texts.items()),
        *(key(name, UINT32, struct.pack("<I", number)) for name, number in numbers.items()),
        key("llama.attention.layer_norm_rms_epsilon", FLOAT32, struct.pack("<f", 1e-5)),
        key("tokenizer.ggml.add_bos_token", BOOL, b"\x01"),
        key("tokenizer.ggml.tokens", ARRAY, array(STRING, [string(piece) for piece, _ in pieces])),
        key(
            "tokenizer.ggml.scores", ARRAY, array(FLOAT32, [struct.pack("<f", s) for s in scores])
        ),
        key(
            "tokenizer.ggml.token_type",
            ARRAY,
            array(INT32, [struct.pack("<i", kind) for _, kind in pieces]),
        ),
    ]


def key(name: str, kind: int, value: bytes) -> bytes:
    """A key with its value."""
    return string(name) + struct.pack("<I", kind) + value


def string(text: str) -> bytes:
    """A string as GGUF spells it: its length in bytes, then UTF-8."""
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def array(kind: int, elements: list[bytes]) -> bytes:
    """An array of elements that are packed already."""
    return struct.pack("<IQ", kind, len(elements)) + b"".join(elements)


def tensor_record(name: str, shape: tuple[int, ...], offset: int) -> bytes:
    """Where a tensor lies and what it is: norms are f32, matrices f16."""
    kind = TENSOR_F32 if len(shape) == 1 else TENSOR_F16
    layout = struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
    return string(name) + layout


def tensor_bytes(shape: tuple[int, ...]) -> int:
    """The size of a tensor's data."""
    return 4 * shape[0] if len(shape) == 1 else 2 * shape[0] * shape[1]


def weights(shape: tuple[int, ...], noise: random.Random) -> bytes:
    """Norms of one; matrices of noise that keeps the variance of what they multiply."""
    if len(shape) == 1:
        return struct.pack(f"<{shape[0]}f", *([1.0] * shape[0]))
    count, deviation = shape[0] * shape[1], shape[0] ** -0.5
    return struct.pack(f"<{count}e", *(noise.gauss(0, deviation) for _ in range(count)))


def padded(offset: int) -> int:
    """The next offset at which a tensor may begin."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


def pad(file: BinaryIO) -> None:
    """Fill up to there."""
    file.write(b"\0" * (padded(file.tell()) - file.tell()))


def main() -> None:
    """Write the model that the command line asks for."""
    parser = argparse.ArgumentParser(description="Write a tiny llama model with random weights.")
    parser.add_argument("out", type=Path)
    defaults = Shape()
    for name in ("embd", "layers", "heads", "kv_heads", "ff", "ctx", "vocab"):
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=int, default=getattr(defaults, name), metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    wanted = vars(parser.parse_args())
    out, seed = wanted.pop("out"), wanted.pop("seed")
    shape = Shape(**wanted)
    if shape.embd % shape.heads or shape.heads % shape.kv_heads:
        parser.error("--embd must be divisible by --heads, and --heads by --kv-heads")
    write_model(out, shape, seed)
    print(f"{out}: {out.stat().st_size} bytes, {len(vocabulary(shape.vocab))} tokens")


if __name__ == "__main__":
    main()
