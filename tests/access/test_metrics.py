"""The page about who calls, as Prometheus reads it."""

from __future__ import annotations

from gpud.access.auditing.metrics import Counts, page

WHOLE = """\
# HELP gpud_streams_open Streams open now.
# TYPE gpud_streams_open gauge
gpud_streams_open 3
# HELP gpud_calls_refused_total Calls refused for want of a right or a limit, by reason.
# TYPE gpud_calls_refused_total counter
gpud_calls_refused_total{reason="NOT_OWNER"} 1
gpud_calls_refused_total{reason="ROLE_MISSING"} 2
# HELP gpud_tls_certificate_not_after_timestamp_seconds When the certificate in force ends.
# TYPE gpud_tls_certificate_not_after_timestamp_seconds gauge
gpud_tls_certificate_not_after_timestamp_seconds 1800000000
# HELP gpud_tls_client_ca_not_after_seconds When the first of the CAs in force for clients ends.
# TYPE gpud_tls_client_ca_not_after_seconds gauge
gpud_tls_client_ca_not_after_seconds 1900000000
# HELP gpud_tls_reloads_total Certificates taken anew.
# TYPE gpud_tls_reloads_total counter
gpud_tls_reloads_total 4
# HELP gpud_tls_reload_failures_total New certificates that were refused; the one before went on serving.
# TYPE gpud_tls_reload_failures_total counter
gpud_tls_reload_failures_total 5"""  # noqa: E501


def test_the_whole_page() -> None:
    counts = Counts(
        open_streams=3,
        refused={"ROLE_MISSING": 2, "NOT_OWNER": 1},
        certificate_not_after_wall=1_800_000_000.0,
        client_ca_not_after_wall=1_900_000_000.0,
        reloads=4,
        reload_failures=5,
    )
    assert page(counts) == WHOLE


def test_without_a_certificate_nothing_is_said_of_one() -> None:
    assert "tls" not in page(Counts(open_streams=0, refused={}))
    without_ca = Counts(open_streams=0, refused={}, certificate_not_after_wall=1.0)
    assert "client_ca" not in page(without_ca)
