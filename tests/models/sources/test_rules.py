"""What a source may be written as, and what is told of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gpud.errors import OptionInvalid
from gpud.models.model import EngineKind, HttpSource, HubSource, Model, ModelOptions
from gpud.models.sources.entry import Places, Said, with_source
from gpud.models.sources.refusals import SourceInvalid
from gpud.models.sources.rules import (
    check_file,
    check_redirect,
    check_repository,
    check_revision,
    check_sha256,
    check_url,
    place_of,
    same_place,
    shown_url,
    words_of,
)

SUM = "ab" * 32
PLACES = Places(download_dir=Path("/d"), profiles={"small": ModelOptions(parallel=1)})


@pytest.mark.parametrize(
    "url",
    ["https://example.com/a.gguf", "https://example.com:8443/a?x=1#f", "http://127.0.0.1:9/a",
     "http://[::1]/a", "http://localhost/a", "http://localhost./a", "https://192.168.0.7/a"],
)  # fmt: skip
def test_urls_that_are_taken(url: str) -> None:
    assert check_url(url, allow_http=False) == url


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://example.com/a", "not encrypted"),
        ("http://127.0.0.1.example.com/a", "not encrypted"),
        ("http://10.0.0.1/a", "not encrypted"),
        ("https://user:word@example.com/a", "a user"),
        ("https://user@example.com/a", "a user"),
        ("https://example.com\\@evil/a", "a user"),
        ("ftp://example.com/a", "of the form"),
        ("file:///etc/passwd", "of the form"),
        ("https:///a", "of the form"),
        ("https://example.com:0/a", "of the form"),
        ("https://example.com:70000/a", "not a URL"),
        ("https://[::1/a", "not a URL"),
        ("https://example.com/a b", "printable ASCII"),
        ("https://example.com/ü", "printable ASCII"),
        ("https://example.com/a\r\nX: y", "printable ASCII"),
        ("", "printable ASCII"),
        ("https://example.com/" + "a" * 2048, "printable ASCII"),
        ("/etc/passwd", "of the form"),
    ],
)
def test_urls_that_are_not_taken(url: str, problem: str) -> None:
    with pytest.raises(SourceInvalid, match=problem):
        check_url(url, allow_http=False)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:9551/metrics", "http://localhost./a", "http://[::ffff:127.0.0.1]/a",
     "http://0.0.0.0/a", "http://[::]/a", "http://[::ffff:0.0.0.0]/a"],
)  # fmt: skip
def test_a_server_of_this_host_stands_in_the_configuration_alone(url: str) -> None:
    assert check_url(url, allow_http=False) == url
    with pytest.raises(SourceInvalid, match="of this host itself"):
        check_url(url, allow_http=False, http_here=False)
    assert check_url(url, allow_http=True, http_here=False) == url
    said = Said(url=url, sha256=SUM)
    model = Model(id="m", engine=EngineKind.LLAMA_CPP, kind=None, path="", options=ModelOptions())
    assert with_source(model, said, PLACES).source == HttpSource(url=url, sha256=SUM)
    with pytest.raises(OptionInvalid, match="of this host itself"):
        with_source(replace(model, owner="anna"), said, PLACES)


def test_the_configuration_may_allow_what_is_not_encrypted() -> None:
    assert check_url("http://mirror/a", allow_http=True) == "http://mirror/a"


@pytest.mark.parametrize(
    ("before", "location", "after"),
    [
        ("https://a/x", "/y", "https://a/y"),
        ("https://a/x/", "y?z", "https://a/x/y?z"),
        ("https://a/x", "https://b/y", "https://b/y"),
        ("http://127.0.0.1/x", "http://127.0.0.1:9/y", "http://127.0.0.1:9/y"),
        ("http://127.0.0.1/x", "https://b/y", "https://b/y"),
    ],
)
def test_redirects(before: str, location: str, after: str) -> None:
    assert check_redirect(before, location, allow_http=False) == after


@pytest.mark.parametrize(
    ("before", "location"),
    [
        ("https://a/x", "http://a/x"),
        ("https://a/x", "http://127.0.0.1/x"),
        ("https://a/x", "https://127.0.0.1/x"),
        ("https://a/x", "https://localhost/x"),
        ("https://a/x", "https://0.0.0.0/x"),
        ("https://a/x", "https://localhost./x"),
        ("https://a/x", "https://[::ffff:127.0.0.1]/x"),
        ("http://a/x", "http://[::ffff:7f00:1]:9551/x"),
        ("http://a/x", "http://[::ffff:0.0.0.0]/x"),
        ("https://a/x", "https://u:p@b/x"),
        ("https://a/x", "file:///etc/passwd"),
    ],
)
def test_redirects_that_lead_astray(before: str, location: str) -> None:
    with pytest.raises(SourceInvalid):
        check_redirect(before, location, allow_http=True)


def test_what_is_told_of_a_url_holds_no_secret() -> None:
    assert shown_url("https://u:p@a.b:9/x/y?sig=1#z") == "https://a.b:9/x/y?…"
    assert shown_url("https://a/x") == "https://a/x"
    assert same_place("https://a/x", "https://a/y?z")
    assert not same_place("https://a/x", "https://a:8443/x")
    assert not same_place("https://a/x", "http://a/x")


@pytest.mark.parametrize("text", ["", "ab", SUM[:-1], SUM + "0", "g" * 64, " " + SUM])
def test_sums_that_are_none(text: str) -> None:
    with pytest.raises(SourceInvalid, match="64 hexadecimal digits"):
        check_sha256(text)


def test_a_sum_counts_in_either_case() -> None:
    assert check_sha256(SUM.upper()) == SUM


def test_repositories_and_revisions() -> None:
    for name in ("org/name", "name", "o.r_g/na-me.2"):
        assert check_repository(name) == name
    for name in ("main", "v1.0", "refs/pr/1", "c0ffee"):
        assert check_revision(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "a/b/c", "../b", "a/..", "a--b/c", "-a/b", "a/b?x", "a/ü", "a b/c", "a/" + "b" * 97],
)
def test_repositories_that_are_none(name: str) -> None:
    with pytest.raises(SourceInvalid, match="write owner/name"):
        check_repository(name)


@pytest.mark.parametrize("name", ["", "../x", "-x", "a b", "a\n", "x" * 129])
def test_revisions_that_are_none(name: str) -> None:
    with pytest.raises(SourceInvalid, match="not a branch"):
        check_revision(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/..", "a/./b", "/a", "a/", "a//b", "-x", "a\nb", "a\0b", "a" * 600],
)
def test_file_names_that_are_none(name: str) -> None:
    with pytest.raises(SourceInvalid):
        check_file(name)


def entry(engine: EngineKind = EngineKind.LLAMA_CPP, **said: str) -> Model:
    bare = Model(id="m", engine=engine, kind=None, path="", options=ModelOptions())
    return with_source(bare, Said(**said), PLACES)


def test_where_each_source_comes_to_lie() -> None:
    assert entry(path="a/b.gguf", sha256=SUM.upper()).sha256 == SUM
    fetched = entry(url="https://a/b?c", sha256=SUM.upper())
    assert fetched.source == HttpSource(url="https://a/b?c", sha256=SUM)
    assert fetched.path == f"/d/sha256-{SUM}.gguf"
    of_hub = entry(hub="org/Tiny", file="q/8.gguf", mmproj="eye.gguf")
    assert of_hub.source == HubSource(repository="org/Tiny", revision="main", file="q/8.gguf")
    assert of_hub.path.startswith("/d/hub/tiny-")
    assert of_hub.path.endswith("/q/8.gguf")
    assert of_hub.mmproj == "eye.gguf"
    folder = entry(EngineKind.VLLM, hub="org/tiny", revision="v1")
    assert folder.source is not None
    assert folder.path == f"/d/{place_of(folder.source)}"
    assert words_of(folder.source) == "hub:org/tiny@v1"
    assert entry(EngineKind.COMMAND).path == ""


def test_each_repository_revision_and_file_has_a_folder_of_its_own() -> None:
    sources = [
        HubSource(repository=repository, revision=revision, file=file)
        for repository in ("a/x", "b/x") for revision in ("main", "v1") for file in ("", "f")
    ]  # fmt: skip
    assert len({place_of(each) for each in sources}) == len(sources)


@pytest.mark.parametrize(
    ("field", "engine", "said"),
    [
        ("path", EngineKind.LLAMA_CPP, {}),
        ("url", EngineKind.LLAMA_CPP, {"path": "a", "url": "https://a"}),
        ("hub", EngineKind.LLAMA_CPP, {"path": "a", "hub": "a/b"}),
        ("sha256", EngineKind.LLAMA_CPP, {"url": "https://a"}),
        ("sha256", EngineKind.LLAMA_CPP, {"url": "https://a", "sha256": "x"}),
        ("sha256", EngineKind.LLAMA_CPP, {"path": "a", "sha256": "x"}),
        ("sha256", EngineKind.LLAMA_CPP, {"hub": "a/b", "file": "x", "sha256": SUM}),
        ("url", EngineKind.LLAMA_CPP, {"url": "http://a", "sha256": SUM}),
        ("url", EngineKind.VLLM, {"url": "https://a", "sha256": SUM}),
        ("file", EngineKind.LLAMA_CPP, {"hub": "a/b"}),
        ("file", EngineKind.LLAMA_CPP, {"path": "a", "file": "b"}),
        ("revision", EngineKind.LLAMA_CPP, {"path": "a", "revision": "b"}),
        ("hub", EngineKind.VLLM, {"hub": "a b"}),
        ("revision", EngineKind.VLLM, {"hub": "a/b", "revision": "-x"}),
        ("file", EngineKind.LLAMA_CPP, {"hub": "a/b", "file": "../x"}),
    ],
)
def test_entries_that_cannot_be(field: str, engine: EngineKind, said: dict[str, str]) -> None:
    with pytest.raises(OptionInvalid) as caught:
        entry(engine, **said)
    assert caught.value.field == field
