"""What commands are declared with: the global options, sizes and spans, the options of a load."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gpuctl.failures import usage
from gpuctl.messages import enum_prefix, timestamp
from gpuctl.render import FORMATS
from gpuctl.session import Session
from gpuctl.units import parse_size, parse_span
from gpud.v1.models_pb2 import ModelOptions

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

Handler = TypeVar("Handler", bound=Callable[..., Any])


def size(text: str) -> int:
    """Bytes of 8GiB; a usage error says what would be accepted."""
    with _as_usage():
        return parse_size(text)


def span(text: str) -> float:
    """Seconds of 30s; a usage error says what would be accepted."""
    with _as_usage():
        return parse_span(text)


def moment(option: str, text: str, now: float) -> Timestamp:
    """The moment of a span before `now`, of an RFC 3339 time, or of a local time or day.

    Raises Failure: it is none of them.
    """
    for read in (lambda text: timestamp(now - parse_span(text)), _rfc_3339, _local):
        # Too far away: OverflowError.
        with suppress(ValueError, OverflowError):
            return read(text)
    raise usage(
        f"{option} {text!r} is neither a span nor a moment; write 10m, 2026-11-20T21:00 or "
        "2026-11-20 in your own time zone, or 2026-11-20T21:00:00Z"
    )


def _rfc_3339(text: str) -> Timestamp:
    """To the nanosecond. Raises ValueError."""
    from google.protobuf.timestamp_pb2 import Timestamp

    told = Timestamp()
    told.FromJsonString(text)
    return told


def _local(text: str) -> Timestamp:
    """Of a moment as tables show it, in the reader's own time zone. Raises ValueError."""
    from datetime import datetime

    return timestamp(datetime.fromisoformat(text).timestamp())


def label(text: str) -> tuple[str, str]:
    """Key and value of team=search; a usage error if there is no key."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise click.BadParameter(f"{text!r} is not a label; write for example team=search")
    return key, value


def shares(text: str) -> tuple[float, ...]:
    """Numbers of 3,1; a usage error says what would be accepted."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} names no shares; write for example 3,1") from error


@contextmanager
def _as_usage() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _whole(least: int, most: int) -> Callable[[str], int]:
    """A whole number that the wire can carry.

    Which of them make sense is for gpud to say, so --help tells no range, as it would of a
    click.IntRange.
    """

    def number(text: str) -> int:
        with _as_usage():
            value = int(text)
        if not least <= value <= most:
            raise click.BadParameter(f"{value} is not within {least} … {most}")
        return value

    return number


INT32 = _whole(-(2**31), 2**31 - 1)
WHOLE = _whole(0, 2**31 - 1)
COUNT = _whole(1, 2**31 - 1)
GENERATION = _whole(1, 2**63 - 1)


def _take(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value is not None and value is not False and param.name is not None:
        ctx.ensure_object(Session).set(**{param.name: value})


_GLOBAL_OPTIONS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("--address",), {"metavar": "ADDRESS", "help": "unix:///path, /path or host:port."}),
    (("--context",), {"metavar": "NAME", "help": "A gpud of `gpuctl context list`."}),
    (
        ("-o", "--output"),
        {"type": click.Choice(FORMATS), "help": "Form of the result (default: table)."},
    ),
    (("--timeout",), {"type": span, "help": "Longest wait for an answer (default: 10s)."}),
    (("-v", "--verbose"), {"is_flag": True, "help": "Tell the details of an error."}),
    (("--no-color",), {"is_flag": True, "help": "No colour, as with NO_COLOR set."}),
)


def global_options() -> list[click.Parameter]:
    """The options that every command takes, before its name and after it."""
    return [
        click.Option(names, default=None, expose_value=False, callback=_take, **attributes)
        for names, attributes in _GLOBAL_OPTIONS
    ]


def _all_nodes() -> click.Option:
    return click.Option(
        ("--all-nodes",),
        is_flag=True,
        default=None,
        expose_value=False,
        callback=_take,
        help="Of every context at once.",
    )


# What llama-server and vLLM call it, where that is too far from our name to be guessed, or nearer
# to another's: --ctx resembles --context, which names a gpud.
_ENGINES_WORDS = {
    "ctx": "--context-length",
    "ctx-size": "--context-length",
    "max-model-len": "--context-length",
    "n-gpu-layers": "--gpu-layers",
    "batch-size": "--batch",
    "ubatch-size": "--ubatch",
    "flash-attn": "--flash-attention",
}


class Command(click.Command):
    """A command that takes the global options too, unless it has one of that name for itself.

    `named`: its results have names for -o name. `fans_out`: it can ask all nodes at once.
    """

    def __init__(
        self, *args: Any, named: bool = True, fans_out: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._named = named
        taken = {parameter.name for parameter in self.params}
        self.params += [option for option in global_options() if option.name not in taken]
        if fans_out:
            self.params.append(_all_nodes())

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does it; an engine's word for an option of ours gets ours as advice."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            ours = _ENGINES_WORDS.get(error.option_name.lstrip("-"))
            if ours is None or not any(ours in parameter.opts for parameter in self.params):
                raise
            said = f"No such option {error.option_name!r}. Did you mean {ours!r}?"
            raise click.UsageError(said, ctx) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run it, unless its results cannot take the form that was asked for."""
        session = ctx.ensure_object(Session)
        if session.settings.output == "name" and not self._named:
            raise click.UsageError("there are no names in this; use -o table, json or jsonl", ctx)
        if not session.settings.all_nodes:
            return super().invoke(ctx)
        from gpuctl.fleet import on_all_nodes

        return on_all_nodes(session, ctx, super().invoke)


def command(
    *, named: bool = True, fans_out: bool = False, cls: type[Command] = Command
) -> Callable[[Callable[..., None]], Command]:
    """Declare a command of gpuctl; its function is handed the Session first."""

    def declare(function: Callable[..., None]) -> Command:
        @click.pass_obj
        @functools.wraps(function)
        def with_session(session: Session, /, *args: Any, **kwargs: Any) -> None:
            function(session, *args, **kwargs)

        return click.command(cls=cls, named=named, fans_out=fans_out)(with_session)

    return declare


def qualified(collection: str, name: str) -> str:
    """`reservations/r-1` of `r-1` or of itself. Raises Failure for a name of something else."""
    if name.startswith(f"{collection}/"):
        return name
    if "/" in name or not name:
        raise usage(f"{name!r} does not name one of the {collection}; write {collection}/ID or ID")
    return f"{collection}/{name}"


def enum_choice(enum: Any, *left_out: str) -> click.Choice[str]:
    """The words of a proto enum, in lower case, as a choice; UNSPECIFIED never is one."""
    prefix = enum_prefix(enum.DESCRIPTOR)
    words = (name.removeprefix(prefix).lower() for name in enum.keys())  # noqa: SIM118 (no dict)
    return click.Choice([w for w in words if w not in {"unspecified", *left_out}])


def enum_number(enum: Any, choice: str | None) -> Any:
    """The number of a choice made from `enum_choice`; 0, UNSPECIFIED, if none was made."""
    return enum.Value(enum_prefix(enum.DESCRIPTOR) + choice.upper()) if choice else 0


_MODEL_OPTIONS = (
    click.option("--context-length", type=INT32, help="Tokens over all slots."),
    click.option("--parallel", type=INT32, help="Slots served at once."),
    click.option("--batch", type=INT32, help="Tokens of a logical batch."),
    click.option("--ubatch", type=INT32, help="Tokens computed at once."),
    click.option("--cache-type-k", metavar="TYPE", help="Of keys: f16, q8_0, q4_0, …"),
    click.option("--cache-type-v", metavar="TYPE", help="Of values: f16, q8_0, q4_0, …"),
    click.option("--flash-attention", type=click.Choice(["on", "off", "auto"])),
    click.option("--gpu-layers", type=INT32, help="Layers on the device (default: all)."),
    click.option("--threads", type=INT32, help="CPU threads of the engine."),
    click.option("--kv-unified/--no-kv-unified", default=None, help="One KV cache for all slots."),
    click.option("--embedding/--no-embedding", default=None, help="Serve embeddings."),
    click.option("--threads-batch", type=INT32, help="CPU threads for prompts."),
    click.option("--tensor-split", type=shares, metavar="A,B", help="Share of each device."),
    click.option("--split-mode", type=click.Choice(["none", "layer", "row"])),
    click.option("--mmap/--no-mmap", default=None, help="Read the weights through a mapping."),
    click.option("--mlock/--no-mlock", default=None, help="Keep the weights from swap."),
    click.option("--cache-reuse", type=INT32, help="Least tokens of a chunk that is reused."),
    click.option("--continuous-batching/--no-continuous-batching", default=None),
    click.option("--cache-ram-bytes", type=size, metavar="SIZE", help="RAM for cached prompts."),
    click.option("--pooling", type=click.Choice(["none", "mean", "cls", "last", "rank"])),
    click.option("--sleep-idle-seconds", type=INT32, help="Let weights go when idle so long."),
    click.option("--dtype", metavar="TYPE", help="vLLM: auto, half, bfloat16, float32, …"),
    click.option("--quantization", metavar="METHOD", help="vLLM: awq, gptq, fp8, …"),
    click.option("--kv-cache-dtype", metavar="TYPE", help="vLLM: auto, fp8, …"),
    click.option("--max-num-seqs", type=INT32, help="vLLM: sequences served at once."),
    click.option("--max-num-batched-tokens", type=INT32, help="vLLM: tokens of one step."),
    click.option("--tensor-parallel-size", type=INT32, help="vLLM: devices for one model."),
    click.option("--enforce-eager/--no-enforce-eager", default=None, help="vLLM: no graphs."),
    click.option("--kv-cache-bytes", type=size, metavar="SIZE", help="vLLM: of the KV cache."),
    click.option("--sleep-mode/--no-sleep-mode", default=None, help="vLLM: as its entry allows."),
)


def model_options(function: Handler) -> Handler:
    """The options of a load; they arrive as keyword arguments named as in ModelOptions."""
    for option in reversed(_MODEL_OPTIONS):
        function = option(function)
    return function


def options_message(options: dict[str, Any]) -> ModelOptions:
    """The options that were given; what was not stays absent, so that the catalogue decides."""
    return ModelOptions(**{name: value for name, value in options.items() if value is not None})
