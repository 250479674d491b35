"""What the seeing side offers to whoever shows it: the services, the page of metrics."""

from __future__ import annotations

from dataclasses import dataclass

from gpud.benchmarking.benchmarks import Benchmarks
from gpud.telemetry.alerts.alerts import Alerts
from gpud.telemetry.counting import EventCounts
from gpud.telemetry.engines.metrics import EngineMetrics
from gpud.telemetry.forecast.forecasts import Forecasts
from gpud.telemetry.history.history import History


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The parts that keep, foresee and judge what devices and engines show."""

    history: History
    forecasts: Forecasts
    engines: EngineMetrics
    benchmarks: Benchmarks
    alerts: Alerts
    events: EventCounts
