"""Prints the matrix: `python -m tests.proof.faults`."""

from __future__ import annotations

from tests.proof.faults.expected import FAULTS, PHASES, Expectation
from tests.proof.faults.matrix import MATRIX

HEAD = ("state", "bytes of gpu0", "event", "Reserve")


def table() -> str:
    """A table for each fault, a line for each phase."""
    lines: list[str] = []
    for fault in FAULTS:
        rows = [(fault, *HEAD)]
        for phase in PHASES:
            cell = MATRIX[fault, phase]
            if not isinstance(cell, Expectation):
                rows.append((phase, f"not applicable: {cell.why}", "", "", ""))
                continue
            code = f"{cell.code} (on the ledger alone)" if cell.on_desk else cell.code
            rows.append((phase, cell.state, cell.bytes, cell.event, code))
        told = [row for row in rows if any(row[2:])]
        widths = [max(len(row[column]) for row in told) for column in range(5)]
        for row in rows:
            pairs = zip(row, widths, strict=True)
            lines.append("  ".join(text.ljust(width) for text, width in pairs).rstrip())
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
