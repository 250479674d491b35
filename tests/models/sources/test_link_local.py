"""No model is fetched from an address of this link, where a cloud tells a machine its secrets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gpud.errors import OptionInvalid
from gpud.models.model import EngineKind, Model, ModelOptions
from gpud.models.sources.entry import Places, Said, with_source
from gpud.models.sources.refusals import DownloadRefused, SourceInvalid
from gpud.models.sources.rules import check_peer, check_redirect, check_url
from gpud.models.sources.transfer.download import download
from tests.models.sources.downloading import control, fetch, left, terms, wanted
from tests.models.sources.origin import Origin, serving, status

SUM = "ab" * 32
LINK_LOCAL = [
    "169.254.169.254", "169.254.0.1", "169.254.169.254.", "[fe80::1]", "[fe80::1%25eth0]",
    "[::ffff:169.254.169.254]", "[2002:a9fe:a9fe::]", "[64:ff9b::a9fe:a9fe]", "[fd00:ec2::254]",
    "[fd20:ce::254]", "100.100.100.200", "168.63.129.16", "metadata.google.internal",
    "METADATA.google.internal.",
]  # fmt: skip


@pytest.fixture
def origin() -> Iterator[Origin]:
    with serving(Origin(b"x" * 1000)) as made:
        yield made


@pytest.mark.parametrize("host", LINK_LOCAL)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_it_is_no_source_whatever_the_configuration_allows(scheme: str, host: str) -> None:
    url = f"{scheme}://{host}/latest/model.gguf"
    with pytest.raises(SourceInvalid, match="metadata"):
        check_url(url, allow_http=True)
    with pytest.raises(SourceInvalid, match="metadata"):
        check_redirect("https://example.com/a", url, allow_http=True)
    model = Model(id="m", engine=EngineKind.LLAMA_CPP, kind=None, path="", options=ModelOptions())
    places = Places(download_dir=Path("/d"), allow_http=True)
    for owner in ("", "anna"):
        with pytest.raises(OptionInvalid, match="metadata") as refused:
            with_source(replace(model, owner=owner), Said(url=url, sha256=SUM), places)
        assert refused.value.field == "url"


@pytest.mark.parametrize(
    "host", ["169.253.1.1", "192.168.0.7", "10.0.0.1", "[fd00::7]", "100.100.100.201", "a.b"]
)
def test_private_addresses_are_taken_as_before(host: str) -> None:
    url = f"http://{host}/a"
    assert check_url(url, allow_http=True) == url
    if host != "a.b":
        check_peer("mirror", host.strip("[]"))


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "fe80::1%eth0", "::ffff:169.254.1.1", "fd00:ec2::254"]
)
def test_a_name_that_leads_there_is_not_asked(address: str) -> None:
    with pytest.raises(SourceInvalid, match="metadata"):
        check_peer("mirror.example.com", address)


def test_a_redirect_there_is_not_followed(origin: Origin, tmp_path: Path) -> None:
    origin.always = status(302, Location="http://169.254.169.254/latest/meta-data/")
    with pytest.raises(DownloadRefused, match="metadata"):
        fetch(origin, tmp_path, allow_http=True)
    assert len(origin.requests) == 1
    assert left(tmp_path) == []


def test_where_a_name_has_led_is_looked_at_before_anything_is_asked(
    origin: Origin, tmp_path: Path
) -> None:
    # This host by a form that no rule knows; only the connection shows what it means.
    url = origin.url.replace("127.0.0.1", "2130706433")
    assert urlsplit(url).hostname == "2130706433"
    asked = wanted(origin, tmp_path, url=url)
    with pytest.raises(DownloadRefused, match="leads to this host itself"):
        download(asked, terms(allow_http=True), control(), lambda *_: None)
    assert origin.requests == []
