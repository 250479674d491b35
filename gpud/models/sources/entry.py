"""Pure: where an entry says that its files are, whoever writes the entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import msgspec

from gpud.errors import OptionInvalid
from gpud.models.model import EngineKind, HttpSource, HubSource, Model, ModelOptions, Source
from gpud.models.sources.refusals import SourceInvalid
from gpud.models.sources.rules import (
    check_file,
    check_repository,
    check_revision,
    check_sha256,
    check_url,
    place_of,
)

T = TypeVar("T")


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What is written in an entry, and in a request to register one; empty: nothing."""

    path: str = ""
    url: str = ""
    sha256: str = ""
    hub: str = ""
    revision: str = ""
    file: str = ""
    mmproj: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """What of the configuration entries refer to.

    Where downloads come to lie, whether they may come in the clear, and the profiles by name.
    """

    download_dir: Path
    allow_http: bool = False
    profiles: Mapping[str, ModelOptions] = field(default_factory=dict)


def with_source(model: Model, said: Said, places: Places) -> Model:
    """The entry with its path, its source and its sum as they were said.

    Raises OptionInvalid naming the field.
    """
    given = [name for name in ("path", "url", "hub") if getattr(said, name)]
    is_command = model.engine is EngineKind.COMMAND
    if len(given) != 1 and not (is_command and not given):
        found = " and ".join(given) or "none of them"
        raise OptionInvalid(
            field=given[1] if len(given) > 1 else "path",
            problem=f"say where the files are by one of path, url and hub, not by {found}",
        )
    # A server of this host may trust whoever reaches it: only the configuration names one.
    is_configured = not model.owner
    source = _source(model.engine, said, _Http(places.allow_http, here=is_configured))
    sha256 = _checked("sha256", lambda: check_sha256(said.sha256)) if said.sha256 else ""
    path = said.path if source is None else str(places.download_dir / place_of(source))
    return replace(model, path=path, source=source, sha256=sha256, mmproj=said.mmproj)


@dataclass(frozen=True, slots=True)
class _Http:
    """Whether what is not encrypted is taken: from anywhere, from this host."""

    anywhere: bool
    here: bool

    def check(self, url: str) -> str:
        """The URL. Raises SourceInvalid."""
        return check_url(url, allow_http=self.anywhere, http_here=self.here)


def _source(engine: EngineKind, said: Said, http: _Http) -> Source | None:
    for name in ("revision", "file"):
        if getattr(said, name) and not said.hub:
            raise OptionInvalid(field=name, problem="is of a hub's repository; name that as hub")
    if said.url:
        if engine is EngineKind.VLLM:
            raise OptionInvalid(
                field="url", problem="is one file, and vLLM serves a folder: use hub or path"
            )
        if not said.sha256:
            raise OptionInvalid(
                field="sha256", problem="is missing: what comes from a url is known by it alone"
            )
        return HttpSource(
            url=_checked("url", lambda: http.check(said.url)),
            sha256=_checked("sha256", lambda: check_sha256(said.sha256)),
        )
    if not said.hub:
        return None
    if said.sha256:
        raise OptionInvalid(field="sha256", problem="is told by the hub itself; leave it out")
    if not said.file and engine is EngineKind.LLAMA_CPP:
        raise OptionInvalid(
            field="file", problem="is missing: name the GGUF file of the repository to serve"
        )
    return HubSource(
        repository=_checked("hub", lambda: check_repository(said.hub)),
        revision=_checked("revision", lambda: check_revision(said.revision or "main")),
        file=_checked("file", lambda: check_file(said.file)) if said.file else "",
    )


def _checked(field: str, check: Callable[[], T]) -> T:
    try:
        return check()
    except SourceInvalid as error:
        raise OptionInvalid(field=field, problem=str(error)) from error
