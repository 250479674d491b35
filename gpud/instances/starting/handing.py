"""What an engine reads, opened here and inherited by it: its model's files, and its key.

The names that it is told are links in its own folder, which lead to its own descriptors. So it
reads what was inspected, whatever is put at the files' names meanwhile, and a key's file that was
checked is not opened a second time. An engine of several processes, which inherit nothing from
each other, is led to a folder's files by name, and `check_read` looks at them once it serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from gpud.engines.api_key import ApiKey, KeyRefused, read_key, sealed
from gpud.errors import ModelFileInvalid
from gpud.instances.instance import Instance
from gpud.instances.life import Life
from gpud.instances.needs import promised_files
from gpud.instances.tree.launcher import LaunchFailed
from gpud.instances.tree.shim import FIRST_HANDED
from gpud.models.catalogue import CHANGED, HeldFiles, Inspection
from gpud.models.model import EngineKind, Model

MODEL_FOLDER: Final = "model"
KEY_FOLDER: Final = "key"
KEY_SECONDS: Final = 5.0  # for a file of one line


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """Open files in the order in which the engine has them, and the names that lead to them.

    Closed with the block: an engine that was spawned has its own.
    """

    files: tuple[BinaryIO, ...]
    model_path: Path
    key_path: Path | None
    mmproj_path: Path | None = None
    key: ApiKey | None = None

    def __enter__(self) -> Handed:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self.files:
            file.close()


async def hand_over(life: Life, model: Model, inspection: Inspection) -> Handed:
    """Open what was inspected, and the key where one is asked.

    Raises ModelFileInvalid, and LaunchFailed where the instance's folder cannot be written.
    """
    key = await key_of(life)
    held = await life.house.catalogue.hold(model, inspection)
    try:
        return _handed(life, held, key)
    except OSError as error:
        raise LaunchFailed.by(life.instance.name, error) from error


def _handed(life: Life, held: HeldFiles, key: ApiKey | None) -> Handed:
    with ExitStack() as opened:
        opened.callback(held.close)
        life.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        files = list(held.by_name.values())
        model_path = life.folder / MODEL_FOLDER
        if held.by_path:
            _link_paths(model_path, held.by_path)
        elif held.by_name:
            model_path = _link(model_path, held.by_name, FIRST_HANDED)
        key_path = None
        if key is not None:
            key_path = _link(life.folder / KEY_FOLDER, ("api-key",), FIRST_HANDED + len(files))
            files.append(opened.enter_context(sealed(key)))
        opened.pop_all()
    mmproj_path = life.folder / MODEL_FOLDER / held.projector if held.projector else None
    return Handed(
        files=tuple(files),
        model_path=model_path,
        key_path=key_path,
        mmproj_path=mmproj_path,
        key=key,
    )


async def check_read(life: Life, model: Model, seen: Inspection | None) -> None:
    """Whether what an engine opened by name is what was handed over, now that it has read it.

    Those processes open files when it suits them, after the last look before their start: files
    that are the same before and after were the same between, a name that was taken away and given
    back included. `seen` None: an earlier life of the daemon handed them over. Raises
    ModelFileInvalid.
    """
    if model.engine is not EngineKind.VLLM:
        return
    files = life.instance.files
    seen = seen or await life.house.catalogue.inspect(model)
    if files is not None and promised_files(seen) != files:
        raise ModelFileInvalid(model=model.name, path=model.path, problem=CHANGED)
    await life.house.catalogue.confirm(model, seen)


async def key_of(life: Life) -> ApiKey | None:
    """The key that the instance's engine asks for; None: none. Raises ModelFileInvalid."""
    return await key_for(life.instance)


async def key_for(instance: Instance) -> ApiKey | None:
    """The same for one whose life is another's to lead."""
    path = instance.api_key_file
    if not path:
        return None
    try:
        async with asyncio.timeout(KEY_SECONDS):
            return await asyncio.to_thread(read_key, path)
    except TimeoutError:
        problem = f"could not be read within {KEY_SECONDS:g} s: its disk hangs"
    except KeyRefused as refused:
        problem = str(refused)
    raise ModelFileInvalid(model=f"models/{instance.model}", path="api_key_file", problem=problem)


def _link_paths(folder: Path, paths: Mapping[str, Path]) -> None:
    """A folder of links to the files of a model's folder, and to nothing else that lies there."""
    for name, path in paths.items():
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        link.unlink(missing_ok=True)
        link.symlink_to(path)


def _link(folder: Path, names: Iterable[str], first: int) -> Path:
    """A folder of links to descriptors of whoever opens them, from `first` on; the first link."""
    folder.mkdir(exist_ok=True, mode=0o700)
    links = [folder / name for name in names]
    for number, link in enumerate(links, first):
        link.unlink(missing_ok=True)
        link.symlink_to(f"/proc/self/fd/{number}")
    return links[0]
