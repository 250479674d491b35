"""Making keys and certificates: a private CA, and those that it signs for servers and clients."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gpud.access.certificates import PrivateKey
from gpud.errors import GpudError

AUTHORITY_DAYS = 3652
# The most that Apple's TLS takes; others ask for no less.
LEAF_DAYS = 825
# The clocks of a fleet differ: what is made now is good on a host that is late.
BACKDATED = timedelta(hours=1)
ALWAYS_NAMED = ("localhost", "127.0.0.1", "::1")
MAX_URI_CHARACTERS = 255

_CLIENT_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
# Neither quotes nor a backslash, which a configuration would have to escape, nor a `*`.
_URI = re.compile(r"[a-z][a-z0-9+.-]*:[!#-&(-)+-\[\]^_a-~]+")
_SPIFFE = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)+")
_MAX_COMMON_NAME = 64


class IssueRefused(GpudError):
    """A certificate that is not made; the text is one line with the fix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A CA that can sign."""

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Whom a client's certificate names: `name` is that of its files, `uri` its identity."""

    name: str
    uri: str


def parse_server(text: str) -> str:
    """A DNS name (its first label may be `*`) or an IP address, in its usual form.

    Raises IssueRefused.
    """
    with contextlib.suppress(ValueError):
        if "%" not in text:  # a zone means something on one host alone
            return str(ipaddress.ip_address(text.strip("[]")))
    name = text.lower()
    labels = name.removeprefix("*.").split(".")
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise IssueRefused(
            f"cannot name a server {text!r}: it is neither an IP address nor a DNS name; "
            "write it as clients dial it, without a port"
        )
    if labels[-1].isdecimal():
        raise IssueRefused(f"cannot name a server {text!r}: it is no IP address; check its parts")
    return name


def parse_client(text: str) -> Client:
    """`NAME` (its identity is spiffe://gpud/NAME) or `NAME=URI`. Raises IssueRefused."""
    name, equals, uri = text.partition("=")
    if not _CLIENT_NAME.fullmatch(name) or name.endswith("-key"):
        raise IssueRefused(
            f"cannot name a client {name!r}: a name is made of lower-case letters, digits, '.', "
            "'_' and '-', 63 at most, and does not end with -key"
        )
    if not equals:
        uri = f"spiffe://gpud/{name}"
    form = _SPIFFE if uri.startswith("spiffe:") else _URI
    if len(uri) > MAX_URI_CHARACTERS or not form.fullmatch(uri):
        raise IssueRefused(
            f"cannot give the client {name} the identity {uri!r}: it is no URI of at most "
            f"{MAX_URI_CHARACTERS} plain characters; write for example spiffe://fleet/{name}"
        )
    return Client(name=name, uri=uri)


def new_authority(now_wall: float) -> Authority:
    """A CA of its own: P-256, ten years, signs no other CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    # Two of them must not be taken for one another where a fleet moves to a new one.
    name = _name(f"gpud private CA {secrets.token_hex(4)}")
    begin = _moment(now_wall) - BACKDATED
    public = key.public_key()
    certificate = (
        _builder(name, name, public)
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate=certificate, key=key)


def issue_server(authority: Authority, servers: Sequence[str], now_wall: float) -> Issued:
    """For a server that is dialled by any of `servers` (parse_server), or from its own host.

    Raises IssueRefused where the CA is not good now.
    """
    named = tuple(dict.fromkeys((*servers, *ALWAYS_NAMED)))
    names = x509.SubjectAlternativeName([_server_name(each) for each in named])
    subject = named[0] if len(named[0]) <= _MAX_COMMON_NAME else "gpud server"
    usage = ExtendedKeyUsageOID.SERVER_AUTH
    return _issue(authority, subject, names, usage, now_wall)


def issue_client(authority: Authority, client: Client, now_wall: float) -> Issued:
    """For a client. Raises IssueRefused where the CA is not good now."""
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(client.uri)])
    usage = ExtendedKeyUsageOID.CLIENT_AUTH
    return _issue(authority, client.name, names, usage, now_wall)


def client_subject(name: str) -> x509.Name:
    """What the certificate of a client of that name says as its subject."""
    return _name(name)


def key_pem(key: PrivateKey) -> bytes:
    """As a file holds it, without a passphrase."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _issue(
    authority: Authority,
    subject: str,
    names: x509.SubjectAlternativeName,
    usage: x509.ObjectIdentifier,
    now_wall: float,
) -> Issued:
    ca, now = authority.certificate, _moment(now_wall)
    if now < ca.not_valid_before_utc:
        raise IssueRefused(
            f"cannot issue a certificate: the CA is good only from "
            f"{ca.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on, and this host's clock says "
            f"{now:%Y-%m-%d %H:%M}; set the clock"
        )
    if now >= ca.not_valid_after_utc:
        raise IssueRefused(
            f"cannot issue a certificate: the CA ended on {ca.not_valid_after_utc:%Y-%m-%d}; "
            "make a new one in another folder, and let servers trust both for a while"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    certificate = (
        _builder(_name(subject), ca.subject, public)
        .not_valid_before(max(now - BACKDATED, ca.not_valid_before_utc))
        .not_valid_after(min(now + timedelta(days=LEAF_DAYS), ca.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(names, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(_issuer_identifier(ca), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return Issued(
        certificate=certificate.public_bytes(serialization.Encoding.PEM), key=key_pem(key)
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _issuer_identifier(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """As the CA calls its key itself: one that gpud did not make may do so in another way."""
    try:
        own = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        own = x509.SubjectKeyIdentifier.from_public_key(ca.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _server_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _moment(wall: float) -> datetime:
    # Certificates know whole seconds.
    return datetime.fromtimestamp(int(wall), UTC)
