"""The grid: models, and the options that each is loaded with.

`SLICE` runs in every test run: one or two cells for each law. `GRID` is all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from gpud.models.model import ModelOptions
from tests.models import phantoms
from tests.models.grid import attending, recurrent


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A model and the options that it is loaded with."""

    model: str
    options: ModelOptions

    @property
    def name(self) -> str:
        """As it is told: `llama-1b c=4096 np=1`."""
        said = {name: getattr(self.options, name) for name in ModelOptions.__dataclass_fields__}
        words = [f"{_SHORT.get(n, n)}={v}" for n, v in said.items() if v is not None]
        return " ".join((self.model, *words))


_SHORT = {
    "context_length": "c", "parallel": "np", "ubatch": "ub", "cache_type_k": "k",
    "cache_type_v": "v", "flash_attention": "fa", "kv_unified": "kvu",
}  # fmt: skip

MODELS: dict[str, Callable[[Path], None]] = {
    "tiny": phantoms.write_tiny,
    "llama-1b": partial(
        phantoms.decoder,
        embd=2048, layers=16, ff=8192, heads=32, kv_heads=8,
        vocabulary=32_000, kind="Q8_0", tied=True,
    ),
    "qwen3-0.6b": partial(
        phantoms.qwen3, layers=28, ff=3072, kv_heads=8, head=128, vocabulary=16_000, tied=True
    ),
    "narrow-ff": partial(phantoms.decoder, ff=768),
    "wide-heads": partial(phantoms.decoder, heads=32, head=128, kv_heads=16),
    "qwen2": attending.qwen2,
    "olmo2": attending.olmo2,
    "phi3": attending.phi3,
    "mixtral": attending.mixtral,
    "qwen2-moe": attending.qwen2_experts,
    "qwen3-moe": phantoms.qwen3_experts,
    "gemma2": attending.gemma2,
    "gemma3-1b": phantoms.gemma3,
    "cohere2": attending.cohere2,
    "llama4": attending.llama4,
    "gpt-oss": phantoms.gpt_oss,
    "deepseek-mla": phantoms.latent,
    "deepseek-moe": attending.latent_experts,
    "mamba": recurrent.mamba,
    "mamba2": phantoms.mamba2,
    "rwkv7": recurrent.rwkv7,
    "jamba": recurrent.jamba,
    "falcon-h1": recurrent.falcon_h1,
    "granite-hybrid": recurrent.granite_hybrid,
    "nemotron-h": recurrent.nemotron_h,
    "qwen3-next": recurrent.qwen3_next,
    "qwen3.5": recurrent.qwen35,
    "lfm2": phantoms.short_convolution,
    "bge-small": phantoms.encoder,
    "nomic": attending.nomic,
    "reranker": attending.reranker,
    "stablelm": attending.stablelm,
}  # fmt: skip
ENCODERS = ("bge-small", "nomic", "reranker")
# Known to the server and not to our table: estimated with the wider margin.
UNKNOWN = ("stablelm",)


def cell(model: str, context_length: int, parallel: int = 1, **options: object) -> Cell:
    said = {"context_length": context_length, "parallel": parallel, **options}
    return Cell(model=model, options=ModelOptions(**said))  # type: ignore[arg-type]


SLICE = (
    cell("tiny", 512),
    cell("tiny", 2048, 4, kv_unified=True, ubatch=128),
    cell("llama-1b", 16384, 4, cache_type_k="q8_0", cache_type_v="q8_0"),
    cell("llama-1b", 4096, flash_attention="off"),
    cell("llama-1b", 4100, 3, ubatch=2048),
    cell("qwen3-0.6b", 2048, embedding=True),
    cell("wide-heads", 2048, flash_attention="off"),
    cell("qwen2", 4096, 16),
    cell("mixtral", 4096),
    cell("qwen3-moe", 4096, 2),
    cell("gemma3-1b", 8192, 4, kv_unified=True),
    cell("cohere2", 4096, 4),
    cell("llama4", 16384),
    cell("gpt-oss", 16384, 4),
    cell("deepseek-mla", 4096, flash_attention="off"),
    cell("mamba", 4096, 16, ubatch=64),
    cell("mamba2", 4096, 4),
    cell("rwkv7", 4096, 4),
    cell("jamba", 4096),
    cell("falcon-h1", 4096, 4, ubatch=128),
    cell("nemotron-h", 4096),
    cell("qwen3-next", 4096, 4),
    cell("lfm2", 8192, 4),
    cell("bge-small", 512, 4, embedding=True),
    cell("reranker", 512),
    cell("stablelm", 4096),
)

# Of a model that attends or keeps a state: how it is loaded, one thing after the other.
_VARIED = (
    ModelOptions(context_length=2048, parallel=1),
    ModelOptions(context_length=16384, parallel=4),
    ModelOptions(context_length=4100, parallel=3, ubatch=1024),
    ModelOptions(context_length=8192, parallel=8, kv_unified=True, ubatch=128),
    ModelOptions(context_length=4096, parallel=2, cache_type_k="f32", cache_type_v="f32"),
    ModelOptions(context_length=8192, parallel=1, cache_type_k="q8_0", cache_type_v="q4_0"),
    ModelOptions(context_length=8192, parallel=2, flash_attention="off"),
)
_ENCODED = (
    ModelOptions(context_length=512, parallel=1),
    ModelOptions(context_length=2048, parallel=4, ubatch=256),
    ModelOptions(context_length=512, parallel=1, flash_attention="off"),
)
# Without attention all layers' caches are states, whatever their types.
_STATEFUL = ("mamba", "mamba2", "rwkv7")
# Values are a part of the keys there, and of their type.
_LATENT = ("deepseek-mla", "deepseek-moe")


def _cells() -> Iterator[Cell]:
    yield from SLICE
    for model in MODELS:
        if model in ENCODERS:
            wanted = None if model == "reranker" else True
            for options in _ENCODED:
                yield Cell(model=model, options=replace(options, embedding=wanted))
            continue
        for varied in _VARIED:
            options = varied
            if model in _LATENT and options.cache_type_v is not None:
                options = replace(options, cache_type_v=options.cache_type_k)
            typed = options.cache_type_k is not None
            if not (model in _STATEFUL and (typed or options.flash_attention)):
                yield Cell(model=model, options=options)


GRID = tuple(dict.fromkeys(_cells()))
