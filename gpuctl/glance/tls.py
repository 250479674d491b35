"""Pure: what of TLS has to be known at a glance."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from gpuctl.messages import seconds_of
from gpuctl.tables import clean
from gpud.v1.node_pb2 import TlsStatus

_DAY_SECONDS = 86400
# A certificate that ends so soon is told with a warning.
_WARN_DAYS = 30
# What ends, and what it means once it has. Of equals the first is told: a certificate is good no
# longer than its CA, and a new one would not be either.
_TLS_ENDS = (
    ("client_ca_expire_time", "the client CA", "none of its clients connects"),
    ("certificate_expire_time", "certificate", "no client connects"),
)


def tls_lines(tls: TlsStatus, now: float, width: int | None) -> Iterator[tuple[str, str]]:
    """What of TLS ends first, and why the newest files are not in use.

    Each with its tone, empty where nothing has to be done. `now`: seconds since the epoch.
    """
    ends = [
        (seconds_of(getattr(tls, field)), whose, consequence)
        for field, whose, consequence in _TLS_ENDS
        if tls.HasField(field)
    ]
    if ends:
        yield _end_line(*min(ends, key=lambda each: each[0]), now)
    if tls.problem:
        for line in wrapped(f"tls: the newest files are refused: {tls.problem}", width):
            yield line, "yellow"


def _end_line(end: float, whose: str, consequence: str, now: float) -> tuple[str, str]:
    days = int((end - now) // _DAY_SECONDS)
    count = f"{abs(days)} day{'' if abs(days) == 1 else 's'}"
    if days < 0:
        return f"tls: {whose} expired {count} ago: {consequence}", "red"
    if days < _WARN_DAYS:
        return f"tls: {whose} expires in {count}: replace it", "yellow"
    return f"tls: {whose} expires in {count}", ""


def wrapped(text: str, width: int | None) -> list[str]:
    """Whole, over as many lines as it needs; None: there is room for any."""
    if width is None:
        return [clean(text)]
    return textwrap.wrap(clean(text), width, subsequent_indent="     ")
