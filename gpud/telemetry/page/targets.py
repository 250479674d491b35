"""Pure: the engines' own endpoints, as Prometheus' service discovery reads them.

The JSON of http_sd and file_sd. Engines listen on loopback, so that only a Prometheus (or an agent
of one) on this host reaches them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import urlsplit

from gpud.instances.instance import Instance, InstanceState
from gpud.models.model import EngineKind

# Where engines show their metrics; of a command its entry says it.
_PATHS = {EngineKind.LLAMA_CPP: "/metrics", EngineKind.VLLM: "/metrics"}


def targets(
    instances: Iterable[Instance],
    command_path: Callable[[str], str],
    aliases: Mapping[str, str],
) -> str:
    """One target for each instance that serves and has metrics.

    `command_path` is the path of a model's command, empty where it has none; `aliases` are those
    of devices, by UUID.
    """
    told = []
    for each in instances:
        path = _PATHS.get(each.engine) or command_path(each.model)
        address = urlsplit(each.endpoint).netloc
        if each.state is InstanceState.READY and path and address:
            told.append({"targets": [address], "labels": _labels(each, path, aliases)})
    return json.dumps(told, indent=1, ensure_ascii=False)


def _labels(instance: Instance, path: str, aliases: Mapping[str, str]) -> dict[str, str]:
    devices = ",".join(aliases.get(uuid, uuid) for uuid in instance.devices)
    labels = {
        "__metrics_path__": path,
        "instance": instance.id,
        "model": instance.model,
        "engine": instance.engine.value,
        "devices": devices,
    }
    # vLLM asks for it under /v1 alone.
    if instance.endpoint_needs_key and instance.engine is not EngineKind.VLLM:
        # For relabelling into a job that has its key.
        labels["__meta_gpud_needs_key"] = "true"
    return labels
