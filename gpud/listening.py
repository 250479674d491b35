"""Pure: what the configuration may say of who calls, and where: sockets, addresses, TLS, names."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from posixpath import splitext

from gpud.errors import ConfigInvalid
from gpud.settings import Config

# sockaddr_un holds 108 bytes, the last of them a NUL.
MAX_SOCKET_BYTES = 107
# What whoever opens a socket, or comes over plain loopback, owns things by.
NAMES_TAKEN = frozenset({"viewer", "operator", "admin", "anonymous"})
MIN_CONNECTION_SECONDS = 10.0
MAX_CONNECTION_SECONDS = 7 * 86400.0
# Of the sockets beside server.socket, whose names gpuctl goes by.
_ROLES = ("operator", "viewer")
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"

_MODE = re.compile(r"0?[0246]{3}")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")


def check_listening(config: Config, main: str) -> None:
    """Refuse what would let in the wrong ones, or nobody. `main` is server.socket as in force.

    Raises ConfigInvalid with one line that names the key and the fix.
    """
    _check_sockets(config, main)
    _check_tls(config)
    _check_names(config)
    _check_addresses(config)


def warnings(config: Config, main: str) -> list[str]:
    """What is allowed, but may not be what was meant. `main` is server.socket as in force."""
    # Without [tokens] these are refused: nobody could call there.
    told = [f"{key}: {problem}" for key, problem in _without_minted_tokens(config, main)]
    if config.tokens and config.tls.client_ca and config.server.listen:
        told.append(
            f"with tls.client_ca a token alone does not open {config.server.listen}: [tokens] "
            "count there only beside a certificate that this CA signed (of whatever name), and "
            "by themselves on the Unix sockets"
        )
    return told


def derived_auth_socket(path: str) -> str:
    """Where gpuctl, which knows the path of one socket alone, looks for that of tokens."""
    stem, suffix = splitext(path)
    for role in _ROLES:
        stem = stem.removesuffix(f".{role}")
    stem, suffix = splitext(f"{stem}{suffix}")
    return f"{stem}.auth{suffix}"


def known_names(config: Config) -> frozenset[str]:
    """Every name that somebody may have by the configuration alone."""
    return NAMES_TAKEN.union(config.identities, config.tokens)


def require(true: bool, key: str, problem: str) -> None:
    """Raise ConfigInvalid of a key unless something is true."""
    if not true:
        raise ConfigInvalid(f"cannot use the configuration: {key}: {problem}")


def check_absolute(key: str, path: str) -> None:
    """Raise ConfigInvalid of a key whose path is not absolute."""
    require(path.startswith("/") and "\0" not in path, key, f"{path!r} is not an absolute path")


def _check_sockets(config: Config, main: str) -> None:
    _check_mode("server.socket_mode", config.server.socket_mode)
    if config.server.socket:
        _check_socket("server.socket", config.server.socket, config.node.state_dir)
    taken = {Path(main): "server.socket", _auth_socket(main): "the socket of tokens"}
    for name, each in config.sockets.items():
        key = f"sockets.{name}"
        _check_socket(f"{key}.path", each.path, config.node.state_dir)
        _check_mode(f"{key}.mode", each.mode)
        other = taken.setdefault(Path(each.path), f"{key}.path")
        require(
            other == f"{key}.path",
            f"{key}.path",
            f"{each.path} is that of {other} already; give each a path of its own",
        )
    for key, problem in [] if config.tokens else _without_minted_tokens(config, main):
        require(not problem, key, problem)


def _auth_socket(main: str) -> Path:
    return Path(main).with_name(f"{Path(main).stem}.auth{Path(main).suffix}")


def _without_minted_tokens(config: Config, main: str) -> list[tuple[str, str]]:
    """The keys of sockets that demand a token where gpuctl cannot get one, each with the fix."""
    auth, found = _auth_socket(main), []
    for name, each in config.sockets.items():
        if not each.users_only or _leads_to(each.path, auth):
            continue
        works = str(Path(main).with_name(f"{Path(main).stem}.{name}{Path(main).suffix}"))
        fix = (
            f"name it {works}"
            if _leads_to(works, auth)
            else "choose another server.socket, as /run/gpud/gpud.sock, and beside it "
            f"/run/gpud/gpud.{name}.sock"
        )
        problem = (
            f"{each.path} is for users with a token alone (users_only), and gpuctl, going by this "
            f"name, does not find the socket {auth} that mints them; {fix}"
        )
        found.append((f"sockets.{name}.path", problem))
    return found


def _leads_to(path: str, auth: Path) -> bool:
    """Whether gpuctl gets from this socket to that of tokens, which is there if its name fits."""
    fits = all(len(str(each).encode()) <= MAX_SOCKET_BYTES for each in (path, auth))
    return fits and Path(derived_auth_socket(path)) == auth


def _check_socket(key: str, path: str, state_dir: str) -> None:
    check_absolute(key, path)
    count = len(path.encode())
    require(
        count <= MAX_SOCKET_BYTES,
        key,
        f"{count} bytes, a Unix socket's path holds {MAX_SOCKET_BYTES}; choose a shorter one",
    )
    same = Path(path) == Path(state_dir)
    require(not same, key, "is the state directory itself; name a file")


def _check_mode(key: str, mode: str) -> None:
    require(
        _MODE.fullmatch(mode) is not None,
        key,
        f"{mode!r} is no mode of a socket; write for example 0660: three octal digits, none of "
        "them with the right to execute",
    )


def _check_tls(config: Config) -> None:
    tls = config.tls
    for name, path in (
        ("tls.certificate", tls.certificate),
        ("tls.key", tls.key),
        ("tls.client_ca", tls.client_ca),
        ("access.denied", config.access.denied),
    ):
        require("\0" not in path, name, f"{path!r} is no path")
    for name, other in (("certificate", "key"), ("key", "certificate")):
        require(
            not getattr(tls, name) or bool(getattr(tls, other)),
            f"tls.{other}",
            f"is missing beside tls.{name}; name both (`gpud tls init` makes them)",
        )
    require(
        not tls.client_ca or bool(tls.certificate),
        "tls.client_ca",
        "is of no use without tls.certificate and tls.key; name them as well",
    )
    age = tls.max_connection_age
    require(
        MIN_CONNECTION_SECONDS <= age <= MAX_CONNECTION_SECONDS,
        "tls.max_connection_age",
        f"{age:g} s is not within 10s … 7d",
    )


def _check_names(config: Config) -> None:
    require(
        not config.identities or bool(config.tls.client_ca),
        "identities",
        "applies to client certificates alone, and tls.client_ca names nobody who signs them; "
        "set it, or remove [identities]",
    )
    for name in config.identities:
        plain = bool(name) and name.isprintable() and not any(map(str.isspace, name))
        require(
            plain and "*" not in name,
            f"identities.{name!r}",
            "is no name that a certificate may have; names count exactly as they are written, "
            'for example "spiffe://fleet/coordinator" = "operator"',
        )
        require(
            name not in NAMES_TAKEN,
            f"identities.{name!r}",
            "is what callers without a name of their own are called: what is theirs would be its "
            "own; issue a certificate with another name",
        )
    known: dict[str, str] = {}
    for name, token in config.tokens.items():
        require(
            name not in NAMES_TAKEN,
            f"tokens.{name!r}",
            "is what callers without a name of their own are called; choose another",
        )
        require(
            re.fullmatch(NAME_PATTERN, name) is not None,
            f"tokens.{name!r}",
            "a token's name is made of lower-case letters, digits, '.', '_' and '-'",
        )
        other = known.setdefault(token.sha256, name)
        require(
            other == name,
            f"tokens.{name}.sha256",
            f"is that of tokens.{other} as well; make one for each (`gpud token create`)",
        )


def _check_addresses(config: Config) -> None:
    listens = {}
    if config.server.listen:
        listens["server.listen"] = _check_listen(config)
    if config.http.listen:
        host, port = _host_and_port("http.listen", config.http.listen)
        require(
            is_loopback(host),
            "http.listen",
            f"{config.http.listen!r} is not a loopback address, and it is served without TLS; "
            "write 127.0.0.1:PORT",
        )
        listens["http.listen"] = host, port
    require(
        len(set(listens.values())) == len(listens),
        "http.listen",
        "is the same address as server.listen; give each its own port",
    )


def _check_listen(config: Config) -> tuple[str, int]:
    """Off this host only with TLS, and anywhere only where somebody can be let in."""
    listen, tls = config.server.listen, config.tls
    host, port = _host_and_port("server.listen", listen)
    missing = [] if tls.certificate else ["tls.certificate and tls.key"]
    if not tls.client_ca and not config.tokens:
        missing.append("tls.client_ca (or a [tokens.NAME])")
    if not is_loopback(host):
        require(
            not missing,
            "server.listen",
            f"{listen!r} is not a loopback address and needs {', and '.join(missing)}; "
            "`gpud tls init` makes them, or write 127.0.0.1:PORT",
        )
        require(
            _is_address(host) or _HOST.fullmatch(host) is not None,
            "server.listen",
            f"{host!r} is neither an address nor a host's name; write for example 0.0.0.0:50551",
        )
    require(
        not tls.certificate or not missing,
        "tls.client_ca",
        f"is missing: over TLS each caller shows a certificate or a token, and nobody could call "
        f"{listen}; set it, or add a [tokens.NAME] (`gpud token create`)",
    )
    return host, port


def _host_and_port(key: str, listen: str) -> tuple[str, int]:
    """The host without brackets, `localhost` as its address, and the port."""
    host, _, port = listen.rpartition(":")
    is_number = port.isascii() and port.isdecimal() and len(port) <= 5
    is_port = is_number and int(port) < 65536
    require(
        bool(host) and is_port,
        key,
        f"{listen!r} is not HOST:PORT; write for example 127.0.0.1:50551",
    )
    require(
        int(port) > 0,
        key,
        f"{listen!r} leaves the port to chance, and nobody would know where to ask; write one "
        "of 1 to 65535",
    )
    bare = host.strip("[]")
    return "127.0.0.1" if bare == "localhost" else bare, int(port)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether it is an address of this host alone; a name is none."""
    return _is_address(host) and ipaddress.ip_address(host).is_loopback
