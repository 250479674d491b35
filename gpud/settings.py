"""What can be set: one frozen class for each table of the file, each value its default."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from gpud.units import GIB, MIB

CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")


class Size(int):
    """Bytes, written `8GiB` or as a whole number."""


class Span(float):
    """Seconds, written `30s`, `5m` or as a number of seconds."""


# Defaults are made by factories: a schema cannot tell those of our own number types.
def _size(count: int) -> Size:
    made: Size = msgspec.field(default_factory=lambda: Size(count))
    return made


def _span(seconds: float) -> Span:
    made: Span = msgspec.field(default_factory=lambda: Span(seconds))
    return made


Reaction = Literal["report", "terminate"]
RoleName = Literal["viewer", "operator", "admin"]
Percent = Annotated[float, msgspec.Meta(gt=0, le=100)]
Celsius = Annotated[float, msgspec.Meta(gt=0, le=200)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file; an unknown key is an error."""


class Node(Section, frozen=True, kw_only=True):
    """[node]."""

    state_dir: str = "/var/lib/gpud"


class Server(Section, frozen=True, kw_only=True):
    """[server]: where gRPC is served. An empty `socket` means the default one.

    Who may open the socket is an admin; who calls over plain loopback without a token has
    `listen_role`.
    """

    socket: str = ""
    socket_mode: str = "0600"
    socket_group: str = ""
    listen: str = ""
    listen_role: Literal["none", "viewer", "operator", "admin"] = "viewer"


class RoleSocket(Section, frozen=True, kw_only=True):
    """[sockets.operator], [sockets.viewer]: who may open it has that role."""

    path: str
    mode: str = "0660"
    group: str = ""
    users_only: bool = False


class Tls(Section, frozen=True, kw_only=True):
    """[tls]: files of server.listen, PEM, read again when they change.

    Without `client_ca` callers need a bearer token.
    """

    certificate: str = ""
    key: str = ""
    client_ca: str = ""
    max_connection_age: Span = _span(3600.0)


class Access(Section, frozen=True, kw_only=True):
    """[access]: a file of names and certificates that are refused, read again when it changes."""

    denied: str = ""


class Token(Section, frozen=True, kw_only=True):
    """[tokens.NAME]: a bearer token, known by its SHA-256 alone."""

    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    role: RoleName


class Quota(Section, frozen=True, kw_only=True):
    """[quotas.default], [quotas."OWNER"]: what one owner may have at once; 0 is no limit."""

    gpu_bytes: Size = _size(0)
    host_bytes: Size = _size(0)
    reservations: Annotated[int, msgspec.Meta(ge=0)] = 0
    queued: Annotated[int, msgspec.Meta(ge=0)] = 0
    streams: Annotated[int, msgspec.Meta(ge=0)] = 0
    calls_per_second: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class Audit(Section, frozen=True, kw_only=True):
    """[audit]: the file of changes and refusals. "" is audit.jsonl in the state directory."""

    path: str = ""
    max_bytes: Size = _size(16 * MIB)
    keep: Annotated[int, msgspec.Meta(ge=1, le=100)] = 4


class Sampling(Section, frozen=True, kw_only=True):
    """[sampling]: how often devices are read."""

    interval: Span = _span(1.0)
    processes_every: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 5


class SimulatedCards(Section, frozen=True, kw_only=True):
    """[[devices.simulated]]: so many cards of a kind that card data exists for."""

    card: str
    count: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1


class Devices(Section, frozen=True, kw_only=True):
    """[devices]: what to look for."""

    nvml: Literal["auto", "on", "off"] = "auto"
    host: bool = True
    scenario: str = ""
    simulated: tuple[SimulatedCards, ...] = ()


class Policy(Section, frozen=True, kw_only=True):
    """[policy]: who may use which bytes, and what is done about those who may not."""

    strict_allocation: bool = True
    device_reserve: Size = _size(512 * MIB)
    reserve_system_memory: Size = _size(2 * GIB)
    release_deadline: Span = _span(10.0)
    exclusive_process_mode: bool = True
    on_trespass: Reaction = "report"
    on_overuse: Reaction = "report"
    oom_prevention: bool = True
    swap_disabled: bool = True
    gpu_affinity: bool = True
    numa_aware: bool = True
    priority_queues: bool = True
    max_queue: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 512
    max_queue_per_owner: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 64
    max_reservations_per_owner: Annotated[int, msgspec.Meta(ge=0)] = 0
    queue_ageing: Span = _span(300.0)
    overtaking_bound: Span = _span(30.0)
    preemption: bool = False
    preemption_grace: Span = _span(30.0)
    preemption_min_tenure: Span = _span(60.0)
    preemption_ratio: Annotated[float, msgspec.Meta(ge=1, le=1000)] = 2.0
    pressure_percent: tuple[Percent, Percent, Percent] = (50.0, 70.0, 85.0)
    thermal_celsius: tuple[Celsius, Celsius, Celsius] = (65.0, 80.0, 85.0)
    pressure_hysteresis_percent: Annotated[float, msgspec.Meta(ge=0, le=50)] = 5.0
    thermal_hysteresis_celsius: Annotated[float, msgspec.Meta(ge=0, le=50)] = 5.0
    band_hold: Span = _span(10.0)
    critical_load_percent: Percent = 95.0


class Health(Section, frozen=True, kw_only=True):
    """[health]: how engines that serve are watched, and started again when they fail."""

    watch: Span = _span(5.0)
    health: Span = _span(15.0)
    probe: Span = _span(60.0)
    stuck: Span = _span(60.0)
    backoff_first: Span = _span(1.0)
    backoff_most: Span = _span(300.0)
    breaker_failures: Annotated[int, msgspec.Meta(ge=1, le=100)] = 5
    breaker_window: Span = _span(600.0)
    healthy_spell: Span = _span(600.0)


class StandingReservation(Section, frozen=True, kw_only=True):
    """[reservations.NAME]: a fixed share, held from the start."""

    owner: str
    bytes: Size
    devices: tuple[str, ...]
    sharing: Literal["shared", "exclusive"] = "shared"
    host_bytes: Size = _size(0)
    labels: dict[str, str] = {}


class Limits(Section, frozen=True, kw_only=True):
    """[limits.default], [models.NAME.limits]: what one instance may take of the host."""

    cpus: Annotated[float, msgspec.Meta(ge=0.1, le=4096)] | None = None
    memory: Size | None = None


class DefaultLimits(Section, frozen=True, kw_only=True):
    """[limits]: `default` is of models without limits of their own."""

    default: Limits = Limits()


class LlamaCpp(Section, frozen=True, kw_only=True):
    """[engines.llama_cpp]. `load_stall` bounds a load that shows no progress."""

    binary: str = "llama-server"
    load_stall: Span = _span(120.0)


class VllmProgram(Section, frozen=True, kw_only=True):
    """[engines.vllm]: the program and what follows it. Its start is long and often silent."""

    command: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=8)] = (
        "vllm",
        "serve",
    )
    load_stall: Span = _span(300.0)


class Engines(Section, frozen=True, kw_only=True):
    """[engines]."""

    llama_cpp: LlamaCpp = msgspec.field(default_factory=LlamaCpp)
    vllm: VllmProgram = msgspec.field(default_factory=VllmProgram)


class Options(Section, frozen=True, kw_only=True):
    """The options of an engine, as a model or a profile says them; None: not said here."""

    context_length: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None
    parallel: Annotated[int, msgspec.Meta(ge=1, le=1024)] | None = None
    batch: Annotated[int, msgspec.Meta(ge=1, le=2**20)] | None = None
    ubatch: Annotated[int, msgspec.Meta(ge=1, le=2**20)] | None = None
    cache_type_k: str | None = None
    cache_type_v: str | None = None
    flash_attention: str | None = None
    gpu_layers: Annotated[int, msgspec.Meta(ge=0, le=65536)] | None = None
    threads: Annotated[int, msgspec.Meta(ge=1, le=1024)] | None = None
    kv_unified: bool | None = None
    embedding: bool | None = None
    threads_batch: Annotated[int, msgspec.Meta(ge=1, le=1024)] | None = None
    tensor_split: tuple[Annotated[float, msgspec.Meta(ge=0)], ...] | None = None
    split_mode: Literal["none", "layer", "row"] | None = None
    mmap: bool | None = None
    mlock: bool | None = None
    cache_reuse: Annotated[int, msgspec.Meta(ge=0, le=2**20)] | None = None
    continuous_batching: bool | None = None
    cache_ram_bytes: Size | None = None
    pooling: Literal["none", "mean", "cls", "last", "rank"] | None = None
    sleep_idle_seconds: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    dtype: str | None = None
    quantization: str | None = None
    kv_cache_dtype: str | None = None
    max_num_seqs: Annotated[int, msgspec.Meta(ge=1, le=2**16)] | None = None
    max_num_batched_tokens: Annotated[int, msgspec.Meta(ge=1, le=2**24)] | None = None
    tensor_parallel_size: Annotated[int, msgspec.Meta(ge=1, le=64)] | None = None
    enforce_eager: bool | None = None
    kv_cache_bytes: Size | None = None
    sleep_mode: bool | None = None


class Profile(Options, frozen=True, kw_only=True):
    """[profiles.NAME]: options that a model takes with `profile = "NAME"`."""


Text = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
# What a command's metrics may be said to tell: numbers, then histograms of seconds.
CounterName = (
    Literal["running", "waiting", "progress", "completed", "tokens", "failed", "slots"]
    | Literal["prompt_tokens", "cached_tokens", "kv_used"]
    | Literal["time_to_first_token", "inter_token", "request"]
)


class ModelEntry(Options, frozen=True, kw_only=True):
    """[models.NAME]: a catalogue entry and the options it is loaded with.

    Its engine asks everybody for the key in `api_key_file`, where one is named. From `argv` on it
    is about the engine `command` alone.
    """

    engine: str = "llama_cpp"
    path: str = ""
    url: str = ""
    sha256: str = ""
    hub: str = ""
    revision: str = ""
    file: str = ""
    mmproj: str = ""
    kind: str = ""
    api_key_file: str = ""
    labels: dict[str, str] = {}
    restart: Literal["always", "never"] = "always"
    idle_ttl: Span | None = None
    pinned: bool = False
    preload: bool = False
    preload_devices: tuple[str, ...] = ()
    limits: Limits | None = None
    profile: str = ""
    extra_args: tuple[Text, ...] = ()
    argv: tuple[Text, ...] = ()
    environment: dict[str, str] = {}
    health: str = ""
    metrics: str = ""
    counters: dict[CounterName, str] = {}
    served_name: str = ""
    device_bytes: Size = _size(0)
    host_bytes: Size = _size(0)


class Models(msgspec.Struct, frozen=True, kw_only=True):
    """[models]: the roots that files must lie under, how they are downloaded, and the entries.

    An empty `download_dir` is the folder models of the state directory.
    """

    roots: tuple[str, ...] = ()
    download_dir: str = ""
    max_download_bytes: Size = _size(1024 * GIB)
    download_stall: Span = _span(60.0)
    allow_http: bool = False
    entries: dict[str, ModelEntry] = {}


# What stands in [models] itself, so that no model can be called so.
MODELS_KEYS = frozenset(Models.__struct_fields__) - {"entries"}


class History(Section, frozen=True, kw_only=True):
    """[history]: how long what was seen is kept, by fineness; at most `max_bytes` on disk."""

    on: bool = True
    seconds: Span = _span(15 * 60.0)
    ten_seconds: Span = _span(6 * 3600.0)
    minutes: Span = _span(28 * 86400.0)
    max_bytes: Size = _size(256 * MIB)


class AlertRule(Section, frozen=True, kw_only=True):
    """[alerts.rules.NAME]: another threshold of a rule that gpud brings, or a rule of one's own.

    `above` and `below` are in the unit of `field`; with `clear` it holds until the value is back
    beyond that.
    """

    on: bool = True
    field: str = ""
    subject: str = ""
    above: float | None = None
    below: float | None = None
    clear: float | None = None
    for_: Span | None = msgspec.field(name="for", default=None)
    severity: Literal["", "info", "warning", "critical"] = ""
    sinks: tuple[str, ...] | None = None


class AlertSink(Section, frozen=True, kw_only=True):
    """[alerts.sinks.NAME]: whom alerts are sent to; a URL that is posted JSON, or a command."""

    webhook: str = ""
    secret_file: str = ""
    secret_header: str = "Authorization"  # noqa: S105 — a header's name
    allow_http: bool = False
    command: tuple[Text, ...] = ()
    min_severity: Literal["info", "warning", "critical"] = "warning"
    timeout: Span = _span(10.0)
    retries: Annotated[int, msgspec.Meta(ge=0, le=100)] = 13


class Alerts(Section, frozen=True, kw_only=True):
    """[alerts]: rules that are watched, and who is told."""

    on: bool = True
    quiet: Span = _span(10.0)
    repeat: Span = _span(0.0)
    rules: dict[str, AlertRule] = {}
    sinks: dict[str, AlertSink] = {}


class EventRetention(Section, frozen=True, kw_only=True):
    """[events]: how much of the journal is kept; the oldest go first."""

    max_bytes: Size = _size(64 * MIB)


class EngineMetrics(Section, frozen=True, kw_only=True):
    """[engine_metrics]: how often the counters of engines are read; 0: never."""

    interval: Span = _span(5.0)
    # The label (of a model's reservation) that names the service it is for.
    service_label: str = "service"


class Http(Section, frozen=True, kw_only=True):
    """[http]: pages for probes and for Prometheus; a file of the engines' endpoints."""

    listen: str = ""
    dcgm_hostname_label: Literal["Hostname", "hostname"] = "Hostname"
    targets_file: str = ""


class Logging(Section, frozen=True, kw_only=True):
    """[logging]. `auto`: for a person on a terminal, JSON else."""

    format: str = "auto"
    level: str = "info"


class Config(Section, frozen=True, kw_only=True):
    """All of it."""

    node: Node = Node()
    server: Server = Server()
    sampling: Sampling = msgspec.field(default_factory=Sampling)
    devices: Devices = Devices()
    policy: Policy = msgspec.field(default_factory=Policy)
    health: Health = msgspec.field(default_factory=Health)
    engines: Engines = msgspec.field(default_factory=Engines)
    models: Models = msgspec.field(default_factory=Models)
    profiles: dict[str, Profile] = {}
    limits: DefaultLimits = DefaultLimits()
    reservations: dict[str, StandingReservation] = {}
    sockets: dict[Literal["operator", "viewer"], RoleSocket] = {}
    tls: Tls = msgspec.field(default_factory=Tls)
    identities: dict[str, RoleName] = {}
    tokens: dict[str, Token] = {}
    access: Access = Access()
    quotas: dict[str, Quota] = {}
    audit: Audit = msgspec.field(default_factory=Audit)
    http: Http = Http()
    history: History = msgspec.field(default_factory=History)
    alerts: Alerts = msgspec.field(default_factory=Alerts)
    events: EventRetention = msgspec.field(default_factory=EventRetention)
    engine_metrics: EngineMetrics = msgspec.field(default_factory=EngineMetrics)
    logging: Logging = Logging()
