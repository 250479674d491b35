"""A valid model of 160 MB with random weights, written in a moment."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

ROOT = Path(__file__).parent.parent.parent
# 158 MB of f16: 11 layers of 7.1 M weights, and 568 tokens.
SHAPE = {"embd": 768, "layers": 11, "heads": 12, "kv_heads": 12, "ff": 2048}


def write_large(path: Path) -> None:
    """As packaging/tiny_model.py writes its own, but for the noise, which numpy makes."""
    tiny = _tiny_model()
    shape = tiny.Shape(**SHAPE)
    pieces = tiny.vocabulary(shape.vocab)
    keys, shapes = tiny.metadata(shape, pieces), shape.tensors(len(pieces))
    noise = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(tiny.MAGIC + tiny.struct.pack("<IQQ", tiny.VERSION, len(shapes), len(keys)))
        file.write(b"".join(keys))
        offset = 0
        for name, dimensions in shapes.items():
            file.write(tiny.tensor_record(name, dimensions, offset))
            offset = tiny.padded(offset + tiny.tensor_bytes(dimensions))
        tiny.pad(file)
        for dimensions in shapes.values():
            file.write(_weights(dimensions, noise))
            tiny.pad(file)


def _weights(dimensions: tuple[int, ...], noise: np.random.Generator) -> bytes:
    if len(dimensions) == 1:
        return np.ones(dimensions[0], np.float32).tobytes()
    drawn = noise.standard_normal(dimensions[0] * dimensions[1], np.float32)
    return (drawn * dimensions[0] ** -0.5).astype(np.float16).tobytes()


def _tiny_model() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "tiny_model", ROOT / "packaging" / "tiny_model.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclass looks for itself
    spec.loader.exec_module(module)
    return module
