"""What TelemetryService tells of alerts, and takes."""

from __future__ import annotations

from typing import Any

from gpud.access.identity import DEED
from gpud.clock import Moment
from gpud.ledger.reservation import Deadline
from gpud.rpc import alert_messages, messages, paging
from gpud.rpc.reservations import call_of
from gpud.rpc.view import View
from gpud.telemetry.alerts.alert import Silence
from gpud.telemetry.alerts.alerts import Alerts
from gpud.v1 import alerts_pb2

MAX_COMMENT = 1000


class AlertMethods:
    """The methods of TelemetryService about alerts."""

    def __init__(self, view: View, alerts: Alerts) -> None:
        self._alert_view = view
        self._alerts = alerts

    async def ListAlerts(
        self, request: alerts_pb2.ListAlertsRequest, context: Any
    ) -> alerts_pb2.ListAlertsResponse:
        """What holds now, the gravest first."""
        found = alert_messages.asked(request, self._alerts.list())
        shown, token = paging.page(found, alert_messages.key, request)
        return alerts_pb2.ListAlertsResponse(
            alerts=[alert_messages.alert(each) for each in shown],
            next_page_token=token,
            silences=alert_messages.silences(self._alerts.silences()),
        )

    async def AcknowledgeAlert(
        self, request: alerts_pb2.AcknowledgeAlertRequest, context: Any
    ) -> alerts_pb2.AcknowledgeAlertResponse:
        """Somebody knows of it; answered once durable."""
        id_ = messages.checked_name("name", request.name, "alerts")
        comment = messages.checked_text("comment", request.comment, MAX_COMMENT)
        by = messages.acting_for(request.owner)
        call = call_of("AcknowledgeAlert", request.request_id, id_, comment)
        DEED.get().subject = f"alerts/{id_}"
        told = await self._alerts.acknowledge(id_, by, comment, call)
        return alerts_pb2.AcknowledgeAlertResponse(alert=alert_messages.alert(told))

    async def SilenceAlerts(
        self, request: alerts_pb2.SilenceAlertsRequest, context: Any
    ) -> alerts_pb2.SilenceAlertsResponse:
        """For a while nobody is sent them; answered once durable."""
        rule = messages.checked_text("rule", request.rule)
        if rule:
            self._alerts.check_rule(rule)
        latest = self._alert_view.snapshots.latest
        subject = alert_messages.silence_subject(request.subject, latest)
        seconds = alert_messages.silence_span(request)
        now: Moment = self._alert_view.clock.now()
        asked = Silence(
            rule=rule,
            subject=subject,
            end=Deadline.after(now, seconds),
            actor=messages.acting_for(request.owner),
            comment=messages.checked_text("comment", request.comment, MAX_COMMENT),
        )
        call = call_of("SilenceAlerts", request.request_id, rule, subject, seconds, asked.comment)
        told = await self._alerts.silence(asked, seconds, call)
        return alerts_pb2.SilenceAlertsResponse(silences=alert_messages.silences(told))
