"""Align-Pro in use (arXiv 2501.03486, Lemma 5.1): rewrites drawn from a prompter and weighed by the reward
of the frozen model's answers."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from drpo.align_pro.closed_form import optimal
from drpo.ask import derived_seed
from drpo.rewriting.asking import Left, Writer, by_words
from drpo.rewriting.checks import FLOORS, why_kept
from drpo.rewriting.contract import Rewrite, Why
from drpo.search.engine import settle
from drpo.types import Failed

RewardOf = Callable[[str, str], Awaitable[float | None]]
"""(the user's query, what the base model is to read) -> reward of its answer, judged for the user's query;
None where there is none."""


@dataclass(frozen=True, slots=True)
class Prompter:
    """One rewrite of a reference or trained prompter, as it comes."""

    writer: Writer
    left: Left = by_words

    async def rewrite(self, query: str, place: str = "") -> tuple[Rewrite, ...]:
        """One rewrite, of weight 1."""
        return ((await drawn(self.writer, self.left, query, place, 1))[0],)


@dataclass(frozen=True, slots=True)
class WeighedPrompter:
    """N rewrites x' of the prompter, each with the weight exp(R(x, x') / lambda) among them: samples of rho*.

    Rewrites that cannot stand are the user's own words, and weighed as such. One without a reward has no
    weight; where none has one, the query stands. pick: which is the first: one drawn by its weight, or the
    heaviest.
    """

    writer: Writer
    reward: RewardOf
    samples: int
    lambda_: float
    pick: Literal["resample", "best"] = "resample"
    random_seed: int = 0
    left: Left = by_words

    async def rewrite(self, query: str, place: str = "") -> tuple[Rewrite, ...]:
        """The different rewrites, the chosen one first, the others by falling weight."""
        found = await drawn(self.writer, self.left, query, place, self.samples)
        counts = Counter(one.text for one in found)
        kinds = {one.text: one for one in reversed(found)}
        texts = list(counts)
        rewards = await settle(self.reward(query, text) for text in texts)
        pairs = zip(texts, rewards, strict=True)
        known = [(text, value) for text, value in pairs if value is not None and math.isfinite(value)]
        if not known:
            return (Rewrite(query, query, "failed", note="no answer to any rewrite has a reward"),)
        total = sum(counts[text] for text, _ in known)
        shares = [counts[text] / total for text, _ in known]
        weights = optimal(shares, [value for _, value in known], self.lambda_).probabilities
        first = self._chosen(weights, f"{place}: {query}")
        order = sorted(range(len(known)), key=lambda n: (n != first, -weights[n], n))
        return tuple(_weighed(kinds[known[n][0]], weights[n], known[n][1]) for n in order)

    def _chosen(self, weights: Sequence[float], place: str) -> int:
        if self.pick == "best":
            return max(range(len(weights)), key=lambda n: (weights[n], -n))
        dice = random.Random(derived_seed(self.random_seed, f"pick {place}"))
        return dice.choices(range(len(weights)), weights)[0]


async def drawn(writer: Writer, left: Left, query: str, place: str, n: int) -> list[Rewrite]:
    """`n` rewrites of the prompter, each the user's own words where it cannot stand."""

    async def one(number: int) -> Rewrite:
        written = await waiting[number].value()
        if isinstance(written, Failed):
            return Rewrite(query, query, "failed", note=written.reason)
        why: Why = why_kept(query, written, await left(query, written), FLOORS["aggressive"])
        return Rewrite(query, query, why, note=written) if why else Rewrite(query, written, rounds=(written,))

    waiting = writer.samples(query, place, n)
    return await settle(one(number) for number in range(n))


def _weighed(rewrite: Rewrite, weight: float, reward: float) -> Rewrite:
    return Rewrite(
        rewrite.query, rewrite.text, rewrite.kept, rewrite.rounds, weight, rewrite.note, reward=reward
    )
