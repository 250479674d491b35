"""Pure: a load as the laws see it: the model's shape, its options, what lies on one device."""

from __future__ import annotations

import struct
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from gpud.models.architecture import Architecture, Layer
from gpud.models.gguf import GgufHeader
from gpud.models.model import ModelOptions

CELL_PADDING: Final = 256  # llama.cpp rounds the cells of a cache up to this


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Which part of a load one device carries: the `index`-th of so many, by their weights."""

    index: int = 0
    weights: tuple[float, ...] = (1.0,)

    @property
    def bounds(self) -> tuple[float, float]:
        """The part of a whole that is its own, from 0 to 1; those of all shares are disjoint."""
        ends = (0.0, *accumulate(self.weights))
        return ends[self.index] / ends[-1], ends[self.index + 1] / ends[-1]


WHOLE: Final = Share()


def shares(options: ModelOptions) -> tuple[Share, ...]:
    """One for each device that the options spread a load over.

    The mode `none` keeps all on the first device. Weights that are all 0 count as even ones.
    """
    weights = options.tensor_split or ()
    if len(weights) < 2 or options.split_mode == "none":
        return (WHOLE,)
    if not any(weights):
        weights = (1.0,) * len(weights)
    return tuple(Share(index=index, weights=weights) for index in range(len(weights)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A model, its options with nothing unsaid, and what of it lies on the device.

    `cells` are of the whole context for one stream, `window_cells` of the layers with a window;
    streams are separate caches: one where the slots share. `tokens` are of one micro-batch.
    """

    architecture: Architecture
    on_host: bool
    share: Share
    slots: int
    cells: int
    window_cells: int
    streams: int
    tokens: int
    key_type: str
    value_type: str
    flash_attention: bool
    embedding: bool
    split_rows: bool
    places: tuple[int | None, ...]  # of each layer, then of the output: a device, or the host

    @classmethod
    def of(
        cls, header: GgufHeader, options: ModelOptions, *, on_host: bool, share: Share = WHOLE
    ) -> Plan:
        """What is unsaid is as llama-server has it, with one slot. Raises GgufInvalid."""
        architecture = Architecture.of(header)
        context = options.context_length or architecture.context_trained or 4096
        slots = max(options.parallel or 1, 1)
        streams = 1 if options.kv_unified else slots
        cells = _padded(-(-context // streams))
        tokens = min(options.ubatch or 512, options.batch or 2048, context)
        window = (architecture.window or 0) * (slots // streams) + tokens
        count = len(architecture.layers)
        return cls(
            architecture=architecture,
            on_host=on_host,
            share=share,
            slots=slots,
            cells=cells,
            window_cells=_padded(min(cells, window)),
            streams=streams,
            tokens=tokens,
            key_type=options.cache_type_k or "f16",
            value_type=options.cache_type_v or "f16",
            flash_attention=options.flash_attention != "off",
            embedding=bool(options.embedding),
            split_rows=options.split_mode == "row" and len(share.weights) > 1,
            places=_places(count, 0 if on_host else options.gpu_layers, share.weights),
        )

    @property
    def carried(self) -> tuple[int, ...]:
        """The layers on this device; on the host alone, all of them."""
        count = len(self.architecture.layers)
        if self.on_host:
            return tuple(range(count))
        own = self.share.index
        return tuple(index for index in range(count) if self.places[index] == own)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The shapes of the layers on this device."""
        return tuple(self.architecture.layers[index] for index in self.carried)

    @property
    def carries_output(self) -> bool:
        """Whether the last matrix, over the vocabulary, lies on this device."""
        return self.on_host or self.places[-1] == self.share.index

    @property
    def offloaded(self) -> bool:
        """Whether nothing but the inputs is computed on the host."""
        return not self.on_host and None not in self.places

    @property
    def pipelined(self) -> bool:
        """Whether batches overlap on several devices, each with inputs of its own.

        llama.cpp does so where all layers are offloaded and split by layer.
        """
        return self.offloaded and len(self.share.weights) > 1 and not self.split_rows

    @property
    def windowed(self) -> bool:
        """Whether there is a second cache, of the layers with a window."""
        return any(layer.windowed for layer in self.architecture.layers)

    def layer_cells(self, layer: Layer) -> int:
        """Cells of one stream in that layer's cache."""
        return self.window_cells if layer.windowed else self.cells


def _places(
    count: int, gpu_layers: int | None, weights: tuple[float, ...]
) -> tuple[int | None, ...]:
    """Where each layer lies, and at the end the output: the number of a device; None: the host.

    As load_tensors of llama.cpp has it: the output goes first, then layers from the last to the
    first; the layers that go are dealt to the devices in their order, by the shares. It reckons
    in single precision, which decides the ties.
    """
    wanted = count + 1 if gpu_layers is None else min(gpu_layers, count + 1)
    first = count + 1 - wanted
    sums = [0.0]
    for weight in weights:
        sums.append(_single(sums[-1] + _single(weight)))
    ends = [_single(end / sums[-1]) for end in sums[1:]]
    last = len(weights) - 1
    dealt = (min(bisect_right(ends, _single(number / wanted)), last) for number in range(wanted))
    return ((None,) * first) + tuple(dealt)


def _single(value: float) -> float:
    """The value as a float of C has it."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def _padded(cells: int) -> int:
    return -(-cells // CELL_PADDING) * CELL_PADDING
