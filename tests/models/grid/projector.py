"""A phantom of a vision projector: an image encoder and two matrices into a text model's width."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf

from tests.models.phantoms import Shapes, add_key, write_tensors

HIDDEN, WIDE, LAYERS, PATCH, SIZE = 1024, 4096, 8, 14, 336


def projector(path: Path, *, width: int = 1024) -> None:
    """The proportions of CLIP ViT-L/14 at 336 pixels, a third of its layers."""
    keys: dict[str, Any] = {
        "clip.has_vision_encoder": True,
        "clip.projector_type": "mlp",
        "clip.use_gelu": True,
        "clip.vision.image_size": SIZE,
        "clip.vision.patch_size": PATCH,
        "clip.vision.embedding_length": HIDDEN,
        "clip.vision.feed_forward_length": WIDE,
        "clip.vision.block_count": LAYERS,
        "clip.vision.projection_dim": width,
        "clip.vision.attention.head_count": 16,
        "clip.vision.attention.layer_norm_epsilon": 1e-5,
        "clip.vision.image_mean": [0.5, 0.5, 0.5],
        "clip.vision.image_std": [0.5, 0.5, 0.5],
    }
    patches = (SIZE // PATCH) ** 2
    shapes: Shapes = {
        "v.patch_embd.weight": (HIDDEN, 3, PATCH, PATCH),
        "v.class_embd": (HIDDEN,),
        "v.position_embd.weight": (patches + 1, HIDDEN),
        "v.pre_ln.weight": (HIDDEN,),
        "v.pre_ln.bias": (HIDDEN,),
        "mm.0.weight": (width, HIDDEN),
        "mm.0.bias": (width,),
        "mm.2.weight": (width, width),
        "mm.2.bias": (width,),
    }
    for number in range(LAYERS):
        own = f"v.blk.{number}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            shapes |= {f"{own}.{name}.weight": (HIDDEN, HIDDEN), f"{own}.{name}.bias": (HIDDEN,)}
        for name in ("ln1", "ln2"):
            shapes |= {f"{own}.{name}.weight": (HIDDEN,), f"{own}.{name}.bias": (HIDDEN,)}
        shapes |= {f"{own}.ffn_up.weight": (WIDE, HIDDEN), f"{own}.ffn_up.bias": (WIDE,)}
        shapes |= {f"{own}.ffn_down.weight": (HIDDEN, WIDE), f"{own}.ffn_down.bias": (HIDDEN,)}
    writer = gguf.GGUFWriter(path, "clip")
    for name, value in keys.items():
        add_key(writer, name, value)
    write_tensors(writer, path, shapes, "F16")
