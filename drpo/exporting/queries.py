"""Queries to try an export on: the first held-out ones, which no search has seen."""

from __future__ import annotations

from drpo.data import shipped_heldout
from drpo.evaluation_data import read_items
from drpo.jsonl import plain_lines

QUERIES = "queries.jsonl"
QUERIES_NOTE = f"{QUERIES} has a few held-out queries to try it on; put yours there."
_COUNT = 5


def sample_queries() -> tuple[str, ...]:
    """A few queries."""
    return tuple(item.query for item in read_items(shipped_heldout()).items[:_COUNT])


def queries_file() -> str:
    """The same as JSON lines with the field query."""
    return plain_lines({"query": query} for query in sample_queries())
