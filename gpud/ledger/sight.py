"""Pure: what the ledger sees of the devices, and the terms it reckons from that."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from gpud.devices.snapshot import DeviceKind, Sample, Snapshot
from gpud.ledger.books import Books
from gpud.ledger.charge import Charge, Reckoning, Reserves, charge


class Sight:
    """The newest snapshot, and what was learned of each card while it was empty."""

    def __init__(self, reserves: Reserves) -> None:
        self.reserves = reserves
        self.snapshot: Snapshot | None = None
        self._samples: dict[str, Sample] = {}
        self._baselines: dict[str, int] = {}
        self._reckonings: dict[str, Reckoning] = {}

    def reserve(self, reserves: Reserves) -> None:
        """Keep so much free from now on."""
        self.reserves = reserves
        self._reckonings.clear()

    def look(self, snapshot: Snapshot) -> None:
        """Take in the newest snapshot."""
        self.snapshot = snapshot
        self._samples = {sample.info.uuid: sample for sample in snapshot.samples}
        for known in (self._baselines, self._reckonings):
            for uuid in known.keys() - self._samples.keys():
                del known[uuid]

    @property
    def devices(self) -> Container[str]:
        """The UUIDs of those that there are."""
        return self._samples.keys()

    @property
    def complete(self) -> bool:
        """Whether every device answered or missed its deadline: nothing is granted blind."""
        return self.snapshot is not None and self.snapshot.complete

    def sample(self, uuid: str) -> Sample | None:
        """The newest sample of a device."""
        return self._samples.get(uuid)

    def host(self) -> Sample | None:
        """The newest sample of the host's RAM; None where it is no device."""
        hosts = (s for s in self._samples.values() if s.info.kind is DeviceKind.HOST)
        return next(hosts, None)

    def baseline(self, uuid: str) -> int:
        """The residue of a card when it was last seen empty."""
        return self._baselines.get(uuid, 0)

    def terms(self, sample: Sample, books: Books) -> Charge:
        """The terms of one device on someone's books."""
        uuid = sample.info.uuid
        book, baseline = books.device(uuid), self.baseline(uuid)
        known = self._reckonings.get(uuid)
        if known is None or not known.holds(sample, book, baseline):
            known = self._reckonings[uuid] = Reckoning(
                sample=sample,
                book=book,
                version=book.version,
                baseline_bytes=baseline,
                charge=charge(sample, book, self.reserves, baseline),
            )
        return known.charge

    def charges(self, books: Books) -> dict[str, Charge]:
        """Every device's terms by UUID."""
        return {uuid: self.terms(sample, books) for uuid, sample in self._samples.items()}

    def charges_of(self, uuids: Iterable[str], books: Books) -> dict[str, Charge]:
        """The terms of some devices."""
        samples = [self.sample(uuid) for uuid in uuids]
        return {s.info.uuid: self.terms(s, books) for s in samples if s is not None}

    def learn_baseline(self, sample: Sample, books: Books) -> None:
        """The residue of an empty card is its driver's, and its reserve absorbs it."""
        uuid = sample.info.uuid
        book = books.device(uuid)
        if sample.processes or book.leaked_bytes or book.bound:
            return
        if sample.info.kind is not DeviceKind.HOST:
            used = sample.memory_used_at_list_bytes or 0
            self._baselines[uuid] = min(used, self.reserves.of(sample))


class Lag:
    """Bytes that a device still shows of processes that its list no longer has, by promise.

    A driver gives memory back some time after its process has left the list. What a promise leaves
    so before it ends is on its way back as much as what it leaves afterwards, and no residue of
    the card.
    """

    def __init__(self) -> None:
        self._lists: dict[str, tuple[Mapping[str, int], int]] = {}
        self._lags: dict[str, dict[str, int]] = {}

    def look(self, uuid: str, observed: Mapping[str, int], residue: int | None) -> None:
        """Take in a list: bytes by promise, and what is used beyond all processes."""
        if residue is None:
            return
        before = self._lists.get(uuid)
        self._lists[uuid] = (dict(observed), residue)
        if before is None:
            return
        last, rise = before[0], residue - before[1]
        lags = self._lags.setdefault(uuid, {})
        for id_, size in last.items():
            gone = min(size - observed.get(id_, 0), rise)
            if gone > 0:
                lags[id_] = lags.get(id_, 0) + gone
                rise -= gone
        if rise < 0:
            self._came_back(lags, -rise)

    def of(self, uuid: str, id_: str) -> int:
        """What of a promise is on its way back."""
        return self._lags.get(uuid, {}).get(id_, 0)

    def on(self, uuid: str) -> int:
        """What is on its way back on a device, of whomever."""
        return sum(self._lags.get(uuid, {}).values())

    def settle(self, uuid: str, id_: str) -> None:
        """It is leaked from now on, or free."""
        self._lags.get(uuid, {}).pop(id_, None)

    def keep(self, devices: Container[str]) -> None:
        """Forget all other devices: they are gone."""
        for uuid in [each for each in self._lists if each not in devices]:
            del self._lists[uuid]
            self._lags.pop(uuid, None)

    @staticmethod
    def _came_back(lags: dict[str, int], size: int) -> None:
        """So much is shown no more; whose it was, the oldest first, nobody can tell."""
        for id_ in list(lags):
            part = min(lags[id_], size)
            lags[id_] -= part
            size -= part
            if not lags[id_]:
                del lags[id_]
