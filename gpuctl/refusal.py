"""Pure: a refusal that many devices share, a line for each kind of reason.

gpud tells it as one sentence with every device in it, which is right for a log, and tells the
same as facts beside it: `gpu0.grantable_bytes` and its like. People get the facts, under the first
words of the sentence and above its advice.
"""

from __future__ import annotations

import re
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gpuctl.tables import clean
from gpuctl.units import size_text

_INDENT = "  "
_GAP = "  "
# What holds a device's bytes, in the order in which gpud charges for it: the fact and its word.
_HOLDERS = (
    ("reserve_bytes", "reserve"),
    ("granted_bytes", "granted"),
    ("overuse_bytes", "over-use"),
    ("foreign_bytes", "foreign"),
    ("unattributed_bytes", "unattributed"),
    ("leaked_bytes", "leaked"),
)
# Facts that an older gpud does not send.
_NEWER = {"overuse_bytes": "0"}
# A number keeps its unit: textwrap breaks at no other spaces than ASCII's.
_BEFORE_UNIT = re.compile(r"(?<=[0-9]) (?=(?:[KMGT]i)?B\b)")
_NO_BREAK = "\u00a0"
_UNTOLD = re.compile(r"and [0-9]+ more")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Device:
    """One device that was refused: the name people know, and why."""

    alias: str
    why: str


def refusal_lines(sentence: str, facts: Mapping[str, str], width: int) -> list[str]:
    """The lines that tell a refusal within `width` columns.

    It stays the sentence if that fits and tells all, speaks of no device, or of one whose facts
    did not all travel.
    """
    devices = _devices(facts)
    named = [at for device in devices if (at := sentence.find(f"{device.alias}: ")) >= 0]
    is_whole = all(device.why in sentence for device in devices)
    if not named or (is_whole and len(sentence) <= width):
        return [clean(sentence)]
    head, told = sentence[: min(named)].rstrip(" :"), sentence[min(named) :].split("; ")
    kept = [part for part in told if not any(_tells(part, device) for device in devices)]
    lines = _wrapped(f"{head}:", width)
    groups = _groups(devices)
    column = max(len(names) for names, _ in groups)
    for names, why in groups:
        hanging = " " * (len(_INDENT) + column + len(_GAP))
        lines += _wrapped(f"{_INDENT}{names:<{column}}{_GAP}{why}", width, hanging)
    untold = [part for part in kept if _UNTOLD.fullmatch(part)]
    advice = "; ".join(part for part in kept if part not in untold)
    for part in (*untold, advice):
        lines += _wrapped(f"{_INDENT}{part}", width, _INDENT) if part else []
    return lines


def _tells(part: str, device: _Device) -> bool:
    """Whether a part of the sentence is the device's, or the rest of a rule that has parts."""
    return part.startswith(f"{device.alias}: ") or part in device.why


def _devices(facts: Mapping[str, str]) -> list[_Device]:
    """Every device of the facts in the order of their names; none if a fact is missing."""
    by_alias: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for key, value in facts.items():
        alias, dot, name = key.rpartition(".")
        if dot:
            by_alias[alias][name] = value
    try:
        return [
            _Device(alias=alias, why=_why(by_alias[alias]))
            for alias in sorted(by_alias, key=_natural)
        ]
    except (KeyError, ValueError):
        return []  # too many facts for one status: gpud cut some


def _why(facts: Mapping[str, str]) -> str:
    """`5.44 GiB grantable of 5.94 GiB (reserve 512 MiB)`, after who is in the way, if somebody is.

    Or the rule that no bytes can change.
    """
    if facts.get("rule"):
        return facts["rule"]
    told = _NEWER | dict(facts)
    held = [(word, int(told[name])) for name, word in _HOLDERS]
    holders = ", ".join(f"{word} {size_text(count)}" for word, count in held if count)
    grantable, total = int(facts["grantable_bytes"]), int(facts["total_bytes"])
    numbers = f"{size_text(grantable)} grantable of {size_text(total)}"
    obstacle = f"{facts['obstacle']}; " if facts.get("obstacle") else ""
    return f"{obstacle}{numbers} ({holders or 'nothing held'})"


def _groups(devices: Sequence[_Device]) -> list[tuple[str, str]]:
    """Names and reason of the devices that are refused alike."""
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for device in devices:
        alike[clean(device.why)].append(clean(device.alias))
    return [(", ".join(_ranges(aliases)), why) for why, aliases in alike.items()]


def _ranges(aliases: Sequence[str]) -> Iterator[str]:
    """`gpu0`, `gpu3–gpu7`: runs of numbered names by their ends. They come in natural order."""
    run: list[str] = []
    for alias in aliases:
        if run and _follows(run[-1], alias):
            run.append(alias)
            continue
        yield from _ends(run)
        run = [alias]
    yield from _ends(run)


def _ends(run: Sequence[str]) -> Sequence[str]:
    return run if len(run) < 3 else [f"{run[0]}–{run[-1]}"]


def _follows(before: str, alias: str) -> bool:
    *prefix, number = _natural(before)
    *same, next_number = _natural(alias)
    return prefix == same and next_number[1] == number[1] + 1


def _natural(name: str) -> list[tuple[str, int]]:
    """gpu2 before gpu10."""
    parts = re.findall(r"([^0-9]*)([0-9]*)", name)
    return [(text, int(digits) if digits else -1) for text, digits in parts if text or digits]


def _wrapped(text: str, width: int, hanging: str = _INDENT) -> list[str]:
    lines = textwrap.wrap(
        _BEFORE_UNIT.sub(_NO_BREAK, clean(text)),
        width,
        subsequent_indent=hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_NO_BREAK, " ") for line in lines]
