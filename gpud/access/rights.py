"""Pure: which role each method needs. What is not listed is denied to everybody."""

from __future__ import annotations

from gpud.access.identity import Role

_READS = {
    "gpud.v1.NodeService": ("GetNode", "ListEvents", "WatchEvents"),
    "gpud.v1.DeviceService": ("ListDevices", "GetDevice"),
    "gpud.v1.TelemetryService": (
        "GetSnapshot",
        "WatchSnapshots",
        "QueryHistory",
        "GetForecast",
        "ListAlerts",
    ),
    "gpud.v1.ReservationService": (
        "Explain",
        "GetReservation",
        "ListReservations",
        "WatchReservation",
    ),
    "gpud.v1.ModelService": ("ListModels", "GetModel", "EstimateFootprint"),
    "gpud.v1.InstanceService": (
        "GetInstance",
        "ListInstances",
        "WatchInstance",
        "TailOutput",
        "ListBenchmarks",
        "ListOrphans",
    ),
    "grpc.health.v1.Health": ("Check", "List", "Watch"),
    "grpc.reflection.v1.ServerReflection": ("ServerReflectionInfo",),
    "grpc.reflection.v1alpha.ServerReflection": ("ServerReflectionInfo",),
}
# Of these an operator may change only what is its own; the services look whose it is.
_OPERATES = {
    "gpud.v1.ReservationService": ("Reserve", "Renew", "KeepAlive", "Release", "AttachProcess"),
    "gpud.v1.ModelService": ("RegisterModel", "DeleteModel"),
    "gpud.v1.TelemetryService": ("AcknowledgeAlert", "SilenceAlerts"),
    "gpud.v1.InstanceService": (
        "LoadModel",
        "UnloadModel",
        "ResetInstance",
        "SleepInstance",
        "WakeInstance",
        "BenchmarkModel",
    ),
}
_ADMINISTERS = {
    "gpud.v1.NodeService": ("DrainNode", "ResumeNode", "ReloadConfig"),
    "gpud.v1.DeviceService": ("CordonDevice", "UncordonDevice"),
    "gpud.v1.InstanceService": ("ReapOrphans",),
}

# "service/Method" → the least role that may call it.
RIGHTS: dict[str, Role] = {
    f"{service}/{method}": role
    for role, table in (
        (Role.VIEWER, _READS),
        (Role.OPERATOR, _OPERATES),
        (Role.ADMIN, _ADMINISTERS),
    )
    for service, methods in table.items()
    for method in methods
}


def known_method(method: str) -> str:
    """The method, or "" for one that there is not: its name is the caller's choice."""
    return method if method in RIGHTS or f"gpud.v1.{method}" in RIGHTS else ""


def changes(method: str) -> bool:
    """Whether a method changes anything: such calls are audited."""
    return RIGHTS.get(method, Role.ADMIN) is not Role.VIEWER
