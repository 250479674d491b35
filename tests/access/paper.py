"""Certificates as tests need them, good and bad."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gpud.access.authority.issuing import (
    Authority,
    Client,
    Issued,
    issue_client,
    issue_server,
    new_authority,
)
from gpud.access.certificates import pem_of
from gpud.settings import Tls

DAY = 86400.0
FLEET = "spiffe://fleet/coordinator"
# Handshakes look at the host's clock, so what is to be good is good by it.
NOW = time.time()


@dataclass
class Office:
    """A CA, and a folder with the files that [tls] names."""

    folder: Path
    authority: Authority = field(default_factory=lambda: new_authority(NOW))

    @property
    def tls(self) -> Tls:
        names = {name: str(self.path(name)) for name in ("certificate", "key", "client_ca")}
        return Tls(**names)

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def write(self, name: str, data: bytes, mode: int = 0o600) -> None:
        """A new file in the place of the old one, as programs that renew certificates do it."""
        beside = self.folder / f"{name}.new"
        beside.write_bytes(data)
        beside.chmod(mode)
        os.replace(beside, self.path(name))

    def serve(self, issued: Issued | None = None) -> Office:
        """Write a server's pair, a new one unless given, and the CA for clients."""
        issued = issued or self.server()
        self.write("certificate", issued.certificate)
        self.write("key", issued.key)
        self.write("client_ca", self.ca)
        return self

    def server(self, name: str = "gpu1", now: float = NOW) -> Issued:
        return issue_server(self.authority, (name,), now)

    def client(self, uri: str = FLEET, now: float = NOW) -> Issued:
        return issue_client(self.authority, Client(name="coordinator", uri=uri), now)

    @property
    def ca(self) -> bytes:
        return pem_of([self.authority.certificate])


def made(
    authority: Authority,
    *,
    key: Any = None,
    names: list[x509.GeneralName] | None = None,
    usage: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.SERVER_AUTH,
    key_usage: x509.KeyUsage | None = None,
) -> Issued:
    """A certificate that `gpud tls init` would not make, signed by the authority."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    now = datetime.fromtimestamp(int(NOW), UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "odd")]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(0xABCDEF)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(
            x509.SubjectAlternativeName(names or [x509.DNSName("localhost")]), critical=False
        )
    )
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if key_usage is not None:
        builder = builder.add_extension(key_usage, critical=True)
    certificate = builder.sign(authority.key, hashes.SHA256())
    return Issued(
        certificate=certificate.public_bytes(serialization.Encoding.PEM),
        key=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
