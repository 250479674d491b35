"""Pure: what [models.NAME] and [profiles.NAME] may say, beyond what types alone can tell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from gpud.listening import NAME_PATTERN, check_absolute, require
from gpud.settings import CACHE_TYPES, Config, ModelEntry, Options

ENGINES = ("llama_cpp", "vllm", "command")
KINDS = ("", "chat", "completion", "embedding", "rerank")
# What runs a program of somebody's choice, or with flags of somebody's choice, or lets every user
# of this host call methods of a server.
POWERFUL_KEYS = ("extra_args", "argv", "environment", "sleep_mode")
_OF_COMMANDS = ("argv", "environment", "health", "metrics", "counters", "served_name")
_BYTES_OF_COMMANDS = ("device_bytes", "host_bytes")

MOST_LABELS = 64
MOST_LABEL_KEY, MOST_LABEL = 63, 255

# Below it a model would be gone before its next request.
MIN_IDLE_SECONDS = 1.0


def check_models(config: Config) -> None:
    """Raise ConfigInvalid for an entry, a profile or a root that cannot be."""
    for name, profile in config.profiles.items():
        _check_name("profiles", name)
        _check_options(f"profiles.{name}", profile)
    for name, entry in config.models.entries.items():
        _check_entry(f"models.{name}", entry)
        _check_life(f"models.{name}", entry)
    models = config.models
    for root in models.roots:
        check_absolute("models.roots", root)
    if models.download_dir:
        check_absolute("models.download_dir", models.download_dir)
    require(models.max_download_bytes > 0, "models.max_download_bytes", "is not above 0")
    stall = models.download_stall
    require(0.1 <= stall <= 3600, "models.download_stall", f"{stall:g} s is not within 100ms … 1h")


def _check_life(key: str, entry: ModelEntry) -> None:
    require(
        entry.idle_ttl is None or entry.idle_ttl >= MIN_IDLE_SECONDS,
        f"{key}.idle_ttl",
        f"{entry.idle_ttl or 0:g} s is below {MIN_IDLE_SECONDS:g} s; leave it out for never",
    )
    require(
        entry.preload or not entry.preload_devices,
        f"{key}.preload_devices",
        "says where to load what is not loaded at the start; add preload = true",
    )


def check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ConfigInvalid for what is none of the choices; an empty one is not shown."""
    shown = ", ".join(choice for choice in choices if choice)
    require(value in choices, key, f"{value!r} is none of {shown}")


def powerful(tree: Mapping[str, Any]) -> Iterator[str]:
    """The keys of a file's text that only root or gpud's own user may have written."""
    for table in ("models", "profiles"):
        entries = tree.get(table)
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            if isinstance(entry, dict):
                yield from (f"{table}.{name}.{key}" for key in POWERFUL_KEYS if key in entry)
    alerts = tree.get("alerts")
    sinks = alerts.get("sinks") if isinstance(alerts, dict) else None
    for name, sink in sinks.items() if isinstance(sinks, dict) else ():
        if isinstance(sink, dict) and "command" in sink:
            yield f"alerts.sinks.{name}.command"


def _check_name(table: str, name: str) -> None:
    require(
        re.fullmatch(NAME_PATTERN, name) is not None,
        f"{table}.{name}",
        "a name is made of lower-case letters, digits, '.', '_' and '-'",
    )


def _check_entry(key: str, entry: ModelEntry) -> None:
    check_choice(f"{key}.engine", entry.engine, ENGINES)
    check_choice(f"{key}.kind", entry.kind, KINDS)
    _check_options(key, entry)
    if entry.api_key_file:
        check_absolute(f"{key}.api_key_file", entry.api_key_file)
    _check_labels(f"{key}.labels", entry.labels)
    if entry.engine == "command":
        require(bool(entry.argv), f"{key}.argv", "is missing: the program and its arguments")
        require(not entry.profile, f"{key}.profile", "a command has no options; write its argv")
        return
    said = bool(entry.path or entry.url or entry.hub)
    require(said, f"{key}.path", "is missing: where its files lie; or say a url, or a hub")
    for name in (*_OF_COMMANDS, *_BYTES_OF_COMMANDS):
        require(not getattr(entry, name), f"{key}.{name}", 'is of engine = "command" alone')


def _check_labels(key: str, labels: Mapping[str, str]) -> None:
    require(len(labels) <= MOST_LABELS, key, f"{len(labels)} of them, at most {MOST_LABELS}")
    for name, value in labels.items():
        is_text = f"{name}{value}".isprintable() and name and len(name) <= MOST_LABEL_KEY
        require(
            bool(is_text) and len(value) <= MOST_LABEL,
            key,
            f"{name[:80]!r} = {value[:80]!r} is no label: printable, up to {MOST_LABEL_KEY} and "
            f"{MOST_LABEL} characters",
        )


def _check_options(key: str, options: Options) -> None:
    check_choice(
        f"{key}.flash_attention", options.flash_attention or "auto", ("on", "off", "auto")
    )
    for name in ("cache_type_k", "cache_type_v"):
        check_choice(f"{key}.{name}", getattr(options, name) or "f16", CACHE_TYPES)
