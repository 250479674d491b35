"""Pure: the configuration, as the settings and values that each part is built from."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

from gpud import settings
from gpud.clock import Clock
from gpud.config import toml_key
from gpud.devices.bands import Bands
from gpud.devices.sampling.frames import SamplerSettings
from gpud.engines.command.spec import check_spec
from gpud.engines.options.extra_args import check_extra_args
from gpud.engines.options.profiles import BUILT_IN
from gpud.errors import ConfigInvalid, ModelNotFound, OptionInvalid
from gpud.instances.instance import Instance
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
from gpud.models.model import CommandSpec, EngineKind, Limits, Model, ModelKind, ModelOptions
from gpud.models.sources.entry import Places, Said, with_source
from gpud.models.sources.supplies import Keeping, Supplies
from gpud.models.sources.transfer.download import Terms
from gpud.models.sources.transfer.room import Room
from gpud.settings import Config, ModelEntry, Options, Policy, Quota, Size
from gpud.units import MIB

# No download takes the last of a disk: the store has to be written, come what may.
KEEP_FREE_BYTES = 64 * MIB
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
        disks=_disks(config),
        bands=Bands.of(config.policy),
    )


def _disks(config: Config) -> tuple[tuple[str, str], ...]:
    """The folders whose file systems are watched, each once: (what, path)."""
    models = dict.fromkeys((*config.models.roots, str(places(config).download_dir)))
    return (("state", config.node.state_dir), *(("models", path) for path in models))


def catalogue(config: Config) -> Catalogue:
    """The models of the configuration. Raises ConfigInvalid."""
    return Catalogue(models(config), roots(config))


def roots(config: Config) -> tuple[Path, ...]:
    """Where model files must lie under: the roots, and the folder of downloads."""
    return (*(Path(root) for root in config.models.roots), places(config).download_dir)


def places(config: Config) -> Places:
    """Where downloads come to lie."""
    folder = config.models.download_dir or f"{config.node.state_dir}/models"
    return Places(
        download_dir=Path(folder),
        allow_http=config.models.allow_http,
        profiles=profiles(config),
    )


def supplies(config: Config, known: Catalogue, keeping: Keeping, clock: Clock) -> Supplies:
    """Downloads, sums and registered entries for a catalogue."""
    return Supplies(known, places(config), download_terms(config), keeping, clock)


def download_terms(config: Config) -> Terms:
    """What holds for every download."""
    return Terms(
        room=Room(KEEP_FREE_BYTES),
        max_bytes=int(config.models.max_download_bytes),
        allow_http=config.models.allow_http,
        stall_seconds=float(config.models.download_stall),
    )


def models(config: Config) -> dict[str, Model]:
    """The entries of the configuration, by id. Raises ConfigInvalid."""
    known, where = profiles(config), places(config)
    return {
        name: replace(
            _with_source(_model(name, entry, known), entry, where),
            limits=_limits(entry.limits or config.limits.default),
        )
        for name, entry in config.models.entries.items()
    }


def _with_source(model: Model, entry: ModelEntry, where: Places) -> Model:
    said = Said(**{name: getattr(entry, name) for name in Said.__struct_fields__})
    try:
        return with_source(model, said, where)
    except OptionInvalid as error:
        raise ConfigInvalid(
            f"cannot use the configuration: models.{toml_key(model.id)}.{error.field}: "
            f"{error.problem}"
        ) from error


def profiles(config: Config) -> Mapping[str, ModelOptions]:
    """The profiles there are by name: those of the configuration, and those that gpud brings."""
    return {**BUILT_IN, **{name: _options(each) for name, each in config.profiles.items()}}


def command_at(
    endpoint: str,
    instances: Iterable[Instance],
    known: Catalogue,
    kept: Mapping[str, CommandSpec] = MappingProxyType({}),
) -> CommandSpec | None:
    """What is told of the server at an endpoint; None: its entry has left the configuration.

    `kept`, by instance, are of those that were started by another configuration.
    """
    port = urlsplit(endpoint).port
    for instance in instances:
        if instance.port == port and not instance.ended:
            with suppress(ModelNotFound):
                return kept.get(instance.id) or known.get(instance.model).command
    return None


def _options(said: Options) -> ModelOptions:
    found = {field: getattr(said, field) for field in ModelOptions.__dataclass_fields__}
    # Plain numbers, because records are written with them.
    plain = {name: int(value) for name, value in found.items() if isinstance(value, Size)}
    return ModelOptions(**found | plain)


def _model(name: str, entry: ModelEntry, known: Mapping[str, ModelOptions]) -> Model:
    """An entry with its profile's options below its own. Raises ConfigInvalid."""
    engine, options = EngineKind(entry.engine), _options(entry)
    try:
        if entry.profile:
            options = options.over(_profile(entry.profile, known))
        extra_args = check_extra_args(engine, entry.extra_args)
        command = _command(entry) if engine is EngineKind.COMMAND else None
    except OptionInvalid as error:
        raise ConfigInvalid(
            f"cannot use the configuration: models.{toml_key(name)}.{error.field}: {error.problem}"
        ) from error
    return Model(
        id=name,
        engine=engine,
        kind=ModelKind(entry.kind) if entry.kind else None,
        path=entry.path,
        options=options,
        api_key_file=entry.api_key_file,
        profile=entry.profile,
        extra_args=extra_args,
        command=command,
        restart=entry.restart == "always",
        idle_ttl_seconds=None if entry.idle_ttl is None else float(entry.idle_ttl),
        pinned=entry.pinned,
        preload=entry.preload,
        preload_devices=entry.preload_devices,
        labels=tuple(sorted(entry.labels.items())),
    )


def _limits(said: settings.Limits) -> Limits:
    memory = None if said.memory is None else int(said.memory)
    return Limits(cpus=said.cpus, memory_bytes=memory)


def _profile(name: str, known: Mapping[str, ModelOptions]) -> ModelOptions:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
        raise OptionInvalid(field="profile", problem=f"there is no profile {name!r}; {hint}")
    return known[name]


def _command(entry: ModelEntry) -> CommandSpec:
    """Raises OptionInvalid."""
    told = CommandSpec(
        argv=entry.argv,
        health=entry.health,
        device_bytes=int(entry.device_bytes),
        host_bytes=int(entry.host_bytes),
        environment=tuple(entry.environment.items()),
        metrics=entry.metrics,
        counters=tuple(entry.counters.items()),
        served_name=entry.served_name,
    )
    check_spec(told)
    return told
