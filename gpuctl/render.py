"""Results on stdout, in the form that was asked for."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from gpuctl.messages import to_plain
from gpuctl.tables import Column, Row, Table

if TYPE_CHECKING:
    from google.protobuf.message import Message

FORMATS = ("table", "wide", "json", "jsonl", "yaml", "name")
TERMINAL_WIDTH = 80

Noun = TypeVar("Noun", bound="Message")


def terminal_width(stream: TextIO) -> int:
    """Columns of the terminal that this very stream is; 80 where it is none, or does not tell."""
    try:
        if not is_terminal(stream):
            return TERMINAL_WIDTH
        told = os.environ.get("COLUMNS", "")
        columns = int(told) if told.isdecimal() else 0
        return columns or os.get_terminal_size(stream.fileno()).columns or TERMINAL_WIDTH
    except (OSError, ValueError):
        return TERMINAL_WIDTH


def terminal_height(stream: TextIO) -> int | None:
    """Lines of the terminal that this very stream is; None where it is none, or does not tell."""
    try:
        return os.get_terminal_size(stream.fileno()).lines or None if stream.isatty() else None
    except (OSError, ValueError):
        return None


# For a stream that takes ASCII alone: as wide as what it stands for, so that columns stay columns.
_ALIKE = {"…": "~", "°": " ", "×": "x", "→": ">", "−": "-", "–": "-", "µ": "u"}


def in_ascii(error: UnicodeError) -> tuple[str, int]:
    """An error handler for encodings: the like of what cannot be written, or `?`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(_ALIKE.get(each, "?") for each in lost), error.end


IN_ASCII = "gpuctl.in_ascii"  # its name
codecs.register_error(IN_ASCII, in_ascii)


def knows_unicode(stream: TextIO) -> bool:
    """Whether it takes more than ASCII: blocks, lines."""
    return (stream.encoding or "").lower().replace("-", "").startswith("utf")


def is_terminal(stream: TextIO) -> bool:
    """Whether somebody looks at what is written there."""
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


class Output:
    """Writes what a command found. Single nouns bare, lists wrapped, streams a message a line."""

    def __init__(self, form: str, *, color: bool) -> None:
        self.form = form
        self.color = color

    @property
    def is_table(self) -> bool:
        """Whether people read it."""
        return self.form in {"table", "wide"}

    @property
    def room(self) -> int | None:
        """How wide a table may be; None: as wide as it gets, with -o wide and where no eye reads.

        Nobody can widen a pipe or a file, and what was cut for one would be lost.
        """
        if self.form == "wide" or not is_terminal(sys.stdout):
            return None
        return terminal_width(sys.stdout)

    def one(
        self, noun: Noun, columns: Sequence[Column[Noun]], *, width: int | None = None
    ) -> None:
        """A single noun: a row, its name, or the bare message."""
        if self.is_table:
            self.lines(self.table(columns, width=width).lines([noun]))
        elif self.form == "name":
            self.lines([_name(noun)])
        else:
            self.document(to_plain(noun))

    def many(
        self,
        field: str,
        nouns: Sequence[Noun],
        columns: Sequence[Column[Noun]],
        *,
        width: int | None = None,
    ) -> None:
        """A list, under the name of its field."""
        if self.is_table:
            if nouns:
                self.lines(self.table(columns, width=width).lines(nouns))
            else:
                print(f"no {field}", file=sys.stderr)
        elif self.form == "name":
            self.lines(map(_name, nouns))
        elif self.form == "jsonl":
            for noun in nouns:
                self.document(to_plain(noun))
        else:
            self.document({field: [to_plain(noun) for noun in nouns]})

    def streamed(self, message: Message) -> None:
        """One message of a stream, at once; never for tables."""
        if self.form == "yaml":
            print("---")
            self.document(to_plain(message))
        else:
            self.lines([_json(to_plain(message), indent=None)])

    def document(self, plain: dict[str, Any]) -> None:
        """Plain values as JSON or YAML."""
        if self.form == "yaml":
            import yaml

            print(yaml.safe_dump(plain, sort_keys=False, allow_unicode=False), end="")
        else:
            print(_json(plain, indent=None if self.form == "jsonl" else 2))
        sys.stdout.flush()

    def table(self, columns: Sequence[Column[Row]], *, width: int | None = None) -> Table[Row]:
        """An empty table as the form and the terminal want it."""
        return Table(columns, wide=self.form == "wide", width=width, color=self.color)

    def lines(self, lines: Iterable[str]) -> None:
        """Lines that are ready, each visible at once."""
        for line in lines:
            print(line)
        sys.stdout.flush()


def _name(noun: Message) -> str:
    return str(getattr(noun, "name"))  # noqa: B009 (nouns have one; the base class does not)


def _json(plain: dict[str, Any], *, indent: int | None) -> str:
    import json

    # ASCII alone: what a terminal would obey stays an escape.
    return json.dumps(plain, indent=indent, ensure_ascii=True, allow_nan=False)
