"""Pure: what types alone cannot say of the settings of the seeing side."""

from __future__ import annotations

from gpud.alert_settings import check_alerts
from gpud.listening import check_absolute, require
from gpud.settings import Config, EngineMetrics, History, Http
from gpud.units import KIB, MIB, format_size

# Below this a file holds no day of a single card.
MIN_HISTORY_BYTES = 4 * MIB
# Some hundred events; and a search through more than that would take minutes.
EVENTS_BYTES = (64 * KIB, 64 * 1024 * MIB)
_DAY = 86400.0
# Of a label's name, as reservations may have it.
MOST_LABEL = 63
_METRICS_SPAN = (0.1, 3600.0)
# Coarser steps are made of finer ones that are still there: of 5 minutes, and of an hour.
_HISTORY_SPANS = {
    "seconds": (600.0, _DAY),
    "ten_seconds": (2 * 3600.0, 31 * _DAY),
    "minutes": (_DAY, 3660 * _DAY),
}


def check_seeing(config: Config) -> None:
    """Raises ConfigInvalid."""
    _check_history(config.history)
    _check_engine_metrics(config.engine_metrics)
    low, high = EVENTS_BYTES
    require(
        low <= config.events.max_bytes <= high,
        "events.max_bytes",
        f"{format_size(config.events.max_bytes)} is not within "
        f"{format_size(low)} … {format_size(high)}",
    )
    check_alerts(config.alerts)
    _check_http(config.http)


def _check_history(history: History) -> None:
    for key, (low, high) in _HISTORY_SPANS.items():
        seconds = getattr(history, key)
        require(
            low <= seconds <= high,
            f"history.{key}",
            f"{seconds:g} s is not within {low:g} … {high:g} s",
        )
    require(
        history.max_bytes >= MIN_HISTORY_BYTES,
        "history.max_bytes",
        f"{format_size(history.max_bytes)} is less than {format_size(MIN_HISTORY_BYTES)}",
    )


def _check_engine_metrics(metrics: EngineMetrics) -> None:
    low, high = _METRICS_SPAN
    seconds = float(metrics.interval)
    require(
        seconds == 0 or low <= seconds <= high,
        "engine_metrics.interval",
        f"{seconds:g} s is neither 0, for never, nor within {low:g} … {high:g} s",
    )
    require(
        0 < len(metrics.service_label) <= MOST_LABEL and metrics.service_label.isprintable(),
        "engine_metrics.service_label",
        f"{metrics.service_label[:80]!r} is no name of a label",
    )


def _check_http(http: Http) -> None:
    """Prometheus reads of file_sd only files that end so."""
    if http.targets_file:
        check_absolute("http.targets_file", http.targets_file)
        require(
            http.targets_file.endswith(".json"),
            "http.targets_file",
            f"{http.targets_file!r} does not end in .json",
        )
