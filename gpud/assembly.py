"""Pure: the configuration, as the settings and values that each part is built from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from gpud.config import toml_key
from gpud.devices.bands import Bands
from gpud.devices.sampling.frames import SamplerSettings
from gpud.ledger.admission.policy import (
    LedgerSettings,
    OwnerQuota,
    PreemptionSettings,
    QueueSettings,
    QuotaSettings,
)
from gpud.ledger.charge import Reserves
from gpud.ledger.reservation import Sharing
from gpud.ledger.standing import Standing
from gpud.models.catalogue import Catalogue
from gpud.models.model import EngineKind, Model, ModelKind, ModelOptions
from gpud.settings import Config, ModelEntry, Policy, Quota

# The quota of owners without a table of their own.
DEFAULT_QUOTA = "default"


def ledger_settings(
    policy: Policy, quotas: Mapping[str, Quota] = MappingProxyType({})
) -> LedgerSettings:
    """What the ledger decides by: [policy] and [quotas]."""
    return LedgerSettings(
        reserves=Reserves(
            device_bytes=policy.device_reserve, host_bytes=policy.reserve_system_memory
        ),
        release_deadline_seconds=float(policy.release_deadline),
        queue=QueueSettings(
            by_priority=policy.priority_queues,
            max_queued=policy.max_queue,
            max_queued_per_owner=policy.max_queue_per_owner,
            max_reservations_per_owner=policy.max_reservations_per_owner,
            ageing_seconds=float(policy.queue_ageing),
            overtaking_seconds=float(policy.overtaking_bound),
        ),
        preemption=PreemptionSettings(
            on=policy.preemption,
            grace_seconds=float(policy.preemption_grace),
            min_tenure_seconds=float(policy.preemption_min_tenure),
            ratio=policy.preemption_ratio,
        ),
        quotas=_quotas(quotas),
        numa_aware=policy.numa_aware,
        exclusive_process_mode=policy.exclusive_process_mode,
        critical_load_percent=policy.critical_load_percent,
    )


def _quotas(quotas: Mapping[str, Quota]) -> QuotaSettings:
    made = {
        name: OwnerQuota(
            key=f"quotas.{toml_key(name)}",
            gpu_bytes=int(quota.gpu_bytes),
            host_bytes=int(quota.host_bytes),
            reservations=quota.reservations,
            queued=quota.queued,
        )
        for name, quota in quotas.items()
    }
    return QuotaSettings(default=made.pop(DEFAULT_QUOTA, None), owners=made)


def standing(config: Config) -> tuple[Standing, ...]:
    """The fixed shares."""
    return tuple(
        Standing(
            name=name,
            owner=entry.owner,
            devices=entry.devices,
            bytes=int(entry.bytes),
            sharing=Sharing(entry.sharing),
            host_bytes=int(entry.host_bytes),
            labels=entry.labels,
        )
        for name, entry in config.reservations.items()
    )


def sampler_settings(config: Config) -> SamplerSettings:
    """What is sampled, and how often."""
    devices = config.devices
    return SamplerSettings(
        nvml=devices.nvml,
        host=devices.host,
        simulated=tuple((cards.card, cards.count) for cards in devices.simulated),
        scenario=devices.scenario,
        interval_seconds=float(config.sampling.interval),
        processes_every=config.sampling.processes_every,
        bands=Bands.of(config.policy),
    )


def catalogue(config: Config) -> Catalogue:
    """The models of the configuration."""
    models = {name: _model(name, entry) for name, entry in config.models.entries.items()}
    return Catalogue(models, tuple(Path(root) for root in config.models.roots))


def _model(name: str, entry: ModelEntry) -> Model:
    options = ModelOptions(
        **{field: getattr(entry, field) for field in ModelOptions.__dataclass_fields__}
    )
    return Model(
        id=name,
        engine=EngineKind(entry.engine),
        kind=ModelKind(entry.kind) if entry.kind else None,
        path=entry.path,
        options=options,
        api_key_file=entry.api_key_file,
    )
