"""Pure: whether the rest of a file may be put to what is here already, by what a server answers.

Only a true 206 continues it: of the same entity by the validator that both answers had (RFC 9110
§13.1.5), and with a Content-Range that begins where we end and ends where the file does. Whatever
else it is, the download begins anew.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")
_LENGTH = re.compile(r"\d{1,19}")
# The server is busy, or somebody on the way is: asked later it may answer.
TRANSIENT: Final = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS,
        *(status for status in HTTPStatus if status >= HTTPStatus.INTERNAL_SERVER_ERROR),
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is here of a file, and what its server said of it then; empty: it did not."""

    url: str = ""  # as it may be told
    etag: str = ""
    last_modified: str = ""
    total_bytes: int | None = None

    @property
    def validator(self) -> str:
        """What If-Range may name: a strong ETag, else the date. Empty: it cannot go on."""
        return self.etag if self.etag.startswith('"') else self.last_modified


class Way(enum.Enum):
    """What an answer means."""

    APPEND = "append"  # its body is the rest
    WHOLE = "whole"  # its body is all of it
    AGAIN = "again"  # ask for the whole of it
    LATER = "later"  # the server cannot now
    NO = "no"  # it never will


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What to do with an answer; `total_bytes` is of the whole file, None where it is not told."""

    way: Way
    total_bytes: int | None = None
    problem: str = ""


def asking(kept: Kept | None, have_bytes: int) -> dict[str, str]:
    """The headers that ask for the rest; none of them where the whole has to be asked for."""
    if kept is None or not have_bytes or not kept.validator:
        return {}
    return {"Range": f"bytes={have_bytes}-", "If-Range": kept.validator}


def verdict(
    status: int, headers: Mapping[str, str], kept: Kept | None, have_bytes: int
) -> Verdict:
    """What an answer means. `headers` are by lower-case names; `kept` None: the whole was asked.

    Redirects are not for this.
    """
    if status in TRANSIENT:
        return Verdict(way=Way.LATER, problem=f"the server answers {_words(status)}")
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and kept is not None:
        return Verdict(way=Way.AGAIN)
    if headers.get("content-encoding", "identity") != "identity":
        return Verdict(way=Way.NO, problem="the server sends it packed, unasked")
    if status == HTTPStatus.OK:
        return _whole(headers)
    if status == HTTPStatus.PARTIAL_CONTENT and kept is not None:
        return _rest(headers, kept, have_bytes)
    return Verdict(way=Way.NO, problem=f"the server answers {_words(status)}")


def _whole(headers: Mapping[str, str]) -> Verdict:
    length = headers.get("content-length", "")
    if length and not _LENGTH.fullmatch(length):
        return Verdict(way=Way.NO, problem=f"the server tells a length of {length[:40]!r}")
    return Verdict(way=Way.WHOLE, total_bytes=int(length) if length else None)


def _rest(headers: Mapping[str, str], kept: Kept, have_bytes: int) -> Verdict:
    match = _RANGE.fullmatch(headers.get("content-range", ""))
    if match is None:
        return Verdict(way=Way.AGAIN, problem="its 206 tells no range")
    first, last, total = (int(number) for number in match.groups())
    if first != have_bytes or last != total - 1:
        return Verdict(way=Way.AGAIN, problem=f"its 206 is of bytes {first} to {last} of {total}")
    if kept.total_bytes not in {None, total}:
        return Verdict(way=Way.AGAIN, problem=f"it has {total} bytes now")
    length = headers.get("content-length", str(total - first))
    if length != str(total - first):
        return Verdict(way=Way.AGAIN, problem="its 206 has a length of its own")
    now = Kept(
        etag=headers.get("etag", ""), last_modified=headers.get("last-modified", "")
    ).validator
    if now != kept.validator:
        return Verdict(way=Way.AGAIN, problem="it is another file by now")
    return Verdict(way=Way.APPEND, total_bytes=total)


def kept_of(url: str, headers: Mapping[str, str], total_bytes: int | None) -> Kept:
    """What to keep of an answer beside its body."""
    return Kept(
        url=url,
        etag=headers.get("etag", ""),
        last_modified=headers.get("last-modified", ""),
        total_bytes=total_bytes,
    )


def _words(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
