"""Pure: what Prometheus is told of who calls, in its text format 0.0.4."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of one moment; None where there is no certificate, or no CA of clients."""

    open_streams: int
    refused: Mapping[str, int]  # by reason
    certificate_not_after_wall: float | None = None
    client_ca_not_after_wall: float | None = None
    reloads: int = 0
    reload_failures: int = 0


def page(counts: Counts) -> str:
    """The page, without a line's end at its end."""
    lines = [
        *_family("gpud_streams_open", "gauge", "Streams open now.", [("", counts.open_streams)]),
        *_family(
            "gpud_calls_refused_total",
            "counter",
            "Calls refused for want of a right or a limit, by reason.",
            [(f'{{reason="{name}"}}', count) for name, count in sorted(counts.refused.items())],
        ),
    ]
    if counts.certificate_not_after_wall is not None:
        lines += _family(
            "gpud_tls_certificate_not_after_timestamp_seconds",
            "gauge",
            "When the certificate in force ends.",
            [("", counts.certificate_not_after_wall)],
        )
        if counts.client_ca_not_after_wall is not None:
            lines += _family(
                "gpud_tls_client_ca_not_after_seconds",
                "gauge",
                "When the first of the CAs in force for clients ends.",
                [("", counts.client_ca_not_after_wall)],
            )
        lines += _family(
            "gpud_tls_reloads_total", "counter", "Certificates taken anew.", [("", counts.reloads)]
        )
        lines += _family(
            "gpud_tls_reload_failures_total",
            "counter",
            "New certificates that were refused; the one before went on serving.",
            [("", counts.reload_failures)],
        )
    return "\n".join(lines)


def _family(
    name: str, kind: str, help_: str, samples: Iterable[tuple[str, float]]
) -> Iterable[str]:
    yield f"# HELP {name} {help_}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield f"{name}{labels} {value:.17g}"
