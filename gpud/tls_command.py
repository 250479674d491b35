"""`gpud tls init | show`: certificates for a small fleet, and what one says."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from gpud.clock import SystemClock
from gpud.errors import GpudError

# What reads certificates is imported late: it takes as long as the rest of `gpud version`.
if TYPE_CHECKING:
    from cryptography import x509

    from gpud.access.authority.drop_in import DropIn
    from gpud.access.authority.folder import Made, PairFiles, Wanted
    from gpud.access.authority.output import Output

PORT = 50551
_DAY_SECONDS = 86400
_USAGES = {"1.3.6.1.5.5.7.3.1": "serverAuth", "1.3.6.1.5.5.7.3.2": "clientAuth"}


@click.group(name="tls")
def tls_group() -> None:
    """Certificates for callers on other hosts."""


@tls_group.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--server",
    "servers",
    multiple=True,
    metavar="NAME|IP",
    help="A name or an address that the server is dialled by; all of them in one certificate.",
)
@click.option(
    "--client",
    "clients",
    multiple=True,
    metavar="NAME[=URI]",
    help="A client and its identity. [default: spiffe://gpud/NAME]",
)
@click.option("--node", default="", metavar="NAME", help="Names the files of a further server.")
@click.option("--force", is_flag=True, help="Replace certificates that are there; never a CA.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where the configuration goes, as /etc/gpud/conf.d/remote.toml. A file that is there is "
    "added to. [default: standard output]",
)
def init(directory: Path, output: Path | None, **asked: Any) -> None:
    """Issue certificates by the private CA in DIRECTORY, made where there is none.

    What the server's configuration needs is TOML, for a file of its conf.d/: name it with
    --output, which writes it only when all went well, and adds further clients to it. A client
    that --force gives another identity keeps its role there; the old one is taken out.
    """
    from gpud.access.authority.folder import claimed, issue_in, plan
    from gpud.access.authority.output import Output

    if not str(directory).isprintable():
        _refuse(f"cannot use the folder {str(directory)!r}: choose a name that can be printed")
    wanted = _wanted(**asked)
    file = Output(output) if output is not None else None
    try:
        # The file is read and written while the folder is ours: of two that do this at once
        # neither undoes what the other said.
        with claimed(directory) as folder:
            if file is not None:
                file.check(wanted)
            planned = plan(folder, wanted)
            said = _drop_in(planned, wanted, *(file.server() if file else ("", None)))
            if file is not None:
                file.merged(said)
            issue_in(folder, planned, wanted, SystemClock().now().wall)
            if file is not None:
                _put(file, said)
    except GpudError as error:
        _refuse(error)
    _tell(planned, output)
    if file is None:
        click.echo(said.text(), nl=False)


@tls_group.command()
@click.argument("file", type=click.Path())
def show(file: str) -> None:
    """Say what the certificates in FILE are: whose, for what, until when."""
    from gpud.access.certificates import read_certificates, readable

    now_wall = SystemClock().now().wall
    try:
        with readable("the file", file):
            described = [
                _described(each, now_wall) for each in read_certificates("the file", file)
            ]
    except GpudError as error:
        _refuse(error)
    click.echo("\n\n".join(described))


def _put(output: Output, said: DropIn) -> None:
    """Write it, whole or not at all. What cannot be written is printed, for it was issued."""
    try:
        output.write(output.merged(said))
    except (GpudError, OSError) as error:
        click.echo(said.text(), nl=False)
        if isinstance(error, OSError):
            why = (error.strerror or str(error)).lower()
            _refuse(
                f"cannot write {output.path}: {why}; the certificates are made, put this there"
            )
        _refuse(f"{error}; the certificates are made")


def _wanted(
    servers: tuple[str, ...], clients: tuple[str, ...], node: str, *, force: bool
) -> Wanted:
    """Raises UsageError, or ends the program where a name is no good."""
    from gpud.access.authority.folder import Wanted
    from gpud.access.authority.issuing import parse_client, parse_server

    if not servers and not clients:
        raise click.UsageError("nothing to issue; name a --server or a --client")
    if node and not servers:
        raise click.UsageError("--node names the files of a server; name its --server as well")
    try:
        asked = tuple(map(parse_client, clients))
        if node:
            parse_client(node)  # it names files alike
        wanted = Wanted(
            servers=tuple(map(parse_server, servers)), clients=asked, node=node, replace=force
        )
    except GpudError as error:
        _refuse(error)
    for kind, values in (
        ("name", [each.name for each in asked]),
        ("identity", [each.uri for each in asked]),
    ):
        if len(set(values)) < len(values):
            raise click.UsageError(f"two --client have the same {kind}")
    return wanted


def _tell(made: Made, output: Path | None = None) -> None:
    """What was written, for the person who runs it."""
    lines = []
    if made.is_new:
        lines.append(_files("the CA; its key issues, and no server needs it", made.authority))
    if made.server is not None:
        lines.append(_files("the server; gpud's user reads both", made.server))
    lines += [_files(f"client {client.name}", files) for client, files in made.clients]
    if output is not None:
        lines.append(f"  {output}  (what gpud's configuration needs; restart gpud)")
    click.echo("\n".join(["written:", *lines, ""]), err=True)


def _files(what: str, files: PairFiles) -> str:
    return f"  {files.certificate}\n  {files.key}  ({what})"


def _drop_in(made: Made, wanted: Wanted, server: str, port: int | None) -> DropIn:
    """What is made now; with a folder's later runs only what they add.

    `server` and `port` are those of the file that it goes to, where that has some.
    """
    from gpud.access.authority.drop_in import DropIn

    tls = {}
    if made.server is not None:
        tls = {
            "certificate": str(made.server.certificate),
            "key": str(made.server.key),
            "client_ca": str(made.authority.certificate),
        }
    host = wanted.servers[0] if wanted.servers else server or "SERVER"
    address = f"{f'[{host}]' if ':' in host else host}:{port or PORT}"
    commands = [
        f"#   gpuctl context add {client.name} --address {address} "
        f"--ca {_word(made.authority.certificate)} --cert {_word(files.certificate)} "
        f"--key {_word(files.key)}"
        for client, files in made.clients
    ]
    return DropIn(
        listen=f"0.0.0.0:{PORT}",
        tls=tls,
        identities={client.uri: "operator" for client, _ in made.clients},
        replaced=made.replaced,
        comments=("# On a client's machine, with these three files:", *commands)
        if commands
        else (),
    )


def _word(path: Path) -> str:
    return shlex.quote(str(path))


def _described(certificate: x509.Certificate, now_wall: float) -> str:
    from gpud.access.certificates import fingerprint_of, is_authority, names_of, usages_of

    usages = usages_of(certificate)
    uses = ["any"] if usages is None else sorted(_USAGES.get(each, each) for each in usages)
    end = certificate.not_valid_after_utc
    days = (end.timestamp() - now_wall) / _DAY_SECONDS
    left = f"in {days:.0f} days" if days >= 0 else f"{-days:.0f} days ago: it is no longer good"
    lines = {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "names": ", ".join(names_of(certificate)) or "none",
        "usage": "CA" if is_authority(certificate) else ", ".join(uses),
        "expires": f"{end:%Y-%m-%d %H:%M} UTC, {left}",
        "serial": f"{certificate.serial_number:x}",
        "sha256": fingerprint_of(certificate),
    }
    return "\n".join(f"{key:8} {value}" for key, value in lines.items())


def _refuse(problem: object) -> NoReturn:
    click.echo(f"gpud: {problem}", err=True)
    sys.exit(2)
