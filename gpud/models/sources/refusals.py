"""Pure: why a model's files did not come, or are not what they should be."""

from __future__ import annotations

from dataclasses import dataclass

from gpud.errors import GpudError, ModelFileInvalid
from gpud.units import format_size


class SourceInvalid(ValueError):
    """A URL, a repository or a checksum that is not accepted; the text says what would be."""


@dataclass(kw_only=True, eq=False)
class DownloadRefused(GpudError):
    """The server, or a rule of ours, says no; asked again it would be the same."""

    reason = "DOWNLOAD_REFUSED"

    url: str
    problem: str
    advice: str

    def __str__(self) -> str:
        return f"cannot download {self.url}: {self.problem}; {self.advice}"


@dataclass(kw_only=True, eq=False)
class DownloadFailed(GpudError):
    """The server does not answer as it should; a later attempt may go better."""

    reason = "DOWNLOAD_FAILED"

    url: str
    problem: str
    attempts: int
    kept_bytes: int

    def __str__(self) -> str:
        tries = f"after {self.attempts} attempts" if self.attempts > 1 else "at once"
        kept = f", which goes on from {format_size(self.kept_bytes)}" if self.kept_bytes else ""
        return f"cannot download {self.url}: {self.problem}, {tries}; load it again later{kept}"


@dataclass(kw_only=True, eq=False)
class DiskInsufficient(GpudError):
    """A download would not leave the disk the room that is kept free on it."""

    reason = "DISK_INSUFFICIENT"

    folder: str
    needed_bytes: int
    free_bytes: int
    promised_bytes: int  # to other downloads that are under way
    kept_bytes: int

    def __str__(self) -> str:
        others = (
            f", {format_size(self.promised_bytes)} of it for other downloads"
            if self.promised_bytes
            else ""
        )
        return (
            f"cannot download to {self.folder}: {format_size(self.needed_bytes)} more are needed, "
            f"{format_size(self.free_bytes)} are free{others}, and "
            f"{format_size(self.kept_bytes)} stay free for gpud itself; make room, or set "
            "models.download_dir"
        )


class ChecksumWrong(ModelFileInvalid):
    """The whole file was read, and has not the sum that was promised: read again, it would not."""


class DigestMismatch(Exception):
    """What came is not what was promised; nothing of it is kept."""

    def __init__(self, name: str, expected: str, found: str) -> None:
        super().__init__(f"{name} is {found}, promised was {expected}")
        self.name = name
        self.expected = expected
        self.found = found
