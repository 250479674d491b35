"""The file of access.denied: what it covers, and which lines are no good."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.access.certificates import peer
from gpud.access.denied import MAX_DENIED, Denied, doubt, parse_denied
from gpud.errors import ConfigInvalid
from tests.access.paper import Office

FINGERPRINT = "0a" * 32
TEXT = f"""
# gone on Friday
spiffe://fleet/old   # a URI may have a #fragment
spiffe://fleet/x#1
anna@host
ci\r
Serial:00:AB:cd
SHA256:{":".join(["0A"] * 32)}
"""


def test_what_a_file_covers() -> None:
    denied = parse_denied(TEXT, "denied")
    assert denied.names == {"spiffe://fleet/old", "spiffe://fleet/x#1", "anna@host", "ci"}
    assert denied.covers(("other", "anna@host"), "", "")
    assert denied.covers((), "abcd", "")
    assert denied.covers((), "", FINGERPRINT)
    assert not denied.covers(("Anna@host", "spiffe://fleet/x"), "abcde", FINGERPRINT[:-1])


PRINTED = {
    "serial=01AB": ("1ab", ""),
    "serial=00": ("0", ""),
    f"sha256={FINGERPRINT}": ("", FINGERPRINT),
    f"SHA256 Fingerprint={':'.join(['0A'] * 32)}": ("", FINGERPRINT),
    f"sha256 Fingerprint={':'.join(['0A'] * 32)}": ("", FINGERPRINT),
    ":".join(["0A"] * 32): ("", FINGERPRINT),
}


@pytest.mark.parametrize("line", PRINTED)
def test_a_certificate_as_programs_print_it(line: str) -> None:
    denied = parse_denied(f"{line}  # gone\n", "f")
    assert denied.covers((), *PRINTED[line])
    assert denied.names == frozenset()


def test_what_openssl_prints_now(tmp_path: Path) -> None:
    office = Office(tmp_path)
    issued = office.client()
    office.write("client", issued.certificate)
    said = peer(issued.certificate)
    for words in (("-serial",), ("-fingerprint", "-sha256")):
        shown = subprocess.run(
            ["openssl", "x509", "-noout", *words, "-in", office.path("client")],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        denied = parse_denied(shown, "f")
        assert denied.covers((), said.serial, "") or denied.covers((), "", said.fingerprint)


@pytest.mark.parametrize(
    "name", ["1234", "dead", "ci", "urn:x=y", "spiffe://a/b?x=1", "a@b=c", "a" * 64 + ".test"]
)
def test_names_that_look_a_little_like_it(name: str) -> None:
    assert parse_denied(name, "f").names == {name}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("anna", "'anna' is in neither [identities] nor [tokens] and perhaps denies nobody"),
        ("1a2b3c", "'1a2b3c' is in neither"),
        ("gpu1.lan", "'gpu1.lan' is in neither"),
        ("d\nc\nb\na\nci", "'a', 'b', 'c' and 1 more are in neither"),
        ("c\nb\na", "'a', 'b', 'c' are in neither"),
        ("anna@host\nspiffe://fleet/anna\nurn:x\na/b\nci\nserial:1a\nanonymous", ""),
        ("", ""),
    ],
)
def test_names_that_may_be_nobodys_are_told(text: str, told: str) -> None:
    said = doubt(parse_denied(text, "f"), {"ci", "anonymous"})
    assert said.startswith(told)
    assert bool(said) == bool(told)
    assert not said or said.endswith("write a user as name@host, and of a certificate serial:HEX")


def test_nobody_is_denied_by_an_empty_file_or_none() -> None:
    for denied in (parse_denied("", "f"), parse_denied("# nobody\n\n", "f"), Denied()):
        assert not denied.covers(("anna@host", ""), "", "")


WRONG = {
    "two on a line": ("a\nb c", "f:2", "one to a line"),
    "control character": ("a\x07", "f:1", "control character"),
    "a line's end that no editor shows": ("a\u2028b", "f:1", "control character"),
    "empty serial": ("serial:", "f:1", "no serial number"),
    "serial with a sign": ("serial:0x1f", "f:1", "no serial number"),
    "serial too long": (f"serial:{'1' * 41}", "f:1", "no serial number"),
    "short fingerprint": ("\nsha256:abcd", "f:2", "64 hexadecimal digits"),
    "another hash": ("sha1:abcd", "f:1", "no kind of entry"),
    "a number as programs write it": ("anna@host\n0x1234", "f:2", "would deny nobody; write"),
    "a hash of whatever": (FINGERPRINT, "f:1", "serial:HEX or sha256:HEX of a certificate"),
    "half a hash": ("0123456789abcdef", "f:1", "no kind of entry"),
    "a SHA-1 fingerprint, or a serial": (":".join(["AA"] * 20), "f:1", "no kind of entry"),
    "a subject": ("CN=anna", "f:1", "write a name alone"),
    "another hash of openssl": ("SHA1=abcd", "f:1", "no kind of entry"),
    "nothing after it": ("serial=", "f:1", "no serial number"),
    "no fingerprint": ("sha256 Fingerprint=AA:BB", "f:1", "64 hexadecimal digits"),
    "what openssl prints": ("DNS:example.test", "f:1", "write a name alone"),
    "too long": ("n" * 257, "f:1", "at most 256"),
}


@pytest.mark.parametrize(("text", "place", "told"), WRONG.values(), ids=WRONG)
def test_a_line_that_is_no_good_is_named(text: str, place: str, told: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse_denied(text, "f")
    words = str(caught.value)
    assert words.startswith(f"cannot use access.denied {place}: ")
    assert told in words
    assert "\n" not in words


def test_it_is_bounded() -> None:
    full = "\n".join(f"n{number}" for number in range(MAX_DENIED))
    assert len(parse_denied(full, "f").names) == MAX_DENIED
    with pytest.raises(ConfigInvalid, match=rf"f:{MAX_DENIED + 1}: more than"):
        parse_denied(f"{full}\none-more", "f")


@given(st.text(max_size=200))
def test_property_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ConfigInvalid):
        assert all(name in text for name in parse_denied(text, "f").names)


@given(st.integers(min_value=0, max_value=2**160 - 1))
def test_property_a_serial_is_denied_however_it_is_written(serial: int) -> None:
    digits = f"{serial:X}"
    digits = digits.zfill(len(digits) + len(digits) % 2)
    colons = ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))
    for written in (digits, digits.lower(), colons):
        assert parse_denied(f"serial:{written}", "f").covers((), f"{serial:x}", "")
