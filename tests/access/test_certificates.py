"""The files of [tls]: what is taken, and each refusal with its file and its reason."""

from __future__ import annotations

import base64
import os
import random
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from gpud.access.authority.issuing import Issued, new_authority
from gpud.access.certificates import Pair, peer, read_pair
from gpud.access.refusals import IdentityMissing
from gpud.errors import ConfigInvalid
from gpud.settings import Tls
from tests.access.paper import DAY, FLEET, NOW, Office, made


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path).serve()


def read(office: Office) -> Pair:
    return read_pair(office.tls, NOW)


def refusal(office: Office, now: float = NOW) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        read_pair(office.tls, now)
    words = str(caught.value)
    assert words.startswith("cannot ")
    assert "\n" not in words
    return words


def test_a_good_pair(office: Office) -> None:
    pair = read(office)
    assert pair.subject == "CN=gpu1"
    assert pair.names == ("gpu1", "localhost", "127.0.0.1", "::1")
    assert pair.not_after_wall == pytest.approx(NOW + 825 * DAY, abs=1)
    assert pair.client_ca_not_after_wall == pytest.approx(NOW + 3652 * DAY, abs=3601)
    command = "openssl", "x509", "-noout", "-fingerprint", "-sha256"
    shown = subprocess.run(
        [*command, "-in", office.path("certificate")], capture_output=True, text=True, check=True
    ).stdout
    assert shown.strip().partition("=")[2].replace(":", "").lower() == pair.fingerprint
    assert "PRIVATE" not in repr(pair)


def test_without_a_client_ca(office: Office) -> None:
    tls = Tls(certificate=str(office.path("certificate")), key=str(office.path("key")))
    pair = read_pair(tls, NOW)
    assert (pair.client_ca, pair.client_ca_not_after_wall) == (None, None)


def test_the_chain_comes_along_and_words_beside_it_do_not(office: Office) -> None:
    own = office.server().certificate
    leaf = made(office.authority)
    office.serve(Issued(certificate=b"Bag\r\n" + leaf.certificate + own, key=leaf.key))
    assert read(office).certificate == leaf.certificate + own


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)],
    ids=["P-384", "RSA"],
)
def test_other_keys_that_clients_take(office: Office, key: object) -> None:
    office.serve(made(office.authority, key=key))
    assert read(office).subject == "CN=odd"


def test_a_key_as_openssl_writes_it(office: Office) -> None:
    """With its parameters before it."""
    pem = subprocess.run(
        ["openssl", "ecparam", "-name", "prime256v1", "-genkey"], capture_output=True, check=True
    ).stdout
    assert b"EC PARAMETERS" in pem
    key = serialization.load_pem_private_key(pem, None)
    office.serve(made(office.authority, key=key))
    office.write("key", pem)
    assert b"EC PARAMETERS" not in read(office).key


def test_a_certificate_without_usages_is_for_all(office: Office) -> None:
    office.serve(made(office.authority, usage=None))
    assert read(office).subject == "CN=odd"


def missing(office: Office) -> None:
    office.path("certificate").unlink()


def a_folder(office: Office) -> None:
    office.path("key").unlink()
    office.path("key").mkdir()


def a_pipe(office: Office) -> None:
    office.path("key").unlink()
    os.mkfifo(office.path("key"), 0o600)


def large(office: Office) -> None:
    office.write("certificate", office.server().certificate + b" " * 300_000)


def no_pem(office: Office) -> None:
    certificate = x509.load_pem_x509_certificate(office.server().certificate)
    office.write("certificate", certificate.public_bytes(serialization.Encoding.DER))


def cut_off(office: Office) -> None:
    office.write("certificate", office.server().certificate[:300])


def garbage(office: Office) -> None:
    pem = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    office.write("certificate", pem)


def no_key(office: Office) -> None:
    office.write("key", office.path("certificate").read_bytes())


def encrypted(office: Office) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    office.write("key", key.private_bytes(*form, serialization.BestAvailableEncryption(b"secret")))


def open_key(office: Office) -> None:
    office.path("key").chmod(0o640)


def key_of_another(office: Office) -> None:
    office.write("key", office.server().key)


def wrong_order(office: Office) -> None:
    other = office.server().certificate
    office.write("certificate", other + office.path("certificate").read_bytes())


def ed25519_key(office: Office) -> None:
    office.serve(made(office.authority, key=ed25519.Ed25519PrivateKey.generate()))


def p521_key(office: Office) -> None:
    office.serve(made(office.authority, key=ec.generate_private_key(ec.SECP521R1())))


def short_key(office: Office) -> None:
    office.serve(made(office.authority, key=rsa.generate_private_key(65537, 1024)))


def a_clients(office: Office) -> None:
    office.serve(office.client())


def no_signature(office: Office) -> None:
    named = dict.fromkeys(
        ("digital_signature", "content_commitment", "data_encipherment", "key_agreement",
         "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False,
    )  # fmt: skip
    office.serve(made(office.authority, key_usage=x509.KeyUsage(key_encipherment=True, **named)))


def ca_without_certificates(office: Office) -> None:
    office.write("client_ca", b"")


def ca_that_is_none(office: Office) -> None:
    office.write("client_ca", office.ca + office.client().certificate)


@pytest.mark.parametrize(
    ("spoil", "file", "told"),
    [
        (missing, "certificate", "no such file"),
        (a_folder, "key", "is a directory"),
        (a_pipe, "key", "not a plain file"),
        (large, "certificate", "larger than 262144 bytes"),
        (no_pem, "certificate", "holds no PEM certificate"),
        (cut_off, "certificate", "cannot be read"),
        (garbage, "certificate", "cannot be read"),
        (no_key, "key", "holds no PEM private key"),
        (encrypted, "key", "is encrypted"),
        (open_key, "key", "others may read it (mode 0640); run `chmod 600 "),
        (key_of_another, "key", "does not belong to the certificate of "),
        (wrong_order, "certificate", "put the server's own first"),
        (ed25519_key, "key", "of a kind that clients do not take"),
        (p521_key, "key", "of a kind that clients do not take"),
        (short_key, "key", "2048 bits or more"),
        (a_clients, "certificate", "lacks serverAuth"),
        (no_signature, "certificate", "lacks digitalSignature"),
        (ca_without_certificates, "client_ca", "holds no PEM certificate"),
        (ca_that_is_none, "client_ca", "'CN=coordinator' is no CA"),
    ],
)
def test_what_is_refused(
    office: Office, spoil: Callable[[Office], None], file: str, told: str
) -> None:
    spoil(office)
    words = refusal(office)
    assert f"tls.{file} {office.path(file)}: " in words
    assert told in words


# What is not well formed shows only when it is asked for.


def der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)


def pem(der: bytes) -> bytes:
    body = base64.encodebytes(der)
    return b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n"


def no_text(der: bytes) -> bytes:
    """Its own name, the last one there, is no UTF-8."""
    at = der.rindex(b"\x55\x04\x03\x0c") + 5
    return der[:at] + b"\xff" + der[at + 1 :]


def no_kind_of_text(der: bytes) -> bytes:
    at = der.rindex(b"\x55\x04\x03\x0c") + 3
    return der[:at] + b"\x00" + der[at + 1 :]


@pytest.mark.parametrize("spoil", [no_text, no_kind_of_text])
@pytest.mark.parametrize("file", ["certificate", "client_ca"])
def test_a_name_that_cannot_be_read(
    office: Office, file: str, spoil: Callable[[bytes], bytes]
) -> None:
    if file == "client_ca":  # whose own name is asked for where it has ended
        office.authority = new_authority(NOW - 4000 * DAY)
        office.write(file, office.ca)
    office.write(file, pem(spoil(der(office.path(file).read_bytes()))))
    words = refusal(office)
    assert f"tls.{file} {office.path(file)}: " in words
    assert "cannot be read" in words


@pytest.mark.parametrize("file", ["certificate", "client_ca"])
def test_any_certificate_is_read_or_refused(office: Office, file: str) -> None:
    """Each byte once, as something else; the rest of the file is as it was."""
    good = der(office.path(file).read_bytes())
    chance = random.Random(4)
    taken = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of cryptography, about serial numbers below 0
        for at in range(len(good)):
            other = chance.choice([0x00, 0x7F, 0x80, 0xFF, chance.randrange(256)])
            office.write(file, pem(good[:at] + bytes([other]) + good[at + 1 :]))
            try:
                taken += bool(read(office))
            except ConfigInvalid as error:
                assert f" {office.path(file)}: " in str(error) or "tls.key" in str(error)  # noqa: PT017
    assert 0 < taken < len(good)


def test_its_days(office: Office) -> None:
    assert "CN=gpu1' expired on 2" in refusal(office, NOW + 826 * DAY)
    early = refusal(office, NOW - 2 * DAY)
    assert "is good only from" in early
    assert "set the clock" in early
    assert read_pair(office.tls, NOW - 3590)  # the clock of this host is late


def test_of_clients_cas_one_may_have_ended(office: Office) -> None:
    old = new_authority(NOW - 4000 * DAY)
    pem = old.certificate.public_bytes(serialization.Encoding.PEM)
    office.write("client_ca", pem + office.ca)
    assert read(office).client_ca == office.ca
    office.write("client_ca", pem)
    words = refusal(office)
    assert "tls.client_ca" in words
    assert "expired on" in words


def test_what_a_peer_says(office: Office) -> None:
    pem = made(
        office.authority,
        names=[x509.DNSName("a.test"), x509.UniformResourceIdentifier(FLEET)],
        usage=ExtendedKeyUsageOID.CLIENT_AUTH,
    ).certificate
    said = peer(pem)
    assert (said.uris, said.dns_names, said.serial) == ((FLEET,), ("a.test",), "abcdef")
    assert len(said.fingerprint) == 64
    assert said.not_after_wall == pytest.approx(NOW + 30 * DAY, abs=1)
    assert peer(bytes(pem)) is said


def test_a_peer_without_names(office: Office) -> None:
    assert peer(office.ca).uris == ()


@pytest.mark.parametrize(
    "pem", [b"", b"-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----"]
)
def test_a_peer_that_cannot_be_read(pem: bytes) -> None:
    with pytest.raises(IdentityMissing, match="cannot be read"):
        peer(pem)
