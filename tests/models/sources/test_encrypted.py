"""Downloads over TLS: from whom the host trusts, and from nobody else."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpud.models.sources.jobs import JobStopped
from gpud.models.sources.refusals import DownloadFailed, DownloadRefused
from gpud.models.sources.transfer.download import download
from tests.access.paper import Office
from tests.models.sources.downloading import control, fetch, left, terms, wanted
from tests.models.sources.origin import WAIT_SECONDS, Origin, cut, held, serving, status

CONTENT = bytes(range(256)) * 4096


@pytest.fixture
def office(tmp_path: Path) -> Office:
    made = Office(tmp_path / "office")
    made.folder.mkdir()
    return made.serve(made.server("localhost"))


@pytest.fixture
def origin(office: Office) -> Iterator[Origin]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(office.path("certificate"), office.path("key"))
    with serving(Origin(CONTENT), tls) as made:
        yield made


@pytest.fixture
def _trusted(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(office.path("client_ca")))


@pytest.mark.usefixtures("_trusted")
def test_a_file_comes_over_tls_and_goes_on(origin: Origin, tmp_path: Path) -> None:
    origin.manners.append(cut(1000))
    fetch(origin, tmp_path / "x")
    assert left(tmp_path / "x") == ["tiny.gguf"]
    assert origin.requests[1]["range"] == "bytes=1000-"


def test_whom_the_host_does_not_trust_is_not_asked(origin: Origin, tmp_path: Path) -> None:
    with pytest.raises(DownloadRefused, match="a certificate that is not trusted"):
        fetch(origin, tmp_path / "x")
    assert origin.requests == []
    assert left(tmp_path / "x") == []


@pytest.mark.usefixtures("_trusted")
def test_it_is_not_led_to_what_is_not_encrypted(origin: Origin, tmp_path: Path) -> None:
    with serving(Origin(CONTENT)) as plain:
        origin.always = status(302, Location=plain.url)
        with pytest.raises(DownloadRefused, match="from https to"):
            fetch(origin, tmp_path / "x")
        assert plain.requests == []


@pytest.mark.usefixtures("_trusted")
def test_a_stall_and_a_stop_end_it_over_tls_too(origin: Origin, tmp_path: Path) -> None:
    origin.always = held(1000)
    with pytest.raises(DownloadFailed, match="less than 1024 bytes/s"):
        fetch(origin, tmp_path / "x", stall_seconds=2.0, attempts=1)
    origin.holding.clear()
    made, ended = control(), threading.Event()
    found: list[BaseException] = []

    def run() -> None:
        try:
            download(wanted(origin, tmp_path / "x"), terms(), made, lambda *_: None)
        except JobStopped as error:
            found.append(error)
        ended.set()

    threading.Thread(target=run, daemon=True).start()
    assert origin.holding.wait(WAIT_SECONDS)
    made.cancel()
    assert ended.wait(WAIT_SECONDS)
    assert len(found) == 1
