"""Pure: who is refused whatever else it may show; the file of access.denied, line by line.

A line is the name of an identity (a SAN of a certificate, a token's name, user@host), or
`serial:HEX`, or `sha256:HEX` (a certificate's fingerprint), these two also as openssl prints them.
`#` at the start of a line or after a blank begins a comment.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable

import msgspec

from gpud.errors import ConfigInvalid

MAX_DENIED_BYTES = 1024 * 1024
MAX_DENIED = 16_384
MAX_NAME_CHARACTERS = 256
_MOST_TOLD = 3

_COMMENT = re.compile(r"(^|\s)#.*")
_HEX = re.compile(r"[0-9a-f]+")
# RFC 5280 has at most 20 octets for a serial.
_MAX_SERIAL_DIGITS = 40
_SHA256_DIGITS = 64
# Also `serial=…` and `sha256 Fingerprint=…`, as openssl has it.
_CERTIFICATE = re.compile(r"(serial|sha256)(?: fingerprint)?[:=](\S*)", re.IGNORECASE)
_PRINTED_FINGERPRINT = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){31}", re.IGNORECASE)
_PLACED = re.compile(r"[@:/]")
# What programs print before a name or a number, and numbers that may be of several kinds (the
# SHA-256 also of a token). As names they would deny nobody, silently. Before an `=` a URI has its
# scheme, and other names have none.
_MISTAKEN = re.compile(
    r"(cn|dns|email|fingerprint|ip|md5|name|serialnumber|sha-?1|sha-256|sha384|sha512|subject"
    r"|token|uri|user):.*"
    r"|[^:@/]*=.*"
    r"|0x[0-9a-f]*|[0-9a-f]{16,}|[0-9a-f]{2}(:[0-9a-f]{2})+",
    re.IGNORECASE,
)


class Denied(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is refused; serials and fingerprints in lower-case hex."""

    names: frozenset[str] = frozenset()
    serials: frozenset[str] = frozenset()
    fingerprints: frozenset[str] = frozenset()

    def covers(self, names: Iterable[str], serial: str, fingerprint: str) -> bool:
        """Whether any of these is refused; without a certificate the last two are empty."""
        return (
            serial in self.serials
            or fingerprint in self.fingerprints
            or not self.names.isdisjoint(names)
        )


def parse_denied(text: str, source: str) -> Denied:
    """What the text of the file `source` denies.

    Raises ConfigInvalid naming `source` and the line of the first that is no good.
    """
    names: set[str] = set()
    serials: set[str] = set()
    fingerprints: set[str] = set()
    # Not splitlines: it also breaks at characters that an editor shows no line's end for.
    for number, line in enumerate(text.split("\n"), start=1):
        entry = _COMMENT.sub("", line).strip()
        if not entry:
            continue
        try:
            kind, value = _entry(entry)
        except ValueError as error:
            raise ConfigInvalid(f"cannot use access.denied {source}:{number}: {error}") from None
        {"serial": serials, "sha256": fingerprints, "name": names}[kind].add(value)
        if len(names) + len(serials) + len(fingerprints) > MAX_DENIED:
            raise ConfigInvalid(
                f"cannot use access.denied {source}:{number}: more than {MAX_DENIED} entries; "
                "issue new certificates from a new CA instead"
            )
    return Denied(
        names=frozenset(names),
        serials=frozenset(serials),
        fingerprints=frozenset(fingerprints),
    )


def doubt(denied: Denied, known: Container[str]) -> str:
    """Which names may deny nobody, though they look as if they did; empty where there are none.

    `known` are those that the configuration has. Of others a user's has an @, a URI its : and /.
    """
    names = [
        repr(name)
        for name in sorted(denied.names)
        if name not in known and not _PLACED.search(name)
    ]
    if not names:
        return ""
    more = f" and {len(names) - _MOST_TOLD} more" if len(names) > _MOST_TOLD else ""
    are, deny = ("are", "deny") if len(names) > 1 else ("is", "denies")
    return (
        f"{', '.join(names[:_MOST_TOLD])}{more} {are} in neither [identities] nor [tokens] and "
        f"perhaps {deny} nobody; write a user as name@host, and of a certificate serial:HEX"
    )


def _entry(entry: str) -> tuple[str, str]:
    """What kind of entry it is, and its value. Raises ValueError with the problem and the fix."""
    if len(entry) > MAX_NAME_CHARACTERS:
        raise ValueError(f"{len(entry)} characters; an entry has at most {MAX_NAME_CHARACTERS}")
    if (shown := _CERTIFICATE.fullmatch(entry)) is not None:
        kind, text = shown[1].lower(), shown[2]
        return kind, _serial(text) if kind == "serial" else _fingerprint(text)
    if not entry.isprintable() or any(character.isspace() for character in entry):
        raise ValueError(f"{entry!r} holds a blank or a control character; write one to a line")
    if _PRINTED_FINGERPRINT.fullmatch(entry):
        return "sha256", _fingerprint(entry)
    if _MISTAKEN.fullmatch(entry):
        raise ValueError(
            f"{entry!r} is no kind of entry and would deny nobody; write a name alone, serial:HEX "
            "or sha256:HEX of a certificate (`gpud tls show FILE` prints them)"
        )
    return "name", entry


def _serial(text: str) -> str:
    digits = text.replace(":", "").lower()
    if not _HEX.fullmatch(digits) or len(digits) > _MAX_SERIAL_DIGITS:
        raise ValueError(
            f"{text!r} is no serial number; write up to {_MAX_SERIAL_DIGITS} hexadecimal digits"
        )
    return digits.lstrip("0") or "0"


def _fingerprint(text: str) -> str:
    digits = text.replace(":", "").lower()
    if not _HEX.fullmatch(digits) or len(digits) != _SHA256_DIGITS:
        raise ValueError(
            f"{text!r} is no SHA-256 fingerprint; write {_SHA256_DIGITS} hexadecimal digits "
            "(`gpud tls show FILE` prints them)"
        )
    return digits
