"""A repository of a hub, through the real huggingface_hub: whole and verified, or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpud.models.model import HubSource
from gpud.models.sources import hub as hub_module
from gpud.models.sources.hub import MANIFEST, HubFetch, is_whole, read_manifest
from gpud.models.sources.jobs import Step
from gpud.models.sources.refusals import (
    DigestMismatch,
    DiskInsufficient,
    DownloadFailed,
    DownloadRefused,
)
from gpud.models.sources.transfer.download import Got
from gpud.models.sources.transfer.progress import Progress
from gpud.models.sources.transfer.room import Room
from tests.models.sources.downloading import control, left, terms
from tests.models.sources.hub_server import COMMIT, Hub, serving

INDEX = json.dumps(
    {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
).encode()
FILES = {
    "README.md": b"# tiny",
    "config.json": b"{}",
    "tokenizer.json": b"[]",
    "model.safetensors.index.json": INDEX,
    "model-1.safetensors": b"one" * 1000,
    "model-2.safetensors": b"two" * 1000,
    "consolidated.safetensors": b"the same once more",
    "pytorch_model.bin": b"a pickle",
    "modeling_tiny.py": b"import os",
    "1_Pooling/config.json": b"{}",
    "tiny-q8.gguf": b"GGUF" * 500,
    "big/q4-00001-of-00002.gguf": b"first",
    "big/q4-00002-of-00002.gguf": b"second",
}
WHOLE = HubSource(repository="org/tiny")
ONE = HubSource(repository="org/tiny", file="tiny-q8.gguf")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serving(Hub(dict(FILES))) as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield made


def take(source: HubSource, folder: Path, **changed: object) -> tuple[Got, ...]:
    steps: list[Step] = []
    made = control(steps)
    return HubFetch(source, folder, terms(**changed), made).run(Progress(made, "downloads"))


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_of_a_folder_all_that_a_server_reads_and_nothing_else(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "x"
    got = take(WHOLE, folder)
    taken = {
        "config.json", "tokenizer.json", "model.safetensors.index.json", "model-1.safetensors",
        "model-2.safetensors", "1_Pooling/config.json",
    }  # fmt: skip
    assert names(folder) == taken | {MANIFEST}
    assert {name: (folder / name).read_bytes() for name in taken} == {
        name: FILES[name] for name in taken
    }
    manifest = read_manifest(folder)
    assert manifest is not None
    assert (manifest.repository, manifest.commit) == ("org/tiny", COMMIT)
    assert {each.name for each in manifest.files} == taken
    assert len(got) == len(taken)
    assert is_whole(folder)


def test_one_file_or_all_parts_of_a_split_one(hub: Hub, tmp_path: Path) -> None:
    take(ONE, tmp_path / "one")
    assert names(tmp_path / "one") == {"tiny-q8.gguf", MANIFEST}
    split = HubSource(repository="org/tiny", revision=COMMIT, file="big/q4-00001-of-00002.gguf")
    take(split, tmp_path / "two")
    assert names(tmp_path / "two") == {
        "big/q4-00001-of-00002.gguf", "big/q4-00002-of-00002.gguf", MANIFEST
    }  # fmt: skip


def test_what_is_not_whole_is_not_said_to_be(hub: Hub, tmp_path: Path) -> None:
    take(WHOLE, tmp_path / "x")
    (tmp_path / "x" / "model-1.safetensors").write_bytes(b"short")
    assert not is_whole(tmp_path / "x")
    (tmp_path / "x" / "model-1.safetensors").unlink()
    assert not is_whole(tmp_path / "x")
    (tmp_path / "x" / MANIFEST).write_bytes(b"{")
    assert not is_whole(tmp_path / "x")


def test_what_was_broken_off_goes_on_and_takes_no_file_twice(hub: Hub, tmp_path: Path) -> None:
    hub.changed["model-2.safetensors"] = b"other" * 600
    with pytest.raises(DigestMismatch):
        take(WHOLE, tmp_path / "x")
    assert not is_whole(tmp_path / "x")
    assert "model-2.safetensors" not in names(tmp_path / "x")
    hub.changed.clear()
    # One that was spoiled meanwhile is not believed.
    (tmp_path / "x" / "tokenizer.json").write_bytes(b"no")
    before = len(hub.asked)
    take(WHOLE, tmp_path / "x")
    fetched = [path.rpartition("/")[2] for path in hub.asked[before:] if "/resolve/" in path]
    assert sorted(fetched) == ["model-2.safetensors", "tokenizer.json"]
    assert is_whole(tmp_path / "x")


@pytest.mark.parametrize("name", ["config.json", "model-1.safetensors"])
def test_a_file_that_is_not_as_it_is_listed_is_not_kept(
    hub: Hub, tmp_path: Path, name: str
) -> None:
    """A small one is known by git's sum, a large one by its own."""
    hub.changed[name] = FILES[name][::-1]
    with pytest.raises(DigestMismatch, match=name):
        take(WHOLE, tmp_path / "x")
    assert name not in names(tmp_path / "x")


def test_a_file_larger_than_it_is_listed_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.changed["config.json"] = b"{" * 5000
    with pytest.raises(DownloadRefused, match="it has 5000 bytes, promised were 2"):
        take(WHOLE, tmp_path / "x")
    assert left(tmp_path / "x") == ["model.safetensors.index.json"]


def test_the_room_for_all_is_looked_at_first(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(DiskInsufficient, match=r"1\.95 KiB more are needed"):
        take(ONE, tmp_path / "x", room=Room(2**60))
    assert not any("/resolve/" in path for path in hub.asked)


def test_who_asks_is_told_to_the_hub_alone(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    take(ONE, tmp_path / "x")
    assert set(hub.tokens) == {"Bearer hf_canary"}
    assert all(b"hf_canary" not in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (HubSource(repository="org/other"), "no such repository"),
        (HubSource(repository="org/tiny", revision="v9"), "no such revision"),
        (HubSource(repository="org/tiny", file="q9.gguf"), "it has no q9.gguf; it has tiny-q8"),
        (
            HubSource(repository="org/tiny", file="big/q4-00001-of-00003.gguf"),
            "it has no big/q4-00001-of-00003",
        ),
    ],
)
def test_what_is_not_there(hub: Hub, tmp_path: Path, source: HubSource, problem: str) -> None:
    with pytest.raises(DownloadRefused, match=problem):
        take(source, tmp_path / "x")
    assert left(tmp_path / "x") == []


@pytest.mark.parametrize(
    ("gone", "problem"),
    [
        (["config.json"], r"no config\.json"),
        (["model.safetensors.index.json"], "no weights in safetensors"),
        (["model-2.safetensors"], "names 2 files, 1 of them not there"),
    ],
)
def test_a_folder_that_no_server_could_read(
    hub: Hub, tmp_path: Path, gone: list[str], problem: str
) -> None:
    for name in gone:
        del hub.files[name]
    with pytest.raises(DownloadRefused, match=problem):
        take(WHOLE, tmp_path / "x")


@pytest.mark.parametrize(
    ("refusal", "error", "problem"),
    [
        ((403, "GatedRepo"), DownloadRefused, "its licence has to be accepted"),
        ((401, "RepoNotFound"), DownloadRefused, "no such repository, or it is private"),
        ((400, ""), DownloadFailed, "the hub cannot be asked"),
    ],
)
def test_a_hub_that_refuses(
    hub: Hub, tmp_path: Path, refusal: tuple[int, str], error: type[Exception], problem: str
) -> None:
    hub.refusal = refusal
    with pytest.raises(error, match=problem):
        take(ONE, tmp_path / "x")


def test_a_hub_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(DownloadFailed, match="the hub cannot be asked"):
        take(ONE, tmp_path / "x")


def test_without_the_library_it_says_what_to_install(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child.py"
    child.write_text(
        "import runpy, sys\nsys.modules['huggingface_hub'] = None\n"
        f"runpy.run_path({hub_module.listing.__file__!r}, run_name='__main__')\n"
    )
    monkeypatch.setattr(hub_module.listing, "__file__", str(child))
    with pytest.raises(DownloadRefused, match=r"pip install '\.\[hub\]'"):
        take(ONE, tmp_path / "x")


def test_the_listing_runs_no_code_of_the_working_directory(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cwd", "path"):
        planted = tmp_path / name
        planted.mkdir()
        for module in ("gpud", "huggingface_hub", "json", "httpx"):
            (planted / f"{module}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    take(ONE, tmp_path / "one")
    assert is_whole(tmp_path / "one")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("print('x' * 300)", "more than 200 bytes"),
        ("import sys, time; sys.stdout.write('x' * 10**6); time.sleep(60)", "more than 200 bytes"),
        ("print('{')", "cannot be read"),
        ('import sys; sys.stdout.buffer.write(b\'{"error": "\\xff"}\')', "cannot be read"),
        ("print('[]')", "cannot be read"),
        ("import sys; sys.exit(3)", "ended with 3"),
        ("import time; time.sleep(60)", "within 0.5 s"),
    ],
)
def test_a_listing_that_is_none(
    program: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "listing.py"
    child.write_text(program)
    monkeypatch.setattr(hub_module.listing, "__file__", str(child))
    monkeypatch.setattr(hub_module, "MAX_LISTING_BYTES", 200)
    monkeypatch.setattr(hub_module, "LISTING_SECONDS", 0.5 if "0.5" in problem else 30.0)
    with pytest.raises(DownloadFailed, match=problem):
        take(ONE, tmp_path / "one")
