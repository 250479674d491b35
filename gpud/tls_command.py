"""`gpud tls init | show`: certificates for a small fleet, and what one says."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from gpud.clock import SystemClock
from gpud.errors import GpudError

# What reads certificates is imported late: it takes as long as the rest of `gpud version`.
if TYPE_CHECKING:
    from cryptography import x509

    from gpud.access.authority.folder import Made, PairFiles, Wanted

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
def init(
    directory: Path, servers: tuple[str, ...], clients: tuple[str, ...], node: str, *, force: bool
) -> None:
    """Issue certificates by the private CA in DIRECTORY, made where there is none.

    Standard output is what the server's configuration needs, as TOML: for example into a file of
    its conf.d/.
    """
    from gpud.access.authority.folder import issue

    if not str(directory).isprintable():
        _refuse(f"cannot use the folder {str(directory)!r}: choose a name that can be printed")
    wanted = _wanted(servers, clients, node, force=force)
    try:
        made = issue(directory, wanted, SystemClock().now().wall)
    except GpudError as error:
        _refuse(error)
    _tell(made)
    click.echo(_snippet(made, wanted))


@tls_group.command()
@click.argument("file", type=click.Path())
def show(file: str) -> None:
    """Say what the certificates in FILE are: whose, for what, until when."""
    from gpud.access.certificates import read_certificates

    try:
        found = read_certificates("the file", file)
    except GpudError as error:
        _refuse(error)
    now_wall = SystemClock().now().wall
    click.echo("\n\n".join(_described(each, now_wall) for each in found))


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


def _tell(made: Made) -> None:
    """What was written, for the person who runs it."""
    lines = []
    if made.is_new:
        lines.append(_files("the CA; its key issues, and no server needs it", made.authority))
    if made.server is not None:
        lines.append(_files("the server; gpud's user reads both", made.server))
    lines += [_files(f"client {client.name}", files) for client, files in made.clients]
    click.echo("\n".join(["written:", *lines, ""]), err=True)


def _files(what: str, files: PairFiles) -> str:
    return f"  {files.certificate}\n  {files.key}  ({what})"


def _snippet(made: Made, wanted: Wanted) -> str:
    """TOML of what was made now; with a folder's later runs only what they add."""
    lines: list[str] = []
    if made.server is not None:
        lines += [
            "# The port is open to all that reach this host; who has no certificate is refused.",
            "[server]",
            f'listen = "0.0.0.0:{PORT}"',
            "",
            "[tls]",
            f"certificate = {_quoted(made.server.certificate)}",
            f"key = {_quoted(made.server.key)}",
            f"client_ca = {_quoted(made.authority.certificate)}",
            "",
        ]
    if made.clients:
        lines += ["[identities]", "# viewer reads, operator reserves and loads, admin does all."]
        lines += [f'"{client.uri}" = "operator"' for client, _ in made.clients]
        lines += ["", "# On a client's machine, with these three files:"]
    host = wanted.servers[0] if wanted.servers else "SERVER"
    address = f"[{host}]:{PORT}" if ":" in host else f"{host}:{PORT}"
    lines += [
        f"#   gpuctl context add {client.name} --address {address} "
        f"--ca {_word(made.authority.certificate)} --cert {_word(files.certificate)} "
        f"--key {_word(files.key)}"
        for client, files in made.clients
    ]
    return "\n".join(lines).rstrip("\n")


def _word(path: Path) -> str:
    return shlex.quote(str(path))


def _quoted(path: Path) -> str:
    """As a basic string of TOML, which JSON's are for what is printable."""
    return json.dumps(str(path), ensure_ascii=False)


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
