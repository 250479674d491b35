"""The files of [tls]: read, checked, and what a certificate says.

Each refusal is a ConfigInvalid of one line that names the setting, the file and what is wrong.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from gpud.access.refusals import IdentityMissing
from gpud.errors import ConfigInvalid
from gpud.settings import Tls

MAX_FILE_BYTES = 256 * 1024
MIN_RSA_BITS = 2048
# Others (Ed25519, P-521) load, and then no handshake succeeds: gRPC's clients do not offer them.
CURVES = (ec.SECP256R1, ec.SECP384R1)
SERVED_KEYS = "an RSA key of 2048 bits or more, or an EC key on P-256 or P-384"
_PEERS_KEPT = 1024
# What cryptography raises for a certificate, or a part of one, that is not well formed.
_UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
Opener = Callable[[str, int], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate that can be served, its key, and the CA of clients, all PEM.

    `certificate` is the chain, the server's own first; `not_after_wall` (seconds since the epoch)
    is when the first of it ends. `client_ca` is None where clients need no certificate, and
    `client_ca_not_after_wall` the end of the first of those CAs that are still good.
    """

    certificate: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None
    subject: str
    names: tuple[str, ...]
    fingerprint: str
    not_after_wall: float
    client_ca_not_after_wall: float | None


class PeerCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """What names a client. Serial and SHA-256 fingerprint are lower-case hex."""

    uris: tuple[str, ...]
    dns_names: tuple[str, ...]
    serial: str
    fingerprint: str
    not_after_wall: float


def read_pair(tls: Tls, now_wall: float) -> Pair:
    """The files of [tls] as they are now. Raises ConfigInvalid."""
    chain = read_certificates("tls.certificate", tls.certificate)
    key = read_key("tls.key", tls.key)
    leaf = chain[0]
    with readable("tls.certificate", tls.certificate):
        _check_match(tls, chain, key)
        for each in chain:
            _check_dates("tls.certificate", tls.certificate, each, now_wall)
        _check_usage(tls.certificate, leaf)
        authorities = _client_authorities(tls.client_ca, now_wall) if tls.client_ca else []
        return Pair(
            certificate=pem_of(chain),
            key=key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
            client_ca=pem_of(authorities) if authorities else None,
            subject=leaf.subject.rfc4514_string(),
            names=names_of(leaf),
            fingerprint=fingerprint_of(leaf),
            not_after_wall=min(map(_not_after, chain)),
            client_ca_not_after_wall=min(map(_not_after, authorities), default=None),
        )


@contextmanager
def readable(key: str, path: str) -> Iterator[None]:
    """To be held about all that is asked of the certificates of a file.

    What is not well formed in a certificate shows only when that part is asked for. Raises
    ConfigInvalid naming `key`.
    """
    try:
        yield
    except _UNREADABLE as error:
        raise _refusal(
            key, path, "has a certificate of which a part cannot be read; put another in its place"
        ) from error


@lru_cache(maxsize=_PEERS_KEPT)
def peer(pem: bytes) -> PeerCertificate:
    """What a client's certificate says, kept for its next call. Raises IdentityMissing."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        names = _alternative_names(certificate)
        return PeerCertificate(
            uris=tuple(names.get_values_for_type(x509.UniformResourceIdentifier)) if names else (),
            dns_names=tuple(names.get_values_for_type(x509.DNSName)) if names else (),
            serial=f"{certificate.serial_number:x}",
            fingerprint=fingerprint_of(certificate),
            not_after_wall=_not_after(certificate),
        )
    except _UNREADABLE as error:
        raise IdentityMissing(problem="its certificate cannot be read") from error


def _opened(path: str, flags: int) -> int:
    """Without O_NONBLOCK a pipe of that name would hold us until somebody writes."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def read_certificates(key: str, path: str, opener: Opener = _opened) -> list[x509.Certificate]:
    """Every certificate of a PEM file, at least one, to be asked within `readable`.

    Raises ConfigInvalid naming `key`.
    """
    data, _ = read_plain(key, path, MAX_FILE_BYTES, opener)
    try:
        return x509.load_pem_x509_certificates(data)
    except _UNREADABLE as error:
        problem = (
            "has a certificate that cannot be read"
            if b"-----BEGIN CERTIFICATE-----" in data
            else "holds no PEM certificate"
        )
        raise _refusal(key, path, f"{problem}; write the chain as PEM") from error


def read_key(key: str, path: str, opener: Opener = _opened) -> PrivateKey:
    """The private key of a PEM file that nobody else may read. Raises ConfigInvalid."""
    data, mode = read_plain(key, path, MAX_FILE_BYTES, opener)
    if mode & 0o077:
        raise _refusal(
            key, path, f"others may read it (mode {mode:04o}); run `chmod 600 {shlex.quote(path)}`"
        )
    try:
        found = serialization.load_pem_private_key(data, password=None)
    except TypeError as error:
        raise _refusal(
            key, path, "is encrypted; write it without a passphrase (`openssl pkey`)"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _refusal(key, path, "holds no PEM private key that can be read") from error
    if isinstance(found, rsa.RSAPrivateKey) and found.key_size >= MIN_RSA_BITS:
        return found
    if isinstance(found, ec.EllipticCurvePrivateKey) and isinstance(found.curve, CURVES):
        return found
    raise _refusal(key, path, f"is of a kind that clients do not take; make {SERVED_KEYS}")


def read_plain(key: str, path: str, max_bytes: int, opener: Opener = _opened) -> tuple[bytes, int]:
    """What a plain file holds, and its permission bits: of the file that was read, no other.

    `opener` opens the path without blocking. Raises ConfigInvalid naming `key`.
    """
    try:
        with open(path, "rb", opener=opener) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise _refusal(key, path, "is not a plain file")
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise ConfigInvalid(
            f"cannot read {key} {path}: {(error.strerror or str(error)).lower()}; "
            "it must be there and readable for the user that gpud runs as"
        ) from error
    if len(data) > max_bytes:
        raise _refusal(key, path, f"is larger than {max_bytes} bytes")
    return data, stat.S_IMODE(mode)


def pem_of(certificates: Sequence[x509.Certificate]) -> bytes:
    """Them and nothing else of the file that they came from."""
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Its alternative names: URIs, then DNS names, then addresses. Raises ValueError."""
    names = _alternative_names(certificate)
    if names is None:
        return ()
    return (
        *names.get_values_for_type(x509.UniformResourceIdentifier),
        *names.get_values_for_type(x509.DNSName),
        *map(str, names.get_values_for_type(x509.IPAddress)),
    )


def usages_of(certificate: x509.Certificate) -> frozenset[str] | None:
    """The dotted OIDs of its extended key usage; None where it has none, which allows all."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return None
    return frozenset(each.dotted_string for each in found)


def fingerprint_of(certificate: x509.Certificate) -> str:
    """SHA-256 of the whole certificate, lower-case hex."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def fits(certificate: x509.Certificate, key: PrivateKey) -> bool:
    """Whether the certificate is that of the key."""
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return certificate.public_key().public_bytes(*form) == key.public_key().public_bytes(*form)


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether it may sign others."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _check_match(tls: Tls, chain: Sequence[x509.Certificate], key: PrivateKey) -> None:
    fitting = [fits(each, key) for each in chain]
    if not any(fitting):
        raise _refusal(
            "tls.key", tls.key, f"does not belong to the certificate of {tls.certificate}"
        )
    if not fitting[0]:
        raise _refusal(
            "tls.certificate",
            tls.certificate,
            "begins with another certificate than the key's; put the server's own first",
        )


def _check_dates(key: str, path: str, certificate: x509.Certificate, now_wall: float) -> None:
    subject = certificate.subject.rfc4514_string()
    if now_wall >= _not_after(certificate):
        day = _day(_not_after(certificate))
        raise _refusal(key, path, f"{subject!r} expired on {day}; put a new one in its place")
    begins = certificate.not_valid_before_utc.timestamp()
    if now_wall < begins:
        raise _refusal(
            key,
            path,
            f"{subject!r} is good only from {_day(begins)} on, and this host's clock says "
            f"{_day(now_wall)}; set the clock, or wait",
        )


def _check_usage(path: str, leaf: x509.Certificate) -> None:
    usages = usages_of(leaf)
    if usages is not None and ExtendedKeyUsageOID.SERVER_AUTH.dotted_string not in usages:
        raise _refusal(
            "tls.certificate",
            path,
            "is not for servers: its extended key usage lacks serverAuth; name a server's one",
        )
    if not _signs(leaf):
        raise _refusal(
            "tls.certificate", path, "is not for TLS: its key usage lacks digitalSignature"
        )


def _signs(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return usage.digital_signature


def _client_authorities(path: str, now_wall: float) -> list[x509.Certificate]:
    """Those that are good now: of an old CA beside its successor, the old one may have ended."""
    found = read_certificates("tls.client_ca", path)
    with readable("tls.client_ca", path):
        for each in found:
            if not is_authority(each):
                subject = each.subject.rfc4514_string()
                raise _refusal(
                    "tls.client_ca", path, f"{subject!r} is no CA; name the clients' CA"
                )
        good = [each for each in found if now_wall < _not_after(each)]
        if not good:
            _check_dates("tls.client_ca", path, found[0], now_wall)
    return good


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def _not_after(certificate: x509.Certificate) -> float:
    return certificate.not_valid_after_utc.timestamp()


def _day(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d")


def _refusal(key: str, path: str, problem: str) -> ConfigInvalid:
    return ConfigInvalid(f"cannot use {key} {path}: {problem}")
