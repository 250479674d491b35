"""The folder of a private CA: what `gpud tls init` writes there, all of it or nothing.

    ca.pem ca-key.pem          the CA; its key is needed to issue, and by no server
    server.pem server-key.pem  a server's; of further ones servers/NAME.pem, servers/NAME-key.pem
    clients/NAME.pem clients/NAME-key.pem

Where root runs it in a folder of another user, that user gets the server's files: so gpud's own
user can read them, and not the CA's key. Meanwhile that user may rename what it likes in there:
all is reached from descriptors, not through links, and given away by them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from gpud.access.authority.issuing import (
    Authority,
    Client,
    Issued,
    IssueRefused,
    client_subject,
    issue_client,
    issue_server,
    key_pem,
    new_authority,
)
from gpud.access.certificates import (
    fits,
    is_authority,
    pem_of,
    read_certificates,
    read_key,
    readable,
)
from gpud.errors import ConfigInvalid

_KEY_MODE = 0o600
_CERTIFICATE_MODE = 0o644
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# The name of a file, and the descriptor of its folder.
_Place = tuple[str, int]


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
    """What is written; `authority` is there already where not `is_new`.

    `replaced`: identities that clients had in certificates which are replaced, and which no other
    client has, each with the one that the same client gets instead.
    """

    authority: PairFiles
    is_new: bool
    server: PairFiles | None
    clients: tuple[tuple[Client, PairFiles], ...]
    replaced: Mapping[str, str] = field(default_factory=dict)


def issue(folder: Path, wanted: Wanted, now_wall: float) -> Made:
    """Issue by the folder's CA, made with the folder where there is none yet.

    Raises IssueRefused; then nothing is changed.
    """
    with claimed(folder) as opened:
        planned = plan(opened, wanted)
        issue_in(opened, planned, wanted, now_wall)
        return planned


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[Folder]:
    """The folder for us alone, made where there is none; gone again if nothing was issued there.

    Raises IssueRefused where it cannot be had.
    """
    path = path.absolute()
    with ExitStack() as stack:
        with _refusing(path):
            folder = stack.enter_context(_locked(path))
        yield folder


def plan(folder: Folder, wanted: Wanted) -> Made:
    """What is to be written. Raises IssueRefused where something is in its place."""
    path = folder.path
    ca_files = PairFiles(certificate=path / "ca.pem", key=path / "ca-key.pem")
    server = _server_files(path, wanted) if wanted.servers else None
    clients = tuple((each, _pair(path / "clients", each.name)) for each in wanted.clients)
    with _refusing(path):
        is_new = not folder.holds(ca_files.certificate)
        if not wanted.replace:
            _refuse_overwriting(
                folder, [*([server] if server else []), *(each for _, each in clients)]
            )
        replaced = {} if is_new else _replaced(folder, ca_files.certificate, clients)
    return Made(
        authority=ca_files, is_new=is_new, server=server, clients=clients, replaced=replaced
    )


def issue_in(folder: Folder, planned: Made, wanted: Wanted, now_wall: float) -> None:
    """Issue it. Raises IssueRefused; then nothing is changed."""
    with _refusing(folder.path):
        _issue(folder, planned, wanted, now_wall)


@contextlib.contextmanager
def _refusing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise IssueRefused(
            f"cannot write to {folder}: {(error.strerror or str(error)).lower()}; "
            "nothing was changed: make room or choose another folder"
        ) from error
    except ConfigInvalid as error:
        raise IssueRefused(str(error)) from error


class Folder:
    """The folder and those in it, each opened once: that settles which one it is."""

    def __init__(self, path: Path, descriptor: int, opened: ExitStack, undo: ExitStack) -> None:
        """`opened` closes them; `undo` is unwound before it where nothing comes of the work."""
        self.path = path
        self.descriptor = descriptor
        self._opened = opened
        self._undo = undo
        self._below: dict[str, int] = {}

    def find(self, file: Path) -> _Place | None:
        """Where a file is, or would be; None where its folder is missing."""
        if file.parent == self.path:
            return file.name, self.descriptor
        name = file.parent.name
        if name not in self._below:
            if not _is_there(name, self.descriptor):
                return None
            try:
                self._below[name] = _open_below(name, self.descriptor, self._opened)
            except NotADirectoryError as error:
                raise IssueRefused(
                    f"cannot write to {file.parent}: it is a link, or no folder; put a folder "
                    "in its place"
                ) from error
        return file.name, self._below[name]

    def prepare(self, file: Path) -> _Place:
        """Where to put a file; its folder is made, and given away, where it is missing."""
        place = self.find(file)
        if place is None:
            name = file.parent.name
            made = _make_below(name, self.descriptor, self._opened, self._undo)
            self.give(made)
            self._below[name] = made
            place = file.name, made
        return place

    def holds(self, file: Path) -> bool:
        """Whether there is anything of that name."""
        place = self.find(file)
        return place is not None and _is_there(*place)

    def opener(self, path: str, flags: int) -> int:
        """Opens a file that lies in the folder, or in one of those in it, for who reads it."""
        place = self.find(Path(path))
        if place is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(place[0], flags, dir_fd=place[1])

    def names_below(self, name: str) -> list[str]:
        """What is in a folder in it; empty where there is none."""
        place = self.find(self.path / name / "any")
        return sorted(os.listdir(place[1])) if place is not None else []  # noqa: PTH208 -- by fd

    def give(self, descriptor: int) -> None:
        """To the folder's owner; only root can, and for anybody else it is so already."""
        if os.geteuid() == 0:
            owner = os.fstat(self.descriptor)
            os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _issue(folder: Folder, planned: Made, wanted: Wanted, now_wall: float) -> None:
    ca_files, server = planned.authority, planned.server
    contents: list[tuple[PairFiles, Issued]] = []
    with readable("the CA's certificate", str(ca_files.certificate)):
        authority = _existing(folder, ca_files)
        if authority is None:
            authority = new_authority(now_wall)
            pem = pem_of([authority.certificate])
            contents.append((ca_files, Issued(certificate=pem, key=key_pem(authority.key))))
        if server is not None:
            contents.append((server, issue_server(authority, wanted.servers, now_wall)))
        for client, files in planned.clients:
            contents.append((files, issue_client(authority, client, now_wall)))
    _write(folder, contents, server)


def _replaced(
    folder: Folder, ca: Path, clients: Sequence[tuple[Client, PairFiles]]
) -> dict[str, str]:
    """Of the clients whose certificates are there: the identities that nobody has any more."""
    found: dict[str, str] = {}
    for client, files in clients:
        for uri in _identities(folder, ca, files.certificate) - {client.uri}:
            found[uri] = client.uri
    if not found:
        return found
    certificates = {files.certificate for _, files in clients}
    kept = {client.uri for client, _ in clients}
    for name in folder.names_below("clients"):
        path = folder.path / "clients" / name
        if name.endswith(".pem") and not name.endswith("-key.pem") and path not in certificates:
            kept |= _identities(folder, ca, path)
    return {old: new for old, new in found.items() if old not in kept}


def _identities(folder: Folder, ca: Path, path: Path) -> set[str]:
    """Whom a client's certificate names, if this CA issued it to the client of that file.

    The folder's user may have put another's there, whose role is not to be handed on.
    """
    if not folder.holds(path):
        return set()
    try:
        with readable("a client's certificate", str(path)):
            authority = read_certificates("the CA's certificate", str(ca), folder.opener)[0]
            found = read_certificates("a client's certificate", str(path), folder.opener)[0]
            found.verify_directly_issued_by(authority)
            if found.subject != client_subject(path.stem):
                return set()
            names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            return set(names.get_values_for_type(x509.UniformResourceIdentifier))
    except (ConfigInvalid, InvalidSignature, TypeError, x509.ExtensionNotFound):
        return set()


def _server_files(folder: Path, wanted: Wanted) -> PairFiles:
    return _pair(folder / "servers", wanted.node) if wanted.node else _pair(folder, "server")


def _pair(folder: Path, name: str) -> PairFiles:
    return PairFiles(certificate=folder / f"{name}.pem", key=folder / f"{name}-key.pem")


def _refuse_overwriting(folder: Folder, targets: Sequence[PairFiles]) -> None:
    for files in targets:
        for path in (files.certificate, files.key):
            if folder.holds(path):
                raise IssueRefused(
                    f"cannot write {path}: it is there already; leave this one out, give a "
                    "further server files of its own with --node NAME, or replace it with --force"
                )


def _existing(folder: Folder, files: PairFiles) -> Authority | None:
    """The CA that is there; None where there is none. Raises for half of one, or a broken one."""
    there = [each for each in (files.certificate, files.key) if folder.holds(each)]
    if not there:
        return None
    if len(there) == 1:
        missing = files.key if there[0] == files.certificate else files.certificate
        raise IssueRefused(
            f"cannot use the CA in {missing.parent}: {there[0].name} is there and {missing.name} "
            f"is not; put {missing.name} back, or make a new CA in another folder"
        )
    name, opener = "the CA's certificate", folder.opener
    certificate = read_certificates(name, str(files.certificate), opener)[0]
    key = read_key("the CA's key", str(files.key), opener)
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
def _locked(path: Path) -> Iterator[Folder]:
    """The folder, made where it is missing, for us alone; removed again if nothing came of it."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    with ExitStack() as opened, ExitStack() as undo:
        descriptor = os.open(path.parents[len(missing) - 1] if missing else path, _FOLDER)
        opened.callback(os.close, descriptor)
        for each in reversed(missing):
            descriptor = _make_below(each.name, descriptor, opened, undo)
        _claim(path, descriptor)
        yield Folder(path, descriptor, opened, undo)
        undo.pop_all()


def _make_below(name: str, folder: int, opened: ExitStack, undo: ExitStack) -> int:
    os.mkdir(name, 0o700, dir_fd=folder)
    undo.callback(_remove_below, name, folder)
    return _open_below(name, folder, opened)


def _open_below(name: str, folder: int, opened: ExitStack) -> int:
    """A folder in a folder. Raises NotADirectoryError also where it is a link to one."""
    descriptor = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    opened.callback(os.close, descriptor)
    return descriptor


def _remove_below(name: str, folder: int) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=folder)


def _is_there(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


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
    folder: Folder, contents: Sequence[tuple[PairFiles, Issued]], server: PairFiles | None
) -> None:
    """Every file beside its place first, where a full disk shows, then each into its place."""
    name = f".new-{secrets.token_hex(8)}"
    with ExitStack() as opened:
        os.mkdir(name, 0o700, dir_fd=folder.descriptor)
        opened.callback(shutil.rmtree, name, ignore_errors=True, dir_fd=folder.descriptor)
        staging = _open_below(name, folder.descriptor, opened)
        staged: list[tuple[str, Path]] = []
        for files, issued in contents:
            for path, data, mode in (
                (files.key, issued.key, _KEY_MODE),
                (files.certificate, issued.certificate, _CERTIFICATE_MODE),
            ):
                new = f"new-{len(staged)}"
                with _written((new, staging), data, mode) as descriptor:
                    if files == server:
                        folder.give(descriptor)
                staged.append((new, path))
        _put([(new, folder.prepare(path)) for new, path in staged], staging)


def _put(staged: Sequence[tuple[str, _Place]], staging: int) -> None:
    undo: list[tuple[str, _Place]] = []
    try:
        for new, (name, folder) in staged:
            saved = ""
            if _is_there(name, folder):
                saved = f"old-{len(undo)}"
                os.link(name, saved, src_dir_fd=folder, dst_dir_fd=staging, follow_symlinks=False)
            os.replace(new, name, src_dir_fd=staging, dst_dir_fd=folder)
            undo.append((saved, (name, folder)))
        for folder in {folder for _, (_, folder) in staged}:
            os.fsync(folder)
    except BaseException:
        for saved, (name, folder) in reversed(undo):
            if saved:
                os.replace(saved, name, src_dir_fd=staging, dst_dir_fd=folder)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)
        raise


@contextlib.contextmanager
def _written(place: _Place, data: bytes, mode: int) -> Iterator[int]:
    """A new file, open until it is what it is to be, and then on the disk."""
    name, folder = place
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=folder)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        yield descriptor
        os.fsync(descriptor)
