"""Writes the table of tests/README.md from what the proofs recorded.

    python -m tests.proof.table FOLDER

A line stays until the same proof is run again, so that a part may be proved by itself.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

BEGIN = "<!-- proofs: written by `make prove` -->"
END = "<!-- end of proofs -->"
HEAD = "| quantity | asked | done | result | seconds | date |\n|---|---|---|---|---|---|\n"
README = Path(__file__).parents[1] / "README.md"


def updated(text: str, results: list[dict[str, Any]]) -> str:
    """The page with these results in its table. Raises ValueError when it has no place for one."""
    before, found, rest = text.partition(BEGIN)
    table, closed, after = rest.partition(END)
    if not found or not closed:
        raise ValueError(f"cannot write the table: no {BEGIN} … {END} in the page; put them back")
    kept = [line for line in table.splitlines() if line.startswith("| ") and line not in HEAD]
    lines = {_quantity(line): line for line in kept}
    lines |= {result["name"]: _line(result) for result in results if result["proving"]}
    body = "".join(f"{lines[name]}\n" for name in sorted(lines, key=_order))
    return f"{before}{BEGIN}\n\n{HEAD}{body}\n{END}{after}"


def _quantity(line: str) -> str:
    return line.split("|")[1].strip()


def _order(name: str) -> tuple[bool, int, str]:
    digits = name.split()[0].lstrip("RI")
    return (name[0] != "R", int(digits) if digits.isdigit() else 0, name)


def _line(result: dict[str, Any]) -> str:
    violations = result["violations"]
    said = "0 violations" if violations == 0 else f"**{violations} violations**"
    if result["done"] < result["asked"]:
        said += ", **incomplete**"
    return (
        f"| {result['name']} | {result['asked']} | {result['done']} | {said} "
        f"| {result['seconds']:g} | {result['date']} |"
    )


def main() -> None:
    found = [json.loads(path.read_text()) for path in sorted(Path(sys.argv[1]).glob("*.json"))]
    README.write_text(updated(README.read_text(), found))
    bad = [each["name"] for each in found if each["violations"] or each["done"] < each["asked"]]
    print(f"{len(found)} proofs recorded in {README.name}; {len(bad)} failed {bad or ''}".rstrip())
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
