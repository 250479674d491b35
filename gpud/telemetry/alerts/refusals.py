"""Pure: what of alerts is refused."""

from __future__ import annotations

from gpud.errors import NotFound


class AlertNotFound(NotFound):
    """No alert of that name is listed."""

    reason = "ALERT_NOT_FOUND"
    noun = "alert"
    listing = "gpuctl alerts --all"
