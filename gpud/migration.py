"""Pure: rows as earlier versions of the format wrote them, as this one reads them.

Works on the JSON itself: what the types were then is nowhere else any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec


def from_version_1(
    rows: Iterable[tuple[str, str, bytes]],
) -> Iterator[tuple[bytes, str, str]]:
    """Of rows (kind, id, body) those that version 2 has otherwise: (new body, kind, id).

    In version 1 a reservation had no request of its own, and nobody waited: who asked, and for
    what, stood beside what was granted.
    """
    for kind, id_, body in rows:
        if kind != "reservation":
            continue
        try:
            old = msgspec.json.decode(body)
            if "request" not in old:
                yield msgspec.json.encode(_reservation(old)), kind, id_
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
            pass  # it stays as it is, and whoever reads it says so


def _reservation(old: dict[str, Any]) -> dict[str, Any]:
    grants = old["grants"]
    # Before any boot that there is: the wall clock places it.
    created = {"boot_id": "", "boottime": 0.0, "wall": old["created_wall"]}
    request = {
        "owner": old["owner"],
        "bytes": max((grant["bytes"] for grant in grants), default=0),
        "devices": [grant["device"] for grant in grants],
        "device_count": max(1, len(grants)),
        "ttl_seconds": old.get("ttl_seconds"),
        "labels": old.get("labels", {}),
        "instance": old.get("instance"),
    }
    moved = {"owner", "labels", "instance", "created_wall"}
    kept = {key: value for key, value in old.items() if key not in moved}
    return kept | {"request": request, "created": created, "granted": created}
