"""`gpuctl`: which command lives where, and how each ends."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from gpuctl.failures import EXIT_INTERRUPTED, EXIT_OTHER, EXIT_USAGE, Failure, usage
from gpuctl.render import IN_ASCII, terminal_width
from gpuctl.session import Session
from gpuctl.tables import clean, clean_line

if TYPE_CHECKING:
    import click


def main() -> None:
    """The program."""
    code = run(sys.argv[1:])
    with suppress(OSError, AttributeError):  # nobody reads it, or it is closed
        sys.stderr.flush()
    # All is written and the connection is closed. What Python would still take apart, module by
    # module, is a tenth of the whole time of `gpuctl status`.
    os._exit(code)


def run(arguments: Sequence[str], now: Callable[[], float] = time.time) -> int:
    """Run one command line; its exit code. Never raises, never shows a traceback unasked."""
    session = Session(now, arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal that knows no "…" shows a "~", rather than ending the command.
            stream.reconfigure(errors=IN_ASCII)
    try:
        code = _dispatch(session, arguments)
        sys.stdout.flush()
    except Failure as failure:
        tell(failure, verbose=session.settings.verbose)
        return failure.exit_code
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return _reader_left()
    except Exception as error:  # noqa: BLE001 (the last resort: whatever it is, it is told)
        return _unexpected(error, verbose=session.settings.verbose)
    finally:
        session.close()
    return code


def _dispatch(session: Session, arguments: Sequence[str]) -> int:
    if any(not _is_text(argument) for argument in arguments):
        raise usage("an argument is not valid UTF-8")
    if list(arguments) == ["status"]:
        # The command that is typed most, and by scripts: it has no options to parse.
        from gpuctl.commands.status import print_status

        print_status(session)
        return 0
    return _parse_and_invoke(session, arguments)


def _parse_and_invoke(session: Session, arguments: Sequence[str]) -> int:
    import click

    from gpuctl.commands.tree import gpuctl

    if not arguments:
        arguments = ["--help"]

    if "_GPUCTL_COMPLETE" in os.environ:
        gpuctl.main(list(arguments), prog_name="gpuctl")
    try:
        with gpuctl.make_context("gpuctl", list(arguments), obj=session) as context:
            gpuctl.invoke(context)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        _tell_usage(error)
        return EXIT_USAGE
    except click.Abort:
        return EXIT_INTERRUPTED
    return 0


def tell(failure: Failure, *, verbose: bool) -> None:
    """What and why, what to do next, and with -v the facts, on stderr."""
    for line in _sentence(failure, verbose=verbose):
        print(line, file=sys.stderr)
    for note in (*failure.notes, *(failure.details if verbose else ())):
        print(f"  {clean_line(note)}", file=sys.stderr)


def _sentence(failure: Failure, *, verbose: bool) -> list[str]:
    sentence = f"gpuctl: {clean(failure.message)}"
    if verbose or not failure.facts:
        return [sentence]
    from gpuctl.refusal import refusal_lines

    return refusal_lines(sentence, failure.facts, terminal_width(sys.stderr))


def _tell_usage(error: click.ClickException) -> None:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "gpuctl"
    print(f"gpuctl: {clean(error.format_message())}", file=sys.stderr)
    print(f"  `{path} --help` shows what it takes", file=sys.stderr)


def _reader_left() -> int:
    # Whoever read our output has enough of it. The rest, flushed when Python ends, goes nowhere.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    return 0


def _unexpected(error: Exception, *, verbose: bool) -> int:
    if verbose:
        import traceback

        traceback.print_exception(error)
    hint = "" if verbose else "; -v shows where"
    print(f"gpuctl: {type(error).__name__}: {clean(str(error))}{hint}", file=sys.stderr)
    return EXIT_OTHER


def _is_text(argument: str) -> bool:
    # Bytes that are no UTF-8 arrive as lone surrogates, which no message can carry.
    return not any("\ud800" <= character <= "\udfff" for character in argument)
