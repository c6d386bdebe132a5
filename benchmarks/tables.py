"""How the benchmarks print."""

from __future__ import annotations


def aligned(rows: list[list[str]]) -> str:
    """Rows of text as a table, the first column to the left."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:])),
            ]
        ).rstrip()
        for row in rows
    )
