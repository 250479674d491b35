"""Pure: what types alone cannot say of [alerts]; fields are known to telemetry/alerts/rules/."""

from __future__ import annotations

import math
import re
from urllib.parse import SplitResult, urlsplit

from gpud.listening import NAME_PATTERN, check_absolute, is_loopback, require
from gpud.settings import AlertRule, Alerts, AlertSink

_DAY = 86400.0
_MOST = 256  # rules, and sinks
# What goes into a header: no name of more than one line, or of several words.
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,62}")
_OWN_HEADERS = {"host", "content-length", "content-type", "connection", "transfer-encoding"}


def check_alerts(alerts: Alerts) -> None:
    """Raises ConfigInvalid."""
    for key, seconds, high in (
        ("alerts.quiet", float(alerts.quiet), 3600.0),
        ("alerts.repeat", float(alerts.repeat), 30 * _DAY),
    ):
        require(0 <= seconds <= high, key, f"{seconds:g} s is not within 0 … {high:g} s")
    for table in ("rules", "sinks"):
        count = len(getattr(alerts, table))
        require(count <= _MOST, f"alerts.{table}", f"{count} of them, at most {_MOST}")
    for name, rule in alerts.rules.items():
        _check_name(f"alerts.rules.{name}", name)
        _check_rule(f"alerts.rules.{name}", rule, alerts)
    for name, sink in alerts.sinks.items():
        _check_name(f"alerts.sinks.{name}", name)
        _check_sink(f"alerts.sinks.{name}", sink)


def _check_name(key: str, name: str) -> None:
    require(
        re.fullmatch(NAME_PATTERN, name) is not None,
        key,
        "a name is made of lower-case letters, digits, '.', '_' and '-'",
    )


def _check_rule(key: str, rule: AlertRule, alerts: Alerts) -> None:
    for name in ("above", "below", "clear"):
        value = getattr(rule, name)
        require(value is None or math.isfinite(value), f"{key}.{name}", "is no number")
    seconds = float(rule.for_ or 0.0)
    require(0 <= seconds <= 7 * _DAY, f"{key}.for", f"{seconds:g} s is not within 0 … 7d")
    for name in rule.sinks or ():
        known = ", ".join(sorted(alerts.sinks)) or "none"
        problem = f"there is no [alerts.sinks.{name}]; there are {known}"
        require(name in alerts.sinks, f"{key}.sinks", problem)


def _check_sink(key: str, sink: AlertSink) -> None:
    require(
        bool(sink.webhook) is not bool(sink.command),
        key,
        "says neither a webhook nor a command, or both; say one of them",
    )
    seconds = float(sink.timeout)
    require(0.1 <= seconds <= 600, f"{key}.timeout", f"{seconds:g} s is not within 100ms … 10m")
    if sink.command:
        check_absolute(f"{key}.command", sink.command[0])
        require(len(sink.command) <= 64, f"{key}.command", "has more than 64 words")
        require(not sink.secret_file, f"{key}.secret_file", "is of a webhook alone")
        plain = all("\0" not in word for word in sink.command)
        require(plain, f"{key}.command", "holds a NUL")
        return
    _check_url(key, sink)
    if sink.secret_file:
        check_absolute(f"{key}.secret_file", sink.secret_file)
    is_free = sink.secret_header.lower() not in _OWN_HEADERS
    require(
        is_free and _HEADER.fullmatch(sink.secret_header) is not None,
        f"{key}.secret_header",
        f"{sink.secret_header[:80]!r} is no header that a key may stand in; write for example "
        "Authorization or X-Api-Key",
    )


def _check_url(key: str, sink: AlertSink) -> None:
    """What stands in the URL may be a secret: nothing of it but its scheme and host is told."""
    target = _split(sink.webhook)
    is_plain = sink.webhook.isascii() and sink.webhook.isprintable() and " " not in sink.webhook
    require(
        target is not None and is_plain and target.scheme in ("http", "https"),
        f"{key}.webhook",
        "is no URL; write for example https://example.com/hooks/gpud",
    )
    assert target is not None  # noqa: S101 — refused above
    host = target.hostname or ""
    require(
        target.username is None and target.password is None,
        f"{key}.webhook",
        f"names a user of {host}; put the key into a file and name that as secret_file",
    )
    require(
        target.scheme == "https" or sink.allow_http or is_loopback(host) or host == "localhost",
        f"{key}.webhook",
        f"sends alerts to {host} in the clear; write https://, or set allow_http = true",
    )


def _split(url: str) -> SplitResult | None:
    try:
        target = urlsplit(url)
        is_whole = bool(target.hostname) and target.port != 0
    except ValueError:  # a port that is no number, an address that is none
        return None
    return target if is_whole else None
