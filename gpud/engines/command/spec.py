"""Pure: what a command of the configuration may say, and what becomes of it at a start.

There is no shell: each word is handed over as it is, once its placeholders are filled in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from gpud.engines.command.metrics import HISTOGRAMS, NUMBERS
from gpud.engines.engine import ENVIRONMENT_NAMES, StartRequest
from gpud.errors import OptionInvalid
from gpud.models.model import CommandSpec

PLACEHOLDERS: Final = ("PORT", "DEVICES", "MODEL", "DIRECTORY")
MOST_WORDS: Final = 256
MOST_BYTES: Final = 4096
MOST_NAMES: Final = 64
# What it can be asked for.
COUNTERS: Final = (*NUMBERS, *HISTOGRAMS)

_PLACEHOLDER: Final = re.compile(r"\$\{([^}]*)(\}?)")
_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_URL_PATH: Final = re.compile(r"/[!-~]{0,255}")
_METRIC: Final = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]{0,199}")
_PROGRAM: Final = re.compile(r"/[\w.+@=,~/ -]*")
_SECRET_FLAG: Final = re.compile(
    r"-{1,2}(?:.*[-_])?(?:key|token|secret|password|passwd|passphrase|credentials?)", re.IGNORECASE
)
# What has a loader, a shell or an interpreter run other code than the program's own, and what
# says whose the process is.
_REFUSED_PREFIXES: Final = ("LD_", "DYLD_", "GPUD_")
_REFUSED_NAMES: Final = frozenset(
    {"BASH_ENV", "CLASSPATH", "CUDA_INJECTION64_PATH", "CUDA_VISIBLE_DEVICES", "ENV"}
    | {"GCONV_PATH", "GLIBC_TUNABLES", "HOME", "IFS", "JAVA_TOOL_OPTIONS", "NODE_OPTIONS"}
    | {"NODE_PATH", "NVIDIA_VISIBLE_DEVICES", "PATH", "PERL5LIB", "PERL5OPT", "PYTHONHOME"}
    | {"PYTHONPATH", "PYTHONSTARTUP", "RUBYLIB", "RUBYOPT", "SHELLOPTS", "TMPDIR"}
)


def check_spec(spec: CommandSpec) -> None:
    """Raise OptionInvalid where it says what no command may; the field is the key's name."""
    _check_argv(spec.argv)
    _check_environment(spec.environment)
    if "PORT" not in _named((*spec.argv, *(value for _, value in spec.environment))):
        raise OptionInvalid(
            field="argv", problem="${PORT} stands nowhere: it could not be told where to listen"
        )
    _check_metrics(spec)
    if not _URL_PATH.fullmatch(spec.health):
        raise OptionInvalid(
            field="health", problem=f'{spec.health!r} is no path; write for example "/health"'
        )
    if spec.device_bytes <= 0:
        raise OptionInvalid(
            field="device_bytes", problem="is not above 0; it is what a device must hold"
        )
    if spec.host_bytes < 0:
        raise OptionInvalid(field="host_bytes", problem="is below 0")


def _check_argv(argv: tuple[str, ...]) -> None:
    if not 1 <= len(argv) <= MOST_WORDS:
        raise OptionInvalid(field="argv", problem=f"{len(argv)} words are not 1 to {MOST_WORDS}")
    if not _PROGRAM.fullmatch(argv[0]) or "/../" in f"{argv[0]}/":
        raise OptionInvalid(
            field="argv",
            problem=f"{argv[0][:80]!r} is no program's whole path; begin it with a slash",
        )
    for word in argv[1:]:
        _check_text("argv", word)


def _check_environment(environment: tuple[tuple[str, str], ...]) -> None:
    if len(environment) > MOST_NAMES:
        raise OptionInvalid(
            field="environment", problem=f"{len(environment)} names, at most {MOST_NAMES}"
        )
    for name, value in environment:
        if not may_be_set(name):
            raise OptionInvalid(
                field="environment",
                problem=f"{name[:80]!r} is not to be set: a name is of capital letters, digits "
                "and '_', and none that makes a loader or an interpreter run other code",
            )
        _check_text("environment", value)


def may_be_set(name: str) -> bool:
    """Whether a command's environment may hold the name beside what every engine is given."""
    if not _NAME.fullmatch(name) or name.startswith(_REFUSED_PREFIXES):
        return False
    return name not in _REFUSED_NAMES


def _check_text(field: str, text: str) -> None:
    if "\0" in text or len(text.encode(errors="replace")) > MOST_BYTES:
        problem = f"a text of it holds a NUL, or more than {MOST_BYTES} bytes"
        raise OptionInvalid(field=field, problem=problem)
    for match in _PLACEHOLDER.finditer(text):
        if match[1] not in PLACEHOLDERS or not match[2]:
            known = ", ".join(f"${{{name}}}" for name in PLACEHOLDERS)
            raise OptionInvalid(field=field, problem=f"{match[0][:80]!r} is none of {known}")


def _check_metrics(spec: CommandSpec) -> None:
    if bool(spec.metrics) != bool(spec.counters):
        field = "counters" if spec.metrics else "metrics"
        problem = "is missing: metrics is where, counters is which metric tells what"
        raise OptionInvalid(field=field, problem=problem)
    if spec.metrics and not _URL_PATH.fullmatch(spec.metrics):
        raise OptionInvalid(field="metrics", problem=f"{spec.metrics!r} is no path")
    for name, metric in spec.counters:
        if name not in COUNTERS or not _METRIC.fullmatch(metric):
            raise OptionInvalid(
                field="counters", problem=f"{name} = {metric[:80]!r} is no name of a metric"
            )


def _named(texts: Iterable[str]) -> set[str]:
    """The placeholders that stand in any of them."""
    return {match[1] for text in texts for match in _PLACEHOLDER.finditer(text)}


def arguments(spec: CommandSpec, request: StartRequest) -> tuple[str, ...]:
    """The argv of a checked spec, filled in."""
    values = _values(request)
    return (spec.argv[0], *(_filled(word, values) for word in spec.argv[1:]))


def own_environment(spec: CommandSpec, request: StartRequest) -> dict[str, str]:
    """What the configuration adds to the environment, filled in."""
    values = _values(request)
    return {name: _filled(value, values) for name, value in spec.environment}


def own_names(spec: CommandSpec) -> frozenset[str]:
    """The names that it adds to those that every engine may be given."""
    return frozenset(name for name, _ in spec.environment) - ENVIRONMENT_NAMES


def shown_argv(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Its words as they may be shown, without what stands behind a flag for a secret."""
    shown, hides = [], False
    for word in argv:
        flag, equals, _ = word.partition("=")
        is_secret = bool(_SECRET_FLAG.fullmatch(flag))
        shown.append("…" if hides else f"{flag}=…" if is_secret and equals else word)
        hides = is_secret and not equals and not hides
    return tuple(shown)


def _values(request: StartRequest) -> Mapping[str, str]:
    return {
        "PORT": str(request.port),
        "DEVICES": ",".join(request.visible_devices),
        "MODEL": str(request.model_path),
        "DIRECTORY": str(request.directory),
    }


def _filled(text: str, values: Mapping[str, str]) -> str:
    """In one pass, so that what is filled in is not looked through again."""
    return _PLACEHOLDER.sub(lambda match: values[match[1]], text)
