"""The rules and sinks of a configuration, built."""

from __future__ import annotations

from gpud.clock import Clock
from gpud.engines.command.program import Looks
from gpud.settings import Alerts, AlertSink
from gpud.telemetry.alerts.alert import Severity
from gpud.telemetry.alerts.alerts import AlertTerms
from gpud.telemetry.alerts.rules.configured import rules_of
from gpud.telemetry.alerts.sinks.command import Command
from gpud.telemetry.alerts.sinks.outbox import Terms
from gpud.telemetry.alerts.sinks.sink import Sink
from gpud.telemetry.alerts.sinks.webhook import Webhook


def terms_of(settings: Alerts, clock: Clock) -> AlertTerms:
    """What [alerts] comes to. Raises ConfigInvalid."""
    looks = Looks()
    return AlertTerms(
        rules=rules_of(settings),
        sinks=tuple(
            Terms(sink=_sink(name, said, (looks, clock)), retries=said.retries)
            for name, said in settings.sinks.items()
        ),
        least={name: Severity[s.min_severity.upper()] for name, s in settings.sinks.items()},
        quiet_seconds=float(settings.quiet),
        repeat_seconds=float(settings.repeat),
    )


def _sink(name: str, said: AlertSink, seams: tuple[Looks, Clock]) -> Sink:
    seconds, (looks, clock) = float(said.timeout), seams
    if said.command:
        return Command(
            name=name, argv=said.command, timeout_seconds=seconds, looks=looks, clock=clock
        )
    return Webhook(
        name=name,
        url=said.webhook,
        timeout_seconds=seconds,
        secret_file=said.secret_file,
        secret_header=said.secret_header,
    )
