"""Pure: what one subject showed in a span of time, as steps of one length; to bytes and back.

A block holds the steps in which something was seen, by their beginning (wall seconds), and a
column for each field. A column of one value, and what equals the last value of each step, are
written once, so that a card that idles takes a few bytes.
"""

from __future__ import annotations

import math
import zlib
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, compress, groupby
from operator import mul
from typing import Final, TypeAlias, TypeVar

import msgspec

Value: TypeAlias = float | None
Row: TypeAlias = tuple[Value, ...]
T = TypeVar("T")

# Length of a step and of the block that it lies in, both in seconds; the finest first. Blocks of
# one length lie wholly in one of the next.
FINE, MIDDLE, COARSE = 1, 10, 60
SPANS: Final = {FINE: 30, MIDDLE: 300, COARSE: 3600}
# What packs badly by itself, and is written seldom.
_SQUEEZED_STEPS: Final = frozenset({MIDDLE, COARSE})


@dataclass(frozen=True, slots=True)
class Column:
    """One field, step by step: how many readings, and what they were; None where there were none.

    `mins`, `means`, `maxs` are the very list `lasts` where they equal it.
    """

    counts: Sequence[int]
    mins: Sequence[Value]
    means: Sequence[Value]
    maxs: Sequence[Value]
    lasts: Sequence[Value]

    @property
    def is_plain(self) -> bool:
        """Whether the values of each step are all the same, as those of a single reading are."""
        return self.mins is self.lasts and self.means is self.lasts and self.maxs is self.lasts


@dataclass(frozen=True, slots=True)
class Block:
    """Steps, ascending, and columns by the numbers of their fields."""

    step: int
    times: Sequence[int]
    columns: Mapping[int, Column]


class _Packed(msgspec.Struct, frozen=True, array_like=True):
    times: list[int]
    columns: dict[int, msgspec.Raw]


class _Lean(msgspec.Struct, frozen=True, array_like=True):
    """A column: one value stands for as many; no mins, means or maxs: they are the lasts."""

    counts: int | list[int]
    mins: bool | float | list[bool | float | None] | None
    means: bool | float | list[bool | float | None] | None
    maxs: bool | float | list[bool | float | None] | None
    lasts: bool | float | list[bool | float | None] | None


_packed = msgspec.msgpack.Decoder(_Packed)
_lean = msgspec.msgpack.Decoder(_Lean)
_encode = msgspec.msgpack.Encoder().encode


class BlockUnreadable(ValueError):
    """Bytes that are no block."""


def start_of(step: int, moment: float) -> int:
    """When the block begins that holds a moment (wall seconds)."""
    span = SPANS[step]
    return int(moment // span) * span


def of_rows(step: int, numbers: Sequence[int], rows: Sequence[tuple[int, Row]]) -> Block:
    """A block of readings, each with the beginning of its step; ascending."""
    times = [time for time, _ in rows]
    plain = {}
    for number, values in zip(numbers, zip(*(row for _, row in rows), strict=True), strict=True):
        missing = values.count(None)
        if missing == len(values):
            continue
        counts = [1] * len(values) if not missing else [int(v is not None) for v in values]
        plain[number] = Column(counts, values, values, values, values)
    block = Block(step, times, plain)
    if len(set(times)) == len(times):
        return block
    return rolled((block,), step)


def rolled(blocks: Iterable[Block], step: int, numbers: Collection[int] | None = None) -> Block:
    """Blocks that follow one another, their steps gathered into those of another length.

    The length is a multiple of theirs; of the columns only `numbers` are taken, if told.
    """
    joined = _joined(tuple(blocks), numbers)
    slices, times, begin = [], [], 0
    for time, group in groupby(joined.times, key=lambda time: time // step * step):
        end = begin + sum(1 for _ in group)
        slices.append(slice(begin, end))
        times.append(time)
        begin = end
    gathered = ((number, _gathered(each, slices)) for number, each in joined.columns.items())
    return Block(step, times, dict(gathered))


def encoded(block: Block) -> bytes:
    """As it is kept."""
    body = _encode((block.times, {n: _thinned(each) for n, each in block.columns.items()}))
    return zlib.compress(body, 1) if block.step in _SQUEEZED_STEPS else body


def decoded(step: int, body: bytes, numbers: Collection[int] | None = None) -> Block:
    """A block of this step, or some columns of it. Raises BlockUnreadable."""
    try:
        plain = zlib.decompress(body) if step in _SQUEEZED_STEPS else body
        packed = _packed.decode(plain)
        columns = {
            number: _full(_lean.decode(raw), len(packed.times))
            for number, raw in packed.columns.items()
            if numbers is None or number in numbers
        }
    except (zlib.error, msgspec.MsgspecError, ValueError, TypeError) as error:
        raise BlockUnreadable(str(error)) from error
    return Block(step, packed.times, columns)


def readable(
    step: int, bodies: Iterable[bytes], numbers: Collection[int] | None = None
) -> Iterator[Block]:
    """The blocks that can be read; one that cannot is a gap."""
    for body in bodies:
        with suppress(BlockUnreadable):
            yield decoded(step, body, numbers)


def _joined(blocks: tuple[Block, ...], numbers: Collection[int] | None) -> Block:
    if len(blocks) == 1 and numbers is None:
        return blocks[0]
    present = {number for block in blocks for number in block.columns}
    columns = {}
    for number in sorted(present if numbers is None else present.intersection(numbers)):
        parts = [block.columns.get(number) or _absent(len(block.times)) for block in blocks]
        lasts = _chained(part.lasts for part in parts)
        is_plain = all(part.is_plain for part in parts)
        columns[number] = Column(
            _chained(part.counts for part in parts),
            lasts if is_plain else _chained(part.mins for part in parts),
            lasts if is_plain else _chained(part.means for part in parts),
            lasts if is_plain else _chained(part.maxs for part in parts),
            lasts,
        )
    times = _chained(block.times for block in blocks)
    return Block(blocks[0].step if blocks else FINE, times, columns)


def _chained(parts: Iterable[Sequence[T]]) -> list[T]:
    return list(chain.from_iterable(parts))


def _absent(length: int) -> Column:
    nothing = [None] * length
    return Column([0] * length, nothing, nothing, nothing, nothing)


def _gathered(column: Column, slices: Sequence[slice]) -> Column:
    """One step for each slice of steps."""
    lasts, counts = column.lasts, column.counts
    if column.is_plain and lasts.count(lasts[0]) == len(lasts):
        still = [lasts[0]] * len(slices)
        return Column([sum(counts[part]) for part in slices], still, still, still, still)
    one = _one_with_gaps if 0 in counts else _one
    steps = [one(column, part) for part in slices]
    return Column(*zip(*steps, strict=True))


def _one(column: Column, part: slice) -> tuple[int, Value, Value, Value, Value]:
    """Where each step has a reading."""
    lasts = _floats(column.lasts[part])
    if column.is_plain:
        least, most = min(lasts), max(lasts)
    else:
        least, most = min(_floats(column.mins[part])), max(_floats(column.maxs[part]))
    counts = column.counts[part]
    count = sum(counts)
    if least == most:
        return count, least, least, most, lasts[-1]
    if count == len(lasts):
        mean = sum(lasts) / count
    else:
        mean = sum(map(mul, counts, _floats(column.means[part]))) / count
    # Rounding must not put a mean beyond what it is the mean of.
    return count, least, min(max(mean, least), most), most, lasts[-1]


def _one_with_gaps(column: Column, part: slice) -> tuple[int, Value, Value, Value, Value]:
    counts = column.counts[part]
    if not any(counts):
        return 0, None, None, None, None
    lasts = list(compress(column.lasts[part], counts))
    if column.is_plain:
        there = Column([count for count in counts if count], lasts, lasts, lasts, lasts)
    else:
        mins, means, maxs = (
            list(compress(values[part], counts))
            for values in (column.mins, column.means, column.maxs)
        )
        there = Column([count for count in counts if count], mins, means, maxs, lasts)
    return _one(there, slice(None))


def _floats(values: Sequence[Value]) -> Sequence[float]:
    return values  # type: ignore[return-value]  # none of them is None where their count is not 0


def _thinned(column: Column) -> tuple[object, ...]:
    lasts = column.lasts
    rest = (column.mins, column.means, column.maxs)
    same = [None if each is lasts or each == lasts else _short(each) for each in rest]
    return (_short(column.counts), *same, _short(lasts))


def _short(values: Sequence[Value]) -> object:
    first = values[0]
    return first if values.count(first) == len(values) else values


def _full(lean: _Lean, length: int) -> Column:
    counts = lean.counts if isinstance(lean.counts, list) else [lean.counts] * length
    lasts = _long(lean.lasts, length)
    mins, means, maxs = (
        lasts if each is None else _long(each, length)
        for each in (lean.mins, lean.means, lean.maxs)
    )
    if any(len(each) != length for each in (counts, mins, means, maxs, lasts)):
        raise ValueError("a column of another length")
    return Column(counts, mins, means, maxs, lasts)


def _long(short: Value | list[Value], length: int) -> list[Value]:
    return short if isinstance(short, list) else [short] * length


def uncovered(written: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """(step, start) of the blocks that tell something that no later one tells; as they come.

    They come in the order they were written: a coarser block is made of all that is within it by
    then, and knows nothing of what came after, as it does where a clock was wrong for a while.
    """
    order = {block: at for at, block in enumerate(written)}
    for (step, start), at in order.items():
        wider = ((each, start_of(each, start)) for each in SPANS if each > step)
        if all(order.get(each, -1) < at for each in wider):
            yield step, start


def laid(written: Iterable[Block]) -> list[Block]:
    """Blocks in the order they were written, as ones that follow one another in time.

    From its first to its last step each tells alone, whatever older ones tell of that.
    """
    told: list[Block] = []
    for new in written:
        if not new.times:
            continue
        begin, end = new.times[0], new.times[-1] + new.step
        first = bisect_left(told, begin, key=lambda block: block.times[-1])
        beyond = bisect_left(told, end, lo=first, key=lambda block: block.times[0])
        before = [within(old, -math.inf, begin) for old in told[first:beyond][:1]]
        after = [within(old, end, math.inf) for old in told[first:beyond][-1:]]
        told[first:beyond] = [part for part in (*before, new, *after) if part.times]
    return told


def within(block: Block, begin: float, end: float) -> Block:
    """The steps of a block that begin in [begin, end)."""
    part = slice(bisect_left(block.times, begin), bisect_left(block.times, end))
    times = block.times[part]
    if len(times) == len(block.times):
        return block
    columns = {
        number: Column(
            each.counts[part], each.mins[part], each.means[part], each.maxs[part], each.lasts[part]
        )
        for number, each in block.columns.items()
    }
    return Block(block.step, times, columns if times else {})
