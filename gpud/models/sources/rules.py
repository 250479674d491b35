"""Pure: what a source may be written as, where its files come to lie, and what is told of it."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from typing import Final
from urllib.parse import urljoin, urlsplit

from gpud.models.model import HttpSource, HubSource, Source
from gpud.models.sources.refusals import SourceInvalid

MAX_URL_CHARACTERS: Final = 2048
MAX_REDIRECTS: Final = 5
LINK_LOCAL: Final = (
    "a link-local address or one of a cloud's metadata, whose servers give secrets to whoever "
    "asks from this host: no model is fetched from there"
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
# As the hub has it: at most 96 characters, no two of "--" or ".." in a row, none at the ends.
_REPOSITORY = re.compile(r"(?:[\w][\w.-]{0,95}/)?[\w][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"[\w][\w./-]{0,127}", re.ASCII)
_FILE_PART = re.compile(r"[\w.][\w.+@=,~ -]{0,254}")
_PRINTABLE_ASCII = re.compile(r"[!-~]+")
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# Where a cloud's machines ask for their keys, but for 169.254.0.0/16 and fe80::/10: of AWS and of
# Google by IPv6, of Alibaba, of Azure.
_METADATA: Final = frozenset(
    map(
        ipaddress.ip_address,
        ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16"),
    )
)
_METADATA_NAMES: Final = frozenset({"metadata.google.internal", "metadata.goog"})
# An address of IPv4 stands in the last 32 bits of these (RFC 6052).
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


def check_url(url: str, *, allow_http: bool, http_here: bool = True) -> str:
    """The URL itself. Raises SourceInvalid.

    https; http where the configuration allows it, or, unless `http_here` is off, to this host.
    Without a user or a password: a URL is told in logs, and they would be. Never to a link-local
    address, whatever the configuration says.
    """
    if not _PRINTABLE_ASCII.fullmatch(url) or len(url) > MAX_URL_CHARACTERS:
        raise SourceInvalid(
            f"is not a URL of 1 to {MAX_URL_CHARACTERS} printable ASCII characters; "
            "write others as %XX"
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise SourceInvalid(f"is not a URL: {error}") from error
    if parts.scheme not in {"https", "http"} or not host or port == 0:
        raise SourceInvalid("is not a URL of the form https://HOST/PATH")
    if "@" in parts.netloc or "\\" in url:
        raise SourceInvalid("may not hold a user, a password or a backslash")
    if is_link_local(host):
        raise SourceInvalid(f"leads to {host}, {LINK_LOCAL}")
    if parts.scheme == "http" and not allow_http:
        if not is_loopback(host):
            raise SourceInvalid(
                "is not encrypted: write https://, or set allow_http = true in [models]"
            )
        if not http_here:
            raise SourceInvalid(
                "leads to a server of this host itself, which only the configuration may name, "
                "or allow_http = true in [models] allow"
            )
    return url


def check_redirect(before: str, location: str, *, allow_http: bool) -> str:
    """Where a redirect leads to. Raises SourceInvalid.

    By the same rules; and from elsewhere none leads to this host, where a server may trust
    whoever reaches it, nor from https to http.
    """
    after = check_url(urljoin(before, location), allow_http=allow_http)
    old, new = urlsplit(before), urlsplit(after)
    if old.scheme == "https" and new.scheme == "http":
        raise SourceInvalid(f"is redirected from https to {shown_url(after)}, which is not")
    if is_loopback(new.hostname or "") and not is_loopback(old.hostname or ""):
        raise SourceInvalid(f"is redirected to this host itself ({shown_url(after)})")
    return after


def check_peer(host: str, address: str) -> None:
    """Where a host's name has led, before anything is asked there. Raises SourceInvalid.

    A name elsewhere may be made to lead here, where a server may trust whoever reaches it, or to
    the metadata of this machine.
    """
    if is_loopback(address) and not is_loopback(host):
        raise SourceInvalid(f"leads to this host itself, though {host} is not its name")
    if is_link_local(address):
        raise SourceInvalid(f"leads to {address}, {LINK_LOCAL}")


def same_place(first: str, second: str) -> bool:
    """Whether two URLs are of one server: what proves who asks is told to that one alone."""
    one, other = urlsplit(first), urlsplit(second)
    return (one.scheme, one.hostname, one.port) == (other.scheme, other.hostname, other.port)


def shown_url(url: str) -> str:
    """The URL as it may be told: a query may hold a signature, a netloc a password."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}{'?…' if parts.query else ''}"


def is_loopback(host: str) -> bool:
    """Whether a host's name, or address, leads to this host by its form alone."""
    if host.lower().rstrip(".") == "localhost":
        return True
    address = _address(host)
    return address is not None and (address.is_loopback or address.is_unspecified)


def is_link_local(host: str) -> bool:
    """Whether a host's name, or address, is one of its link, or of a cloud's metadata service.

    By its form alone: what a name leads to is looked at again once it is connected.
    """
    if host.lower().rstrip(".") in _METADATA_NAMES:
        return True
    address = _address(host)
    return address is not None and (address.is_link_local or address in _METADATA)


def _address(host: str) -> _Address | None:
    """The address that a host is written as; of IPv4 also where IPv6 wraps it. None: a name."""
    try:
        address = ipaddress.ip_address(host.rstrip("."))
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return address
    # 127.0.0.1 may be written as an address of IPv6, which is no loopback of that.
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address in _NAT64:
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return inner or address


def check_sha256(text: str) -> str:
    """The sum in lower case. Raises SourceInvalid."""
    digits = text.lower()
    if not _SHA256.fullmatch(digits):
        raise SourceInvalid("is not a SHA-256: write 64 hexadecimal digits, as sha256sum does")
    return digits


def check_repository(name: str) -> str:
    """The name of a hub's repository. Raises SourceInvalid."""
    if not _REPOSITORY.fullmatch(name) or "--" in name or ".." in name:
        raise SourceInvalid(f"{name[:100]!r} is not a repository: write owner/name")
    return name


def check_revision(name: str) -> str:
    """The name of a revision. Raises SourceInvalid."""
    if not _REVISION.fullmatch(name) or ".." in name:
        raise SourceInvalid(f"{name[:100]!r} is not a branch, a tag or a commit")
    return name


def check_file(name: str) -> str:
    """The name of a file in a repository, its folders before it. Raises SourceInvalid."""
    parts = name.split("/")
    if len(name) > 512 or any(
        part in {".", ".."} or not _FILE_PART.fullmatch(part) for part in parts
    ):
        raise SourceInvalid(f"{name[:100]!r} is not the name of a file in a repository")
    return name


def place_of(source: Source) -> str:
    """Where its files come to lie, under the folder of downloads.

    A file is called by its sum, so that what lies there is what was promised, for whichever entry.
    """
    if isinstance(source, HttpSource):
        return f"sha256-{source.sha256}.gguf"
    return f"{folder_of(source)}/{source.file}" if source.file else folder_of(source)


def folder_of(source: HubSource) -> str:
    """The folder of what was taken of a repository."""
    whole = f"{source.repository}@{source.revision}:{source.file}"
    name = source.repository.rpartition("/")[2].lower()
    return f"hub/{name}-{hashlib.sha256(whole.encode()).hexdigest()[:12]}"


def stem_of(source: Source) -> str:
    """What all that was downloaded of a source lies in, or begins with, in that folder."""
    return folder_of(source) if isinstance(source, HubSource) else place_of(source)


def words_of(source: Source) -> str:
    """The source in a few words, as it may be told."""
    if isinstance(source, HttpSource):
        return shown_url(source.url)
    file = f" {source.file}" if source.file else ""
    return f"hub:{source.repository}@{source.revision}{file}"
