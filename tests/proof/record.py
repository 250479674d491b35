"""What a proof did, kept for the table: how much was asked, how much was done, what was violated.

A proof is a test marked `proof`. `make test` runs each with the numbers that fit there, and
`make prove` with all of them, for which it sets GPUD_PROVE=1 and names in GPUD_PROOF_RESULTS the
folder that `tests/proof/table.py` makes the table from.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

PROVING = os.environ.get("GPUD_PROVE") == "1"
RESULTS = os.environ.get("GPUD_PROOF_RESULTS", "")


def asked(in_test: int, in_prove: int) -> int:
    """How much of a proof this run does."""
    return in_prove if PROVING else in_test


def record(name: str, asked: int, done: int, violations: int, seconds: float) -> None:
    """Keep the result of a proof; `name` begins with its number in the targets: "R1 …"."""
    if not RESULTS:
        return
    folder = Path(RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    result = {
        "name": name,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "asked": asked,
        "done": done,
        "violations": violations,
        "seconds": round(seconds, 1),
        "proving": PROVING,
    }
    path = folder / (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") + ".json")
    path.write_text(json.dumps(result) + "\n")
