"""One file over HTTP: resumed only where that is safe, and never half under its own name."""

from __future__ import annotations

import fcntl
import os
import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gpud.models.sources.jobs import Control, JobStopped
from gpud.models.sources.refusals import (
    DigestMismatch,
    DiskInsufficient,
    DownloadFailed,
    DownloadRefused,
)
from gpud.models.sources.transfer.download import adopt, download
from gpud.models.sources.transfer.part import open_part, remove_part
from gpud.models.sources.transfer.resuming import Kept
from gpud.models.sources.transfer.room import Room
from gpud.units import MIB
from tests.models.sources.downloading import control, fetch, left, terms, wanted
from tests.models.sources.origin import (
    MODIFIED,
    WAIT_SECONDS,
    Exchange,
    Manner,
    Origin,
    cut,
    drip,
    endless,
    held,
    serving,
    status,
)

CONTENT = random.Random(7).randbytes(3 * MIB + 17)
HALF = len(CONTENT) // 2


@pytest.fixture
def origin() -> Iterator[Origin]:
    with serving(Origin(CONTENT)) as made:
        yield made


def whole(folder: Path) -> bool:
    return left(folder) == ["tiny.gguf"] and (folder / "tiny.gguf").read_bytes() == CONTENT


def ranges(origin: Origin) -> list[str]:
    return [each.get("range", "") for each in origin.requests]


def begun(origin: Origin, folder: Path) -> None:
    """Half of it lies there, of a server that went away."""
    origin.manners.append(cut(HALF))
    with pytest.raises(DownloadFailed) as caught:
        fetch(origin, folder, attempts=1)
    assert caught.value.kept_bytes == HALF
    assert left(folder) == ["tiny.gguf.part", "tiny.gguf.part.json"]
    origin.requests.clear()


def test_a_file_comes_whole_and_is_known_by_its_sum(origin: Origin, tmp_path: Path) -> None:
    got = fetch(origin, tmp_path / "new" / "folder")
    assert whole(tmp_path / "new" / "folder")
    assert got.sha256 == origin.sha256
    assert got.status.st_ino == (tmp_path / "new" / "folder" / "tiny.gguf").stat().st_ino
    assert (got.status.st_mode & 0o777) == 0o600


def test_progress_is_told(origin: Origin, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    download(wanted(origin, tmp_path), terms(), control(), lambda *each: told.append(each))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert sorted(told) == told


# Resuming.


def test_what_was_cut_goes_on_where_it_was(origin: Origin, tmp_path: Path) -> None:
    begun(origin, tmp_path)
    fetch(origin, tmp_path)
    assert whole(tmp_path)
    assert ranges(origin) == [f"bytes={HALF}-"]
    assert origin.requests[0]["if-range"] == '"one"'


def test_it_goes_on_within_one_call_too(origin: Origin, tmp_path: Path) -> None:
    origin.manners += [cut(HALF), status(503)]
    fetch(origin, tmp_path)
    assert whole(tmp_path)
    assert ranges(origin) == ["", f"bytes={HALF}-", f"bytes={HALF}-"]


def test_a_date_is_a_validator_where_there_is_no_strong_tag(
    origin: Origin, tmp_path: Path
) -> None:
    def weak(each: Exchange) -> None:
        each.begin(200, Content_Length=len(CONTENT), ETag='W/"1"', Last_Modified=MODIFIED)
        each.wfile.write(CONTENT[:HALF])

    origin.etag = ""
    origin.manners.append(weak)
    fetch(origin, tmp_path)
    assert whole(tmp_path)
    assert origin.requests[1]["if-range"] == MODIFIED


def test_without_a_validator_it_begins_anew(origin: Origin, tmp_path: Path) -> None:
    def bare(each: Exchange) -> None:
        each.begin(200, Content_Length=len(CONTENT))
        each.wfile.write(CONTENT[:HALF])

    origin.manners.append(bare)
    fetch(origin, tmp_path)
    assert whole(tmp_path)
    assert ranges(origin) == ["", ""]


def mixed(content_range: str, length: int, **headers: object) -> Manner:
    """A 206 that is not the rest, with a body of another file."""

    def manner(each: Exchange) -> None:
        each.begin(206, Content_Range=content_range, Content_Length=length, **headers)
        each.wfile.write(b"x" * length)

    return manner


REST = len(CONTENT) - HALF
LAST = len(CONTENT) - 1
NOT_THE_REST = {
    "from another place": mixed(f"bytes 0-{LAST}/{LAST + 1}", LAST + 1, ETag='"one"'),
    "a byte too early": mixed(f"bytes {HALF - 1}-{LAST}/{LAST + 1}", REST + 1, ETag='"one"'),
    "only some of it": mixed(f"bytes {HALF}-{HALF + 9}/{LAST + 1}", 10, ETag='"one"'),
    "of a file of another size": mixed(f"bytes {HALF}-{HALF}/{HALF + 1}", 1, ETag='"one"'),
    "of an unknown size": mixed(f"bytes {HALF}-{LAST}/*", REST, ETag='"one"'),
    "without a range": mixed("", REST, ETag='"one"'),
    "in other units": mixed(f"lines {HALF}-{LAST}/{LAST + 1}", REST, ETag='"one"'),
    "with another tag": mixed(f"bytes {HALF}-{LAST}/{LAST + 1}", REST, ETag='"two"'),
    "with no tag": mixed(f"bytes {HALF}-{LAST}/{LAST + 1}", REST),
    "with a length of its own": mixed(f"bytes {HALF}-{LAST}/{LAST + 1}", 5, ETag='"one"'),
    "416": status(416),
}


@pytest.mark.parametrize("manner", NOT_THE_REST.values(), ids=NOT_THE_REST.keys())
def test_what_is_not_the_rest_is_not_put_to_it(
    origin: Origin, tmp_path: Path, manner: Manner
) -> None:
    begun(origin, tmp_path)
    origin.manners.append(manner)
    fetch(origin, tmp_path)
    assert whole(tmp_path)
    assert ranges(origin) == [f"bytes={HALF}-", ""]


def test_a_200_in_place_of_a_206_is_the_whole_file(origin: Origin, tmp_path: Path) -> None:
    begun(origin, tmp_path)
    origin.manners.append(cut(len(CONTENT)))
    fetch(origin, tmp_path)
    assert whole(tmp_path)
    assert len(origin.requests) == 1


def test_another_file_at_the_same_url_begins_anew(origin: Origin, tmp_path: Path) -> None:
    begun(origin, tmp_path)
    origin.content, origin.etag = CONTENT[::-1], '"two"'
    fetch(origin, tmp_path)
    assert (tmp_path / "tiny.gguf").read_bytes() == CONTENT[::-1]
    assert len(origin.requests) == 1


def test_a_part_of_another_url_is_not_gone_on_with(origin: Origin, tmp_path: Path) -> None:
    begun(origin, tmp_path)
    origin.url = origin.url.replace("tiny", "other")
    fetch(origin, tmp_path)
    assert whole(tmp_path)
    assert ranges(origin) == [""]


def test_a_part_that_was_spoiled_is_found_out_and_fetched_anew(
    origin: Origin, tmp_path: Path
) -> None:
    begun(origin, tmp_path)
    with (tmp_path / "tiny.gguf.part").open("r+b") as part:
        part.write(b"spoiled")
    fetch(origin, tmp_path)
    assert whole(tmp_path)
    assert ranges(origin) == [f"bytes={HALF}-", ""]


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b"\0" * 70_000, b'{"url": 7}'])
def test_a_note_that_makes_no_sense_is_none(origin: Origin, tmp_path: Path, note: bytes) -> None:
    begun(origin, tmp_path)
    (tmp_path / "tiny.gguf.part.json").write_bytes(note)
    fetch(origin, tmp_path)
    assert whole(tmp_path)
    assert ranges(origin) == [""]


def test_a_part_that_is_all_of_it_is_only_verified(origin: Origin, tmp_path: Path) -> None:
    """The daemon ended between the last byte and the name."""
    begun(origin, tmp_path)
    with (tmp_path / "tiny.gguf.part").open("ab") as part:
        part.write(CONTENT[HALF:])
    fetch(origin, tmp_path)
    assert whole(tmp_path)
    assert origin.requests == []


# What does not come.


def test_a_file_that_is_another_is_not_kept(origin: Origin, tmp_path: Path) -> None:
    promised = wanted(origin, tmp_path, sha256="0" * 64)
    with pytest.raises(DigestMismatch) as caught:
        download(promised, terms(), control(), lambda *_: None)
    assert (caught.value.expected, caught.value.found) == ("0" * 64, origin.sha256)
    assert left(tmp_path) == []
    assert len(origin.requests) == 1


def without_length(each: Exchange) -> None:
    """Half of it, and an end that looks like any other."""
    each.begin(200, ETag=each.origin.etag)
    each.wfile.write(each.origin.content[:HALF])


def chunked(each: Exchange) -> None:
    """Something else, whose end is told."""
    each.begin(200, Transfer_Encoding="chunked")
    each.wfile.write(b"5\r\nother\r\n0\r\n\r\n")


def test_a_body_without_a_length_that_was_cut_is_asked_for_once_more(
    origin: Origin, tmp_path: Path
) -> None:
    origin.manners.append(without_length)
    fetch(origin, tmp_path)
    assert whole(tmp_path)
    assert ranges(origin) == ["", ""]


def test_one_that_comes_short_each_time_is_asked_for_twice(origin: Origin, tmp_path: Path) -> None:
    origin.always = without_length
    with pytest.raises(DigestMismatch):
        fetch(origin, tmp_path)
    assert len(origin.requests) == 2
    assert left(tmp_path) == []


def test_a_body_whose_end_is_told_is_not_asked_for_again(origin: Origin, tmp_path: Path) -> None:
    origin.always = chunked
    with pytest.raises(DigestMismatch):
        fetch(origin, tmp_path)
    assert len(origin.requests) == 1


def test_what_ends_before_its_promised_size_goes_on(origin: Origin, tmp_path: Path) -> None:
    origin.manners.append(without_length)
    asked = wanted(origin, tmp_path, size_bytes=len(CONTENT))
    download(asked, terms(), control(), lambda *_: None)
    assert whole(tmp_path)
    assert ranges(origin) == ["", f"bytes={HALF}-"]


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 451, 206, 304])
def test_a_refusal_is_not_asked_again(origin: Origin, tmp_path: Path, code: int) -> None:
    origin.always = status(code)
    with pytest.raises(DownloadRefused, match=str(code)):
        fetch(origin, tmp_path)
    assert len(origin.requests) == 1
    assert left(tmp_path) == []


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_a_server_that_cannot_is_asked_a_few_times(
    origin: Origin, tmp_path: Path, code: int
) -> None:
    origin.always = status(code)
    with pytest.raises(DownloadFailed, match=str(code)) as caught:
        fetch(origin, tmp_path)
    assert (caught.value.attempts, len(origin.requests)) == (3, 3)
    assert left(tmp_path) == []


def test_a_server_that_always_ends_early_is_left_in_the_end(
    origin: Origin, tmp_path: Path
) -> None:
    origin.always = cut(100)  # the whole anew, and never more than this
    with pytest.raises(DownloadFailed, match="ended after 100 of"):
        fetch(origin, tmp_path)
    assert len(origin.requests) == 3


def test_a_server_that_is_not_there(origin: Origin, tmp_path: Path) -> None:
    origin.url = "http://127.0.0.1:1/x"
    with pytest.raises(DownloadFailed, match="connection refused"):
        fetch(origin, tmp_path)
    assert left(tmp_path) == []


def test_a_name_that_is_of_nobody(origin: Origin, tmp_path: Path) -> None:
    origin.url = "https://nobody.invalid/x"
    with pytest.raises(DownloadFailed, match=r"nobody\.invalid cannot be reached"):
        fetch(origin, tmp_path, attempts=1)


@pytest.mark.parametrize("stalling", ["drip", "silence", "no answer"])
def test_a_server_that_stalls_is_left(origin: Origin, tmp_path: Path, stalling: str) -> None:
    origin.always = {
        "drip": drip,
        "silence": held(100),
        "no answer": lambda each: each.origin.go_on.wait(WAIT_SECONDS),
    }[stalling]
    with pytest.raises(DownloadFailed, match=r"less than 1024 bytes/s for 0\.2 s"):
        fetch(origin, tmp_path, stall_seconds=0.2, attempts=2)


def test_a_body_without_an_end_is_cut_off(origin: Origin, tmp_path: Path) -> None:
    origin.always = endless
    with pytest.raises(DownloadRefused, match="max_download_bytes"):
        fetch(origin, tmp_path, max_bytes=2 * MIB)
    assert left(tmp_path) == []


def test_more_than_was_promised_is_refused(origin: Origin, tmp_path: Path) -> None:
    for manner in (None, endless):
        origin.always = manner
        promised = wanted(origin, tmp_path, size_bytes=1000)
        with pytest.raises(DownloadRefused, match="promised were 1000"):
            download(promised, terms(), control(), lambda *_: None)
        assert left(tmp_path) == []


def test_more_than_the_configuration_allows_is_refused(origin: Origin, tmp_path: Path) -> None:
    with pytest.raises(DownloadRefused, match=f"it has {len(CONTENT)} bytes"):
        fetch(origin, tmp_path, max_bytes=MIB)
    assert left(tmp_path) == []


def test_a_packed_answer_is_refused(origin: Origin, tmp_path: Path) -> None:
    origin.always = status(200, Content_Encoding="gzip")
    with pytest.raises(DownloadRefused, match="packed"):
        fetch(origin, tmp_path)


# Redirects.


def test_redirects_are_followed(origin: Origin, tmp_path: Path) -> None:
    origin.manners += [status(302, Location="/elsewhere"), status(307, Location=origin.url)]
    fetch(origin, tmp_path)
    assert whole(tmp_path)
    assert origin.paths == ["/models/tiny.gguf", "/elsewhere", "/models/tiny.gguf"]


REDIRECTS = {
    "more than 5 times": status(302, Location="/again"),
    "to nowhere": status(302),
    "not encrypted": status(302, Location="http://example.com/x"),
    "user, a password": status(302, Location="https://a:b@example.com/x"),
    "the form https": status(302, Location="file:///etc/passwd"),
}


@pytest.mark.parametrize("problem", REDIRECTS)
def test_redirects_that_are_not_followed(origin: Origin, tmp_path: Path, problem: str) -> None:
    origin.always = REDIRECTS[problem]
    with pytest.raises(DownloadRefused, match=problem):
        fetch(origin, tmp_path)
    assert len(origin.requests) == (6 if problem == "more than 5 times" else 1)
    assert left(tmp_path) == []


def test_what_proves_who_asks_is_shown_to_its_own_server_alone(
    origin: Origin, tmp_path: Path
) -> None:
    with serving(Origin(CONTENT)) as other:
        origin.always = status(302, Location=other.url)
        asked = wanted(origin, tmp_path, token="hf_secret")
        download(asked, terms(), control(), lambda *_: None)
        assert origin.requests[0]["authorization"] == "Bearer hf_secret"
        assert "authorization" not in other.requests[0]


# The disk.


def test_the_room_is_looked_at_before_anything_comes(origin: Origin, tmp_path: Path) -> None:
    status_ = os.statvfs(tmp_path)
    free = status_.f_bavail * status_.f_frsize
    with pytest.raises(DiskInsufficient) as caught:
        fetch(origin, tmp_path, room=Room(free))
    assert caught.value.needed_bytes == len(CONTENT)
    assert "3 MiB more are needed" in str(caught.value)
    assert left(tmp_path) == []


def test_what_others_are_to_bring_has_no_room_twice(tmp_path: Path) -> None:
    status_ = os.statvfs(tmp_path)
    half = status_.f_bavail * status_.f_frsize // 2
    room = Room(0)
    with room.claiming(tmp_path / "one"):
        room.check(tmp_path / "one", half + MIB)
        room.check(tmp_path / "one", half)  # anew, not once more
        with pytest.raises(DiskInsufficient, match="for other downloads"):
            room.check(tmp_path / "two", half + MIB)
    room.check(tmp_path / "two", half + MIB)


def test_a_disk_that_fills_up_gets_its_bytes_back(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = os.pwrite

    def full(descriptor: int, data: bytes, at: int) -> int:
        if at > HALF:
            raise OSError(28, "No space left on device")
        return written(descriptor, data, at)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DiskInsufficient):
        fetch(origin, tmp_path)
    assert left(tmp_path) == []


def test_a_folder_that_cannot_be_written(origin: Origin, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadRefused, match=r"file/x cannot be used .*download_dir"):
        fetch(origin, tmp_path / "file" / "x")


def test_a_link_in_its_place_is_not_written_through(origin: Origin, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "tiny.gguf.part").symlink_to(victim)
    with pytest.raises(DownloadRefused):
        fetch(origin, tmp_path / "folder")
    assert victim.read_text() == "precious"


def test_two_daemons_do_not_write_one_part(origin: Origin, tmp_path: Path) -> None:
    with (
        open_part(tmp_path / "tiny.gguf"),
        pytest.raises(DownloadRefused, match="another gpud downloads it"),
    ):
        fetch(origin, tmp_path)


# The end of it from without.


def test_one_that_was_finished_before_the_lock_came_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened under its first name, it has its own by the time that it is locked."""
    place, lock = tmp_path / "tiny.gguf", fcntl.flock
    with ExitStack() as first:
        part = first.enter_context(open_part(place))
        part.append(CONTENT)

        def late(descriptor: int, operation: int) -> None:
            monkeypatch.setattr(fcntl, "flock", lock)
            part.finish()
            first.close()
            lock(descriptor, operation)

        monkeypatch.setattr(fcntl, "flock", late)
        with open_part(place) as second:
            assert second.size_bytes == 0
            second.begin(Kept())
            assert place.read_bytes() == CONTENT
    assert whole(tmp_path)


def test_one_that_was_removed_before_the_lock_came_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, lock = tmp_path / "tiny.gguf", fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        remove_part(place)
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with open_part(place) as part:
        part.append(CONTENT)
        part.finish()
    assert whole(tmp_path)


def test_a_stop_ends_it_at_once_and_it_can_be_gone_on_with(origin: Origin, tmp_path: Path) -> None:
    origin.manners.append(held(HALF))
    made, ended = control(), threading.Event()
    found: list[BaseException] = []

    def run(stopped: Control) -> None:
        try:
            download(wanted(origin, tmp_path), terms(), stopped, lambda *_: None)
        except JobStopped as error:
            found.append(error)
        ended.set()

    threading.Thread(target=run, args=(made,), daemon=True).start()
    assert origin.holding.wait(WAIT_SECONDS)
    made.cancel()
    assert ended.wait(WAIT_SECONDS)
    assert len(found) == 1
    assert left(tmp_path) == ["tiny.gguf.part", "tiny.gguf.part.json"]
    origin.go_on.set()
    fetch(origin, tmp_path)
    assert whole(tmp_path)


def test_a_file_that_lies_there_is_taken_when_it_is_the_one(
    origin: Origin, tmp_path: Path
) -> None:
    asked = wanted(origin, tmp_path, size_bytes=len(CONTENT))
    asked.place.write_bytes(CONTENT)
    got = adopt(asked, control())
    assert got is not None
    assert got.sha256 == origin.sha256
    asked.place.write_bytes(CONTENT[::-1])
    assert adopt(asked, control()) is None
    assert left(tmp_path) == []
