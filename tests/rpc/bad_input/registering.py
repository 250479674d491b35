"""RegisterModel and DeleteModel: what can be wrong in an entry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpud.v1 import models_pb2
from tests.rpc.bad_input import values
from tests.rpc.bad_input.method import Method
from tests.rpc.bad_input.values import WRONG_STATE, Values, invalid

SUM = "ab" * 32
URL = "https://example.com/a.gguf"
STRANGE_NAMES = (
    "Upper", "a b", "../x", "a/b", "-a", ".a", "a\u00fc", "a" * 64, "roots", "download_dir", "x;y",
)  # fmt: skip
STRANGE_URLS = (
    "http://example.com/a", "ftp://example.com/a", "file:///etc/passwd", "https://u:p@example.com/",
    "https://", "example.com", "https://example.com/a b", "https://example.com/\u00fc",
    "https://example.com:99999/", "https://example.com\\@evil/",
)  # fmt: skip
STRANGE_PATHS = ("../x.gguf", "a/../../x", "/etc/passwd", "a//b", "./a", "-x", "a\u00a0b" * 9)


def registering(options: Callable[[], Values]) -> dict[str, Method]:
    """Both methods by name; `options` are what can be wrong with those."""

    def name() -> Values:
        yield "empty", "", invalid("name")
        yield from values.text("name")
        for value in STRANGE_NAMES:
            yield value, value, invalid("name")
        yield "of the configuration", "ghost", WRONG_STATE

    def path() -> Values:
        yield from values.text("path", 4095)
        for value in STRANGE_PATHS:
            yield value, value, invalid("path")
        file_invalid = values.refused(values.Code.FAILED_PRECONDITION, "MODEL_FILE_INVALID")
        yield "nothing there", "nothing.gguf", file_invalid

    def mmproj() -> Values:
        yield from values.text("mmproj", 4095)
        for value in STRANGE_PATHS:
            yield value, value, invalid("mmproj")

    def words(field: str) -> Callable[[], Values]:
        return lambda: values.text(field)

    def file() -> Values:
        yield from values.text("file", 512)
        yield "of no hub", "a.gguf", invalid("file")

    return {
        "RegisterModel": Method(
            request=models_pb2.RegisterModelRequest,
            base={"name": "new", "path": "ghost.gguf"},
            fields={
                "request_id": values.request_id,
                "owner": words("owner"),
                "name": name,
                "engine": lambda: values.enum("engine", 3),
                "kind": lambda: values.enum("kind", 4),
                "options": options,
                "path": path,
                "url": lambda: values.text("url", 2048),
                "hub": words("hub"),
                "revision": words("revision"),
                "file": file,
                "sha256": lambda: ((v, v, invalid("sha256")) for v in ("x", "0" * 63, "-" * 64)),
                "mmproj": mmproj,
                "profile": words("profile"),
                "labels": values.labels,
            },
            free=frozenset({"validate_only"}),
            more=tuple(_whole()),
            harmless={"name": "\0"},
        ),
        "DeleteModel": Method(
            request=models_pb2.DeleteModelRequest,
            base={"name": "none"},
            fields={
                "request_id": values.request_id,
                "name": lambda: values.name("name", "models", "MODEL"),
                "owner": words("owner"),
            },
            free=frozenset({"validate_only", "keep_files"}),
            more=(("of the configuration", {"name": "ghost"}, WRONG_STATE),),
        ),
    }


def _whole() -> Values:
    """Requests that are wrong as they are."""

    def asked(**fields: Any) -> dict[str, Any]:
        return {"name": "new", **fields}

    yield "no source", asked(), invalid("path")
    yield "two sources", asked(path="a.gguf", url=URL, sha256=SUM), invalid("url")
    yield "path and hub", asked(path="a.gguf", hub="a/b", file="c"), invalid("hub")
    yield "a URL without a sum", asked(url=URL), invalid("sha256")
    yield "a hub with a sum", asked(hub="a/b", file="c", sha256=SUM), invalid("sha256")
    yield "a hub without a file", asked(hub="a/b"), invalid("file")
    yield "a revision of no hub", asked(path="a.gguf", revision="main"), invalid("revision")
    yield "a command", asked(path="a.gguf", engine=3), invalid("engine")
    yield "no such profile", asked(path="a.gguf", profile="nobody"), invalid("profile")
    for url in STRANGE_URLS:
        yield url, asked(url=url, sha256=SUM), invalid("url")
    for hub in ("a/b/c", "../b", "a/..", "-a/b", "a b/c", "a--b/c"):
        yield hub, asked(hub=hub, file="c"), invalid("hub")
    for revision in ("../x", "-x", "a b"):
        yield revision, asked(hub="a/b", file="c", revision=revision), invalid("revision")
    for file in ("../x", "/x", "a//b", "-x"):
        yield file, asked(hub="a/b", file=file), invalid("file")
