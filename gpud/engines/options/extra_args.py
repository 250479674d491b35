"""Pure: flags that the configuration may add to an engine's command line, each of them reviewed.

A flag is on the list when all of this holds: it opens no file, address or program; it takes no
memory beside what the promise was made for; no typed option and none of gpud's own flags says the
same; and it leaves the output readable from which gpud learns of buffers and progress. So there
is no --lora, --rpc, --override-tensor, --n-cpu-moe, --swa-full, --slots-save-path, --log-file,
--trust-remote-code. Values have a form of their own, so that no value can be taken for a flag.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from gpud.engines.engine import EngineProgram
from gpud.errors import OptionInvalid
from gpud.models.model import EngineKind

MOST_WORDS: Final = 64
_WHOLE: Final = r"-?[0-9]{1,9}"
_COUNT: Final = r"[0-9]{1,9}"
_DECIMAL: Final = r"-?[0-9]{1,9}(\.[0-9]{1,9})?"
_SWITCH: Final = None
# A name of something built in; never a path, a template's text or JSON.
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"

# Flag → the form of its value; None: it has none.
_LLAMA_CPP: Final[Mapping[str, str | None]] = {
    # How positions are stretched: a longer context than a model was trained for.
    "--rope-scaling": "none|linear|yarn",
    "--rope-scale": _DECIMAL,
    "--rope-freq-base": _DECIMAL,
    "--rope-freq-scale": _DECIMAL,
    "--yarn-orig-ctx": _COUNT,
    "--yarn-ext-factor": _DECIMAL,
    "--yarn-attn-factor": _DECIMAL,
    "--yarn-beta-slow": _DECIMAL,
    "--yarn-beta-fast": _DECIMAL,
    # Where and how eagerly its threads run. Without the priorities that starve the host (2, 3).
    "--numa": "distribute|isolate|numactl",
    "--prio": "-1|0|1",
    "--prio-batch": "0|1",
    "--poll": "[0-9]{1,2}|100",
    "--poll-batch": "0|1",
    "--cpu-strict": "0|1",
    "--cpu-strict-batch": "0|1",
    "--threads-http": _COUNT,
    # What a request that does not say it gets.
    "--seed": _WHOLE,
    "--temp": _DECIMAL,
    "--top-k": _COUNT,
    "--top-p": _DECIMAL,
    "--min-p": _DECIMAL,
    "--repeat-last-n": _WHOLE,
    "--repeat-penalty": _DECIMAL,
    "--presence-penalty": _DECIMAL,
    "--frequency-penalty": _DECIMAL,
    "--predict": _WHOLE,
    "--n-predict": _WHOLE,
    "--keep": _WHOLE,
    "--context-shift": _SWITCH,
    "--no-context-shift": _SWITCH,
    # How its answers are written. A template by name only: its text would be a program.
    "--jinja": _SWITCH,
    "--no-jinja": _SWITCH,
    "--chat-template": _NAME,
    "--reasoning-format": "none|auto|deepseek|deepseek-legacy",
    "--reasoning-budget": _WHOLE,
    "--special": _SWITCH,
    "--spm-infill": _SWITCH,
    "--embd-normalize": _WHOLE,
    # Slots, and what they keep within the cache that they have.
    "--slot-prompt-similarity": _DECIMAL,
    "--cache-prompt": _SWITCH,
    "--no-cache-prompt": _SWITCH,
    "--no-slots": _SWITCH,
    "--timeout": _COUNT,
    "--sse-ping-interval": _WHOLE,
    "--check-tensors": _SWITCH,
    "--warmup": _SWITCH,
    "--no-warmup": _SWITCH,
}
_VLLM: Final[Mapping[str, str | None]] = {
    "--seed": _COUNT,
    "--block-size": "8|16|32|64|128",
    "--enable-prefix-caching": _SWITCH,
    "--no-enable-prefix-caching": _SWITCH,
    "--enable-chunked-prefill": _SWITCH,
    "--no-enable-chunked-prefill": _SWITCH,
    "--scheduling-policy": "fcfs|priority",
    "--max-logprobs": _COUNT,
    # Parsers that it brings along, by name; a plugin's file would be a program.
    "--enable-auto-tool-choice": _SWITCH,
    "--tool-call-parser": _NAME,
    "--reasoning-parser": _NAME,
    "--generation-config": "auto|vllm",
    "--tokenizer-mode": "auto|slow|mistral",
    "--uvicorn-log-level": "debug|info|warning|error|critical",
}
REVIEWED: Final[Mapping[EngineKind, Mapping[str, str | None]]] = {
    EngineKind.LLAMA_CPP: _LLAMA_CPP,
    EngineKind.VLLM: _VLLM,
    EngineKind.COMMAND: {},
}


def check_extra_args(kind: EngineKind, words: Sequence[str]) -> tuple[str, ...]:
    """The words as they are, when all of them are reviewed. Raises OptionInvalid."""
    if len(words) > MOST_WORDS:
        raise _refused(f"{len(words)} words, at most {MOST_WORDS}")
    seen: set[str] = set()
    for flag, value in _pairs(kind, words):
        form = REVIEWED[kind][flag]
        if flag in seen:
            raise _refused(f"{flag} stands there twice")
        seen.add(flag)
        if form is not None and (value is None or not re.fullmatch(form, value, re.ASCII)):
            shown = "nothing" if value is None else repr(value[:64])
            raise _refused(f"{flag} is followed by {shown}, which is not of the form {form}")
    return tuple(words)


def check_build(program: EngineProgram, words: Sequence[str]) -> tuple[str, ...]:
    """The checked words, when this build knows each flag of them. Raises OptionInvalid."""
    for flag, _ in _pairs(program.kind, words):
        if flag not in program.flags:
            raise _refused(
                f"{program.path} ({program.version}) does not know {flag}: take it out of the "
                "model's extra_args, or install a build that has it"
            )
    return tuple(words)


def _pairs(kind: EngineKind, words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Each flag with its value; None where it has none, or where that is missing."""
    reviewed, rest = REVIEWED[kind], list(words)
    while rest:
        flag = rest.pop(0)
        if flag not in reviewed:
            raise _refused(_unreviewed(kind, flag))
        yield flag, rest.pop(0) if reviewed[flag] is not None and rest else None


def _unreviewed(kind: EngineKind, flag: str) -> str:
    reviewed = REVIEWED[kind]
    if not reviewed:
        return f"{kind.value} takes none: write them into argv"
    near = difflib.get_close_matches(flag[:64], reviewed, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(reviewed))}"
    return f"{flag[:64]!r} is not one of the reviewed flags of {kind.value}; {hint}"


def _refused(problem: str) -> OptionInvalid:
    return OptionInvalid(field="extra_args", problem=problem)
