"""Training text of demo-rewriter: queries, and what the reference prompter makes of them.

A sample is what the model reads (the shipped template `rewrite/apply.j2` around a query) and what it writes:
the query, word for word, and mostly a request behind it. Which request is left to chance, good and bad ones
alike: to choose among them is what training for a reward, or on optimized prompts, is there for. Most queries
are of words drawn at random or made up, so that the model learns to copy and not to know queries.
"""

from __future__ import annotations

import json
import random
import re
from functools import cache
from pathlib import Path

from drpo.llm.world.clarity import mended
from drpo.llm.world.wishes import ALL
from drpo.resources import resource_folder
from drpo.rewriting.templates import RewriteTemplates

END, PAD = "<|end|>", "<|pad|>"
REQUESTS = tuple(wording for wish in ALL for wording in wish.wordings[:2])
"""Two wordings of each wish of the simulated world: useful, idle and harmful ones."""
UNCHANGED = 0.25
TWO_REQUESTS = 0.15
_MENDED = 0.4
_REAL, _DRAWN = 0.35, 0.45  # shares of queries: real ones, of real words in any order; the others are made up
LONGEST_WORDS = 40
_SEED_FILES = ("seeds", "heldout", "safety", "judge_cases", "rewriting")
_PROSE = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")
_ROOT = Path(__file__).resolve().parents[2]
_LETTERS = "etaoinshrdlucmfwypvbgkjqxz"
_ENDS = ("", "", ".", "?", "?", "!")


def draw_sample(rng: random.Random, longest: int = LONGEST_WORDS) -> tuple[str, str]:
    """What the model reads, and what it writes; the end mark is not in it.

    longest: words of a query. Half of the samples lack the instruction above the query, which is the same in
    all others: copying is learned from the query alone.
    """
    query = draw_query(rng, longest)
    read = templates().apply(query)
    if rng.random() < 0.5:
        read = read[read.index(query) :]
    return read, "\n" + draw_rewrite(rng, query)


def draw_rewrite(rng: random.Random, query: str) -> str:
    """The query with no, one or two requests behind it; now and then in cleaner words."""
    query = mended(query) if rng.random() < _MENDED else query
    chance = rng.random()
    count = 0 if chance < UNCHANGED else 2 if chance < UNCHANGED + TWO_REQUESTS else 1
    return " ".join([query, *rng.sample(REQUESTS, count)])


def draw_query(rng: random.Random, longest: int = LONGEST_WORDS) -> str:
    """A query of one line: a real one, words of real ones in any order, or made-up words."""
    chance = rng.random()
    if chance < _REAL:
        query = rng.choice(real_queries())
        return query if longest == LONGEST_WORDS else " ".join(query.split()[:longest])
    if chance < _REAL + _DRAWN:
        drawn = [rng.choice(words()) for _ in range(_length(rng, longest))]
    else:
        drawn = [_made_up(rng) for _ in range(_length(rng, longest))]
    text = " ".join(drawn)
    return (text[0].upper() + text[1:] if rng.random() < 0.7 else text) + rng.choice(_ENDS)


def _length(rng: random.Random, longest: int) -> int:
    return min(longest, 2 + int(rng.expovariate(1 / 9)))


def _made_up(rng: random.Random) -> str:
    if rng.random() < 0.15:
        return str(rng.randrange(10 ** rng.randrange(1, 5)))
    word = "".join(rng.choices(_LETTERS, range(len(_LETTERS), 0, -1), k=rng.randrange(2, 10)))
    return word.capitalize() if rng.random() < 0.2 else word


@cache
def templates() -> RewriteTemplates:
    """The shipped ones: what a rewriter reads in training is what it reads in use."""
    return RewriteTemplates()


@cache
def real_queries() -> tuple[str, ...]:
    """The queries of this project's data, those of one line and of at most 60 words."""
    found: list[str] = []
    for name in _SEED_FILES:
        path = resource_folder("seeds") / f"{name}.jsonl"
        found += (json.loads(line)["query"] for line in path.read_text(encoding="utf-8").splitlines())
    kept = [" ".join(query.split()) for query in found if len(query.split()) <= 60]
    return tuple(dict.fromkeys(kept))


@cache
def words() -> tuple[str, ...]:
    """The words of those queries and of this project's own pages, each as often as it stands there."""
    prose = " ".join((_ROOT / name).read_text(encoding="utf-8") for name in _PROSE)
    return tuple(" ".join(real_queries()).split()) + tuple(re.findall(r"[A-Za-z]+[,;:]?", prose))
