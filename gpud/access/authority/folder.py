"""The folder of a private CA: what `gpud tls init` writes there, all of it or nothing.

    ca.pem ca-key.pem          the CA; its key is needed to issue, and by no server
    server.pem server-key.pem  a server's; of further ones servers/NAME.pem, servers/NAME-key.pem
    clients/NAME.pem clients/NAME-key.pem

Where root runs it in a folder of another user, that user gets the server's files: so gpud's own
user can read them, and not the CA's key.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpud.access.authority.issuing import (
    Authority,
    Client,
    Issued,
    IssueRefused,
    issue_client,
    issue_server,
    key_pem,
    new_authority,
)
from gpud.access.certificates import fits, is_authority, pem_of, read_certificates, read_key
from gpud.errors import ConfigInvalid

_KEY_MODE = 0o600
_CERTIFICATE_MODE = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be issued: one server's certificate with all names in `servers`, and clients'.

    `node` names the files of a further server. `replace` allows that certificates of servers and
    clients that are there are replaced; a CA never is.
    """

    servers: tuple[str, ...] = ()
    clients: tuple[Client, ...] = ()
    node: str = ""
    replace: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PairFiles:
    """Where a certificate and its key are; absolute."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What was written; `authority` is there already where not `is_new`."""

    authority: PairFiles
    is_new: bool
    server: PairFiles | None
    clients: tuple[tuple[Client, PairFiles], ...]


def issue(folder: Path, wanted: Wanted, now_wall: float) -> Made:
    """Issue by the folder's CA, made with the folder where there is none yet.

    Raises IssueRefused; then nothing is changed.
    """
    folder = folder.absolute()
    try:
        with _locked(folder):
            return _issue(folder, wanted, now_wall)
    except OSError as error:
        place = error.filename if isinstance(error.filename, str) else folder
        raise IssueRefused(
            f"cannot write to {place}: {(error.strerror or str(error)).lower()}; "
            "nothing was changed: make room or choose another folder"
        ) from error
    except ConfigInvalid as error:
        raise IssueRefused(str(error)) from error


def _issue(folder: Path, wanted: Wanted, now_wall: float) -> Made:
    ca_files = PairFiles(certificate=folder / "ca.pem", key=folder / "ca-key.pem")
    server = _server_files(folder, wanted) if wanted.servers else None
    clients = tuple((each, _pair(folder / "clients", each.name)) for each in wanted.clients)
    targets = [*([server] if server else []), *(files for _, files in clients)]
    if not wanted.replace:
        _refuse_overwriting(targets)
    authority = _existing(ca_files)
    is_new = authority is None
    if authority is None:
        authority = new_authority(now_wall)
    contents: list[tuple[PairFiles, Issued]] = []
    if is_new:
        pem = pem_of([authority.certificate])
        contents.append((ca_files, Issued(certificate=pem, key=key_pem(authority.key))))
    if server is not None:
        contents.append((server, issue_server(authority, wanted.servers, now_wall)))
    for client, files in clients:
        contents.append((files, issue_client(authority, client, now_wall)))
    _write(folder, contents, server)
    return Made(authority=ca_files, is_new=is_new, server=server, clients=clients)


def _server_files(folder: Path, wanted: Wanted) -> PairFiles:
    return _pair(folder / "servers", wanted.node) if wanted.node else _pair(folder, "server")


def _pair(folder: Path, name: str) -> PairFiles:
    return PairFiles(certificate=folder / f"{name}.pem", key=folder / f"{name}-key.pem")


def _refuse_overwriting(targets: Sequence[PairFiles]) -> None:
    for files in targets:
        for path in (files.certificate, files.key):
            if os.path.lexists(path):
                raise IssueRefused(
                    f"cannot write {path}: it is there already; leave this one out, give a "
                    "further server files of its own with --node NAME, or replace it with --force"
                )


def _existing(files: PairFiles) -> Authority | None:
    """The CA that is there; None where there is none. Raises for half of one, or a broken one."""
    there = [each for each in (files.certificate, files.key) if os.path.lexists(each)]
    if not there:
        return None
    if len(there) == 1:
        missing = files.key if there[0] == files.certificate else files.certificate
        raise IssueRefused(
            f"cannot use the CA in {missing.parent}: {there[0].name} is there and {missing.name} "
            f"is not; put {missing.name} back, or make a new CA in another folder"
        )
    certificate = read_certificates("the CA's certificate", str(files.certificate))[0]
    key = read_key("the CA's key", str(files.key))
    if not is_authority(certificate):
        raise IssueRefused(
            f"cannot use the CA {files.certificate}: its certificate is not that of a CA; "
            "choose another folder"
        )
    if not fits(certificate, key):
        raise IssueRefused(
            f"cannot use the CA {files.certificate}: {files.key.name} is the key of another; "
            "put the right one back"
        )
    return Authority(certificate=certificate, key=key)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder, made where it is missing, for us alone; removed again if nothing came of it."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _claim(folder, descriptor)
        yield
    except BaseException:
        for each in missing:
            with contextlib.suppress(OSError):
                each.rmdir()
        raise
    finally:
        os.close(descriptor)


def _claim(folder: Path, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise IssueRefused(
            f"cannot write to {folder}: another `gpud tls init` is at work there; run it again"
        ) from error
    mode = os.fstat(descriptor).st_mode & 0o7777
    if mode & 0o022:
        raise IssueRefused(
            f"cannot keep keys in {folder}: others may write there (mode {mode:04o}); "
            "choose another folder, or run `chmod 700` on it"
        )


def _write(
    folder: Path, contents: Sequence[tuple[PairFiles, Issued]], server: PairFiles | None
) -> None:
    """Every file beside its place first, where a full disk shows, then each into its place."""
    staging = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
    made = [path for path in (folder / "clients", folder / "servers") if not path.exists()]
    try:
        staged: list[tuple[Path, Path]] = []
        for files, issued in contents:
            for path, data, mode in (
                (files.key, issued.key, _KEY_MODE),
                (files.certificate, issued.certificate, _CERTIFICATE_MODE),
            ):
                new = staging / f"new-{len(staged)}"
                _write_file(new, data, mode)
                if files == server:
                    _give(new, folder)
                staged.append((new, path))
        for path in {path.parent for _, path in staged} - {folder}:
            if not path.exists():
                path.mkdir(mode=0o700)
                _give(path, folder)
        _place(staged, staging)
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _place(staged: Sequence[tuple[Path, Path]], staging: Path) -> None:
    undo: list[tuple[Path | None, Path]] = []
    try:
        for new, path in staged:
            saved = None
            if os.path.lexists(path):
                saved = staging / f"old-{len(undo)}"
                os.link(path, saved, follow_symlinks=False)
            new.replace(path)
            undo.append((saved, path))
        for folder in {path.parent for _, path in staged}:
            _sync(folder)
    except BaseException:
        for saved, path in reversed(undo):
            if saved is None:
                path.unlink(missing_ok=True)
            else:
                saved.replace(path)
        raise


def _write_file(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _give(path: Path, folder: Path) -> None:
    """To the folder's owner; only root can, and for anybody else it is so already."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
