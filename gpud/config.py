"""The configuration: TOML file, its conf.d/, then GPUD_SECTION__KEY; frozen once read."""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import msgspec

from gpud.errors import ConfigInvalid
from gpud.listening import NAME_PATTERN, check_absolute, check_listening, require
from gpud.model_entries import check_choice, check_models, powerful
from gpud.seeing_settings import check_seeing
from gpud.settings import (
    MODELS_KEYS,
    AlertRule,
    AlertSink,
    Config,
    Limits,
    LlamaCpp,
    ModelEntry,
    Profile,
    Quota,
    RoleName,
    RoleSocket,
    Section,
    SimulatedCards,
    Size,
    Span,
    StandingReservation,
    Token,
)
from gpud.units import parse_size, parse_span

# tomllib needs 16 times a hostile file's size in memory and more (FACTS: a 16 KB dotted key took
# 258 MiB), so the file stays small and is only ever the administrator's.
MAX_FILE_BYTES = 64 * 1024
MIN_AUDIT_BYTES = 64 * 1024
MIN_MEMORY_BYTES = 16 * 1024 * 1024

_S = TypeVar("_S", bound=Section)

# Spans of [policy] and their bounds, in seconds.
_SPANS = (
    ("release_deadline", 0.1, 3600.0),
    ("queue_ageing", 1.0, 86400.0),
    ("overtaking_bound", 0.0, 86400.0),
    ("preemption_grace", 0.0, 3600.0),
    ("preemption_min_tenure", 0.0, 86400.0),
    ("band_hold", 0.0, 3600.0),
)
# Those of [health].
_HEALTH_SPANS = (
    ("watch", 0.01, 3600.0),
    ("health", 0.01, 3600.0),
    ("probe", 0.0, 86400.0),
    ("stuck", 0.1, 86400.0),
    ("backoff_first", 0.0, 3600.0),
    ("backoff_most", 0.0, 86400.0),
    ("breaker_window", 1.0, 7 * 86400.0),
    ("healthy_spell", 1.0, 7 * 86400.0),
)
# Tables of what has a name of its own.
_TABLES: dict[str, Any] = {
    "models": ModelEntry,
    "reservations": StandingReservation,
    "profiles": Profile,
    "quotas": Quota,
    "sockets": RoleSocket,
    "tokens": Token,
    "identities": RoleName,
    "alerts.rules": AlertRule,
    "alerts.sinks": AlertSink,
}
# Where an unknown key may stand, as msgspec tells it.
_SECTIONS: dict[str, Any] = {
    **{field.name: field.type for field in msgspec.structs.fields(Config)},
    "devices.simulated[...]": SimulatedCards,
    "engines.llama_cpp": LlamaCpp,
    "limits.default": Limits,
    "models[...].limits": Limits,
    **{f"{table}[...]": kind for table, kind in _TABLES.items() if kind is not RoleName},
}
_NO_SOCKET = (
    r"[sockets] has no \1; there are [sockets.operator] and [sockets.viewer], and server.socket "
    "is that of admins"
)
# A pattern of a value, in words.
_PATTERNS = {"^[0-9a-f]{64}$": "64 lower-case hexadecimal digits"}


def default_socket(environment: Mapping[str, str] | None = None) -> str:
    """Where gpud listens, and gpuctl calls, when nobody says otherwise."""
    env = os.environ if environment is None else environment
    if os.geteuid() == 0 or not env.get("XDG_RUNTIME_DIR"):
        return "/run/gpud/gpud.sock"
    return f"{env['XDG_RUNTIME_DIR']}/gpud/gpud.sock"


def load(path: Path | None, environment: Mapping[str, str]) -> Config:
    """The configuration of `path`, its conf.d/ and the environment, checked whole.

    Raises ConfigInvalid with one line that names the key and the fix.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        tree = _read(path)
        for part in sorted((path.parent / "conf.d").glob("*.toml")):
            tree = _merged(tree, _read(part))
    tree = _merged(tree, _from_environment(environment))
    config = _converted(_with_entries(tree))
    _check(config)
    return config if path is None else _anchored(config, path)


def _anchored(config: Config, path: Path) -> Config:
    """Relative files are beside the file, wherever gpud happens to be started."""

    def anchored(section: _S, *keys: str) -> _S:
        named = {key: getattr(section, key) for key in keys}
        beside = {key: str(folder / name) for key, name in named.items() if name}
        return msgspec.structs.replace(section, **beside)

    folder = path.absolute().parent
    return msgspec.structs.replace(
        config,
        devices=anchored(config.devices, "scenario"),
        tls=anchored(config.tls, "certificate", "key", "client_ca"),
        access=anchored(config.access, "denied"),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigInvalid(
            f"cannot read {path}: {(error.strerror or str(error)).lower()}; "
            "name another file with --config"
        ) from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigInvalid(
            f"cannot use {path}: larger than {MAX_FILE_BYTES} bytes; split it into conf.d/"
        )
    try:
        tree = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigInvalid(f"cannot read {path} as TOML: {error}") from error
    _check_author(path, status, tree)
    return tree


def _check_author(path: Path, status: os.stat_result, tree: Mapping[str, Any]) -> None:
    """What is executed with gpud's rights is taken from a file that nobody else may write."""
    key = next(powerful(tree), None)
    if key is None:
        return
    problem = ""
    if status.st_uid not in {0, os.geteuid()}:
        problem = "it belongs to another user: chown root it"
    elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        problem = "others may write to it: chmod go-w it"
    if problem:
        raise ConfigInvalid(f"cannot take {key} from {path}: {problem}")


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        both_tables = isinstance(old, dict) and isinstance(value, dict)
        result[key] = _merged(old, value) if both_tables else value  # type: ignore[arg-type]
    return result


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """Only names with a double underscore: GPUD_SAMPLING__INTERVAL, not GPUD_RESERVATION."""
    tree: dict[str, Any] = {}
    for name, text in sorted(environment.items()):
        if not name.startswith("GPUD_") or "__" not in name:
            continue
        keys = name.removeprefix("GPUD_").lower().split("__")
        value: Any = _scalar(text)
        for key in reversed(keys):
            value = {key: value}
        tree = _merged(tree, value)
    return tree


def _scalar(text: str) -> Any:
    if text in {"true", "false"}:
        return text == "true"
    return int(text) if re.fullmatch(r"[0-9]+", text) else text


def _with_entries(tree: dict[str, Any]) -> dict[str, Any]:
    """[models] holds its own keys beside one table per model; apart each is checked strictly."""
    models = tree.get("models")
    if not isinstance(models, dict):
        return tree
    entries = {name: entry for name, entry in models.items() if name not in MODELS_KEYS}
    for name, entry in entries.items():
        if not isinstance(entry, dict):
            raise ConfigInvalid(
                f"cannot use the configuration: models.{name} is not a table; "
                "model entries are written [models.NAME], and the only other keys are "
                f"{', '.join(f'`{key}`' for key in sorted(MODELS_KEYS))}"
            )
        if not re.fullmatch(NAME_PATTERN, name):
            raise ConfigInvalid(
                f"cannot use the configuration: models.{name}: a model's name is made of "
                "lower-case letters, digits, '.', '_' and '-'"
            )
    own = {name: value for name, value in models.items() if name in MODELS_KEYS}
    return {**tree, "models": {**own, "entries": entries}}


def _decode(kind: type, value: Any) -> Any:
    if kind is Size and isinstance(value, (str, int)) and not isinstance(value, bool):
        return Size(parse_size(value) if isinstance(value, str) else value)
    if kind is Span and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return Span(parse_span(value) if isinstance(value, str) else value)
    raise ValueError(f"{value!r} is not a {kind.__name__.lower()}")


def _converted(tree: dict[str, Any]) -> Config:
    try:
        return msgspec.convert(tree, Config, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise ConfigInvalid(f"cannot use the configuration: {_told(tree, str(error))}") from error


def _told(tree: dict[str, Any], text: str) -> str:
    """What msgspec says of a value, with the key that it stands under and what may stand there."""
    text = re.sub(r"^Invalid enum value ('.*') - at `key` in `\$\.sockets`$", _NO_SOCKET, text)
    text = text.replace("$.models.entries[...]", "$.models[...]")
    table = re.search(r"`\$\.([a-z.]+)\[\.\.\.\]", text)
    place = re.search(r"at `\$\.?([^`]*)`", text)
    advice = _advice(text, place[1] if place else "")
    if table is not None and table[1] in _TABLES:
        name = toml_key(_first_bad(tree, table[1]))
        text = text.replace(f"{table[1]}[...]", f"{table[1]}.{name}", 1)
    text = text.replace("`$.", "`").replace("`$[", "`[")
    text = text.replace("Object missing", "it lacks the").replace("Object ", "it ")
    for pattern, words in _PATTERNS.items():
        text = text.replace(f"`str` matching regex {pattern!r}", words)
    return f"{text}{advice}"


def _first_bad(tree: dict[str, Any], table: str) -> str:
    """The name of the first entry of a table of tables that is none of its kind."""
    path = ("models", "entries") if table == "models" else table.split(".")
    entries: Any = tree
    for key in path:
        entries = entries[key]
    for name, entry in entries.items():
        try:
            msgspec.convert(entry, _TABLES[table], dec_hook=_decode)
        except msgspec.ValidationError:
            return str(name)
    return "NAME"


def _advice(text: str, place: str) -> str:
    """What may stand in a place (as `tokens[...].role`): the choices, or the keys."""
    if "matching regex" in text and place.startswith("tokens[...]"):
        return "; `gpud token create` prints it"
    if text.startswith("Invalid enum value"):
        section, _, key = place.rpartition(".")
        fields = {each.name: each.type for each in msgspec.structs.fields(_section(section))}
        kind = RoleName if place == "identities[...]" else fields.get(key)
        choices = ", ".join(map(str, get_args(kind)))
        return f"; write one of {choices}" if choices else ""
    match = re.search(r"unknown field `([^`]*)`", text)
    if match is None:
        return ""
    known = sorted(_section(place).__struct_fields__)
    # A key that was cut short is nearer than one that only looks alike.
    near = [each for each in known if each.startswith(f"{match[1]}_")]
    near = near or difflib.get_close_matches(match[1], known, n=1, cutoff=0.6)
    return f"; did you mean `{near[0]}`?" if near else f"; known keys: {', '.join(known)}"


def _section(place: str) -> type[msgspec.Struct]:
    """Which table of the file a place is."""
    found = _SECTIONS.get(re.sub(r"\[[0-9]+\]", "[...]", place), Config)
    return found if isinstance(found, type) and issubclass(found, msgspec.Struct) else Config


def _check(config: Config) -> None:
    """What types alone cannot say."""
    _check_sampling(config)
    check_listening(config, config.server.socket or default_socket())
    check_models(config)
    check_absolute("node.state_dir", config.node.state_dir)
    check_choice("logging.format", config.logging.format, ("auto", "json", "console"))
    check_choice("logging.level", config.logging.level, ("debug", "info", "warning", "error"))
    _check_policy(config)
    _check_health(config)
    _check_limits(config)
    for name, standing in config.reservations.items():
        _check_standing(name, standing)
    _check_quotas(config)
    _check_audit(config)
    check_seeing(config)


def _check_policy(config: Config) -> None:
    policy = config.policy
    for key in ("device_reserve", "reserve_system_memory"):
        require(getattr(policy, key) >= 0, f"policy.{key}", "is below 0")
    for key, low, high in _SPANS:
        seconds = getattr(policy, key)
        require(
            low <= seconds <= high,
            f"policy.{key}",
            f"{seconds:g} s is not within {low:g} … {high:g} s",
        )
    for kind, unit in (("pressure", "percent"), ("thermal", "celsius")):
        key, levels = f"{kind}_{unit}", getattr(policy, f"{kind}_{unit}")
        require(
            levels[0] < levels[1] < levels[2], f"policy.{key}", f"{list(levels)} does not rise"
        )
        hysteresis = getattr(policy, f"{kind}_hysteresis_{unit}")
        require(
            hysteresis < levels[0],
            f"policy.{kind}_hysteresis_{unit}",
            f"{hysteresis:g} is not below the first of policy.{key}, {levels[0]:g}: "
            "its lowest band would never be entered again",
        )
    require(
        policy.strict_allocation,
        "policy.strict_allocation",
        "false would promise memory that is not there; only true is offered",
    )


def _check_health(config: Config) -> None:
    health = config.health
    for key, low, high in _HEALTH_SPANS:
        seconds = getattr(health, key)
        require(
            low <= seconds <= high,
            f"health.{key}",
            f"{seconds:g} s is not within {low:g} … {high:g} s",
        )
    require(
        health.backoff_first <= health.backoff_most,
        "health.backoff_first",
        f"{health.backoff_first:g} s is above health.backoff_most, {health.backoff_most:g} s",
    )


def _check_limits(config: Config) -> None:
    said = {"limits.default": config.limits.default}
    said |= {
        f"models.{name}.limits": entry.limits
        for name, entry in config.models.entries.items()
        if entry.limits is not None
    }
    for key, limits in said.items():
        memory = limits.memory
        require(
            memory is None or memory >= MIN_MEMORY_BYTES,
            f"{key}.memory",
            f"{memory} bytes are too few for any engine; give it 16MiB at least",
        )


def _check_standing(name: str, standing: StandingReservation) -> None:
    key = f"reservations.{name}"
    require(
        re.fullmatch(NAME_PATTERN, name) is not None,
        key,
        "a reservation's name is made of lower-case letters, digits, '.', '_' and '-'",
    )
    require(bool(standing.owner), f"{key}.owner", "is empty; say whose it is")
    require(standing.bytes > 0, f"{key}.bytes", "is not above 0; it is per device")
    require(standing.host_bytes >= 0, f"{key}.host_bytes", "is below 0")
    require(bool(standing.devices), f"{key}.devices", 'names none; write for example ["gpu0"]')
    twice = len(set(standing.devices)) < len(standing.devices)
    require(not twice, f"{key}.devices", "names a device twice")


def _check_quotas(config: Config) -> None:
    for owner, quota in config.quotas.items():
        key = f"quotas.{toml_key(owner)}"
        require(bool(owner), key, "names no owner; write [quotas.default] for all the others")
        for name in ("gpu_bytes", "host_bytes"):
            require(getattr(quota, name) >= 0, f"{key}.{name}", "is below 0; 0 is no limit")
        rate = quota.calls_per_second
        require(math.isfinite(rate), f"{key}.calls_per_second", "is no number; 0 is no limit")


def _check_audit(config: Config) -> None:
    audit = config.audit
    if audit.path:
        check_absolute("audit.path", audit.path)
    require(
        audit.max_bytes >= MIN_AUDIT_BYTES,
        "audit.max_bytes",
        f"{audit.max_bytes} bytes are too few for a file of it; give it 64KiB at least",
    )


def toml_key(name: str) -> str:
    """A name as a part of a dotted key: quoted where it has to be."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def _check_sampling(config: Config) -> None:
    interval = config.sampling.interval
    require(
        0.01 <= interval <= 10, "sampling.interval", f"{interval:g} s is not within 10ms … 10s"
    )
    stalls = {
        "engines.llama_cpp.load_stall": config.engines.llama_cpp.load_stall,
        "engines.vllm.load_stall": config.engines.vllm.load_stall,
    }
    for key, stall in stalls.items():
        require(0.1 <= stall <= 86400, key, f"{stall:g} s is not within 100ms … 1d")
    # What a load may take is in flags that follow; one that stands before them would count less.
    require(
        config.engines.vllm.command[-1] == "serve",
        "engines.vllm.command",
        "does not end with serve: flags belong to a model's options, or its extra_args",
    )


def schema() -> dict[str, Any]:
    """JSON schema of the file, for editors."""

    def hook(kind: type) -> dict[str, Any]:
        return {"type": ["string", "number"], "title": kind.__name__}

    return msgspec.json.schema(Config, schema_hook=hook)
