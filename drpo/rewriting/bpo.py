"""BPO in use (arXiv 2311.04155): one rewrite of the user's query, or several rounds of it."""

from __future__ import annotations

from dataclasses import dataclass

from drpo.rewriting.asking import Left, Writer, by_words
from drpo.rewriting.checks import FLOORS, why_kept
from drpo.rewriting.contract import Rewrite, Why
from drpo.types import Failed


@dataclass(frozen=True, slots=True)
class BpoRewriter:
    """Rewrites a query, and with `rounds` above 1 what it wrote once more (the paper gained up to the fourth
    round and lost a little in the fifth).

    Each round is held against the user's own words, not against the round before, so that small losses do
    not add up. A round that cannot stand ends it, and what the last good one wrote is used; where already
    the first cannot, the query itself.
    """

    writer: Writer
    rounds: int = 1
    left: Left = by_words

    async def rewrite(self, query: str, place: str = "") -> tuple[Rewrite, ...]:
        """One rewrite, of weight 1."""
        text, done = query, list[str]()
        for number in range(1, self.rounds + 1):
            written = await self.writer.rewrite(text, f"{place} round {number}")
            why, note = await self._judged(query, written)
            if isinstance(written, Failed) or why:
                kept = why if not done else ""
                return (Rewrite(query, text, kept, tuple(done), note=note),)
            done.append(written)
            if written == text:  # nothing more to improve: another round would be asked the same
                break
            text = written
        return (Rewrite(query, text, rounds=tuple(done)),)

    async def _judged(self, query: str, written: str | Failed) -> tuple[Why, str]:
        """Why the written cannot stand, "" where it can; and a note for whoever wants to know."""
        if isinstance(written, Failed):
            return "failed", written.reason
        share = await self.left(query, written)
        why = why_kept(query, written, share, FLOORS[self.writer.mode])
        return why, written if why else ""
