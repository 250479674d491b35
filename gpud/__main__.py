"""`gpud run | config check|show|schema | version`."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import functools
import json
import logging
import os
import resource
import sys
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any, TextIO, cast

# Before grpc is imported: its fork handlers killed children of ours before their exec.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
# Else each failed handshake is a line of the log, and anybody may fail as often as he likes.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import click
import msgspec
import structlog

from gpud import __version__, config
from gpud.errors import ConfigInvalid, StateDirectoryRefused
from gpud.listening import known_names, warnings
from gpud.settings import Config, Logging
from gpud.tls_command import tls_group
from gpud.token_command import token_group

log = structlog.get_logger()

DEFAULT_FILE = Path("/etc/gpud/gpud.toml")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """The daemon that promises GPU memory and runs models inside the promises."""


def _with_config(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--config",
        "path",
        type=click.Path(path_type=Path),
        help=f"TOML file; its conf.d/ is read as well. [default: {DEFAULT_FILE}, if it is there]",
    )(command)


@main.command()
@_with_config
def run(path: Path | None) -> None:
    """Serve until SIGTERM or SIGINT. Running engines are left running."""
    try:
        _run(_loaded(path), functools.partial(_read, path))
    except (ConfigInvalid, StateDirectoryRefused) as error:
        _refuse(error)


@main.group(name="config")
def config_group() -> None:
    """Look at the configuration without starting anything."""


@config_group.command()
@_with_config
def check(path: Path | None) -> None:
    """Say whether the configuration can be used."""
    settings = _loaded(path)
    told = warnings(settings, _main_socket(settings))
    try:
        told += _check_files(settings)
    except ConfigInvalid as error:
        _refuse(error)
    for warning in told:
        print(f"gpud: warning: {warning}", file=sys.stderr)
    print("the configuration is valid")


@config_group.command()
@_with_config
def show(path: Path | None) -> None:
    """Print the configuration in force, defaults included, as JSON."""
    text = msgspec.json.encode(_loaded(path), enc_hook=_plain)
    print(json.dumps(json.loads(text), indent=2))


@config_group.command()
def schema() -> None:
    """Print the JSON schema of the file, for editors."""
    print(json.dumps(config.schema(), indent=2))


main.add_command(tls_group)
main.add_command(token_group)


@main.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def _loaded(path: Path | None) -> Config:
    try:
        return _read(path)
    except ConfigInvalid as error:
        _refuse(error)
        raise


def _read(path: Path | None) -> Config:
    """As it is now, checked whole. Raises ConfigInvalid."""
    if path is None and DEFAULT_FILE.exists():
        path = DEFAULT_FILE
    settings = config.load(path, os.environ)
    _check_cards(settings)
    _check_models(settings)
    return settings


def _check_cards(settings: Config) -> None:
    """Refuse cards that no data exists for. Apart from config, which knows no devices."""
    from gpud.devices.simulated import load_cards

    known = load_cards() if settings.devices.simulated else {}
    for cards in settings.devices.simulated:
        if cards.card not in known:
            near = difflib.get_close_matches(cards.card, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"
            raise ConfigInvalid(
                f"cannot use the configuration: devices.simulated.card: {cards.card!r} is no "
                f"known card; {hint}"
            )


def _check_models(settings: Config) -> None:
    """Refuse profiles, flags and commands that cannot be. Apart from config, which knows none."""
    if settings.models.entries:
        from gpud.assembly import models

        models(settings)
    if settings.alerts.rules:
        from gpud.telemetry.alerts.rules.configured import rules_of

        rules_of(settings.alerts)


def _check_files(settings: Config) -> list[str]:
    """Refuse certificates that could not be served, a list of the denied or a program no good.

    What in it may not be what was meant is returned. Not part of each reading of the
    configuration: only gpud's user may read the key.
    """
    if settings.tls.certificate:
        from gpud.access.certificates import read_pair
        from gpud.clock import SystemClock

        read_pair(settings.tls, SystemClock().now().wall)
    for name, entry in settings.models.entries.items():
        if entry.argv:
            _check_program(f"models.{name}.argv", entry.argv[0])
    for name, sink in settings.alerts.sinks.items():
        if sink.command:
            _check_program(f"alerts.sinks.{name}.command", sink.command[0])
    if settings.access.denied:
        from gpud.access.denied import doubt
        from gpud.access.reloading import read_denied

        path = settings.access.denied
        doubtful = doubt(read_denied(path), known_names(settings))
        return [f"access.denied {path}: {doubtful}"] if doubtful else []
    return []


def _main_socket(settings: Config) -> str:
    return settings.server.socket or config.default_socket()


def _check_program(key: str, path: str) -> None:
    """Refuse a command that could not be started. Only the host it is for has its program."""
    from gpud.engines.command.program import ProgramRefused, check_program

    try:
        check_program(path)
    except ProgramRefused as error:
        raise ConfigInvalid(f"cannot use the configuration: {key}: {error}") from error


def _plain(value: object) -> object:
    """A Size or a Span as the number that it is."""
    return int(value) if isinstance(value, int) else float(value)  # type: ignore[arg-type]


def _refuse(error: Exception) -> None:
    print(f"gpud: {error}", file=sys.stderr)
    sys.exit(2)


def _run(settings: Config, reread: Callable[[], Config]) -> None:
    # Imported late: `gpud version` and `gpud config` need none of it.
    from gpud.clock import SystemClock
    from gpud.daemon import Daemon
    from gpud.rpc.server import check_addresses
    from gpud.state_directory import state_directory

    _set_up_logs(settings.logging)
    for warning in warnings(settings, _main_socket(settings)):
        log.warning("config.doubtful", reason=warning)
    _take_descriptors()

    async def serve(directory: Path) -> None:
        # Where an address is taken, nothing has begun: no store, no sampler.
        socket = Path(_main_socket(settings))
        check_addresses(socket, (settings.server.listen, settings.http.listen))
        await Daemon(settings, directory, SystemClock(), reread).run()

    with (
        state_directory(Path(settings.node.state_dir)) as directory,
        asyncio.Runner(loop_factory=_loop_factory()) as runner,
    ):
        try:
            runner.run(serve(directory))
        except* (ConfigInvalid, StateDirectoryRefused) as group:
            raise group.exceptions[0] from None


def _take_descriptors() -> None:
    """As many open files as the system allows us: each connection and each stream is one.

    A login's soft limit, 1024, would be full of idle connections before the sockets of an admin.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The faster loop where it is installed (the `fast` extra)."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


class _Stderr:
    """Standard error; lines that a full disk does not take are lost, and nothing else."""

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()


def _as_json(_: object, __: str, event: MutableMapping[str, Any]) -> str:
    """Every decision is a line, and the standard library's encoder takes ten times as long."""
    return msgspec.json.encode(event, enc_hook=repr).decode()


def _set_up_logs(settings: Logging) -> None:
    """JSON lines on stderr in service, readable ones on a terminal."""
    readable = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    level = getattr(logging, settings.level.upper())
    last: list[Any] = (
        # Not the one that shows the values of local variables: a key may be among them.
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if readable
        else [structlog.processors.format_exc_info, _as_json]
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _Stderr())),
        cache_logger_on_first_use=True,
    )


if __name__ == "__main__":
    main()
