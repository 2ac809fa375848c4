"""The fixed shots of an export: those nearest to a typical query, or the most central examples."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drpo.errors import InputError
from drpo.exporting.words import quoted
from drpo.live import cache_folder
from drpo.llm.connections import Connections
from drpo.llm.limits import Stop
from drpo.measuring.subject import Subject
from drpo.retrieve import VectorCache, Vectors
from drpo.wiring import EmbeddingLimits, build_retriever

OTHERS_AT_MOST = 2000
"""Queries of examples that each example is compared with; of more, so many at even distances."""


@dataclass(frozen=True, slots=True)
class FixedShots:
    """Indices of the examples shown with every query, in their order. searched: how many the search showed.
    how: in words how they were chosen, None where the search itself showed the same with every query."""

    indices: tuple[int, ...]
    searched: int
    how: str | None

    @property
    def note(self) -> str:
        """What the files say of them."""
        count, were = len(self.indices), f"the search showed the {self.searched}"
        if not self.searched:
            return "No examples are shown, as in the search."
        were += " nearest to each query, which drpo serve and drpo generate do" if self.how else " first ones"
        if not count:
            return f"No examples are shown; {were}."
        are = "1 example shown is" if count == 1 else f"{count} examples shown are"
        if self.how:
            return f"Fixed: the {are} {self.how}; {were}."
        same = f"The {are} the same for every query"
        return f"{same}, as in the search." if count == self.searched else f"{same}; {were}."

    def first(self, count: int) -> FixedShots:
        """Only so many of them."""
        return replace(self, indices=self.indices[:count])


async def choose_shots(
    subject: Subject, typical_query: str | None, environment: Mapping[str, str]
) -> FixedShots:
    """The K examples of `subject` that a file can hold.

    Without an embedder the search showed the first K with every query, and so does the file. Raises
    InputError where a typical query is given and nothing depends on one.
    """
    count = subject.shots
    if not count or not subject.embedder:
        if typical_query is not None:
            why = "the examples are the same for every query" if count else "no examples are shown"
            raise InputError(f"--shots-for: {subject.name}: {why}; leave it out")
        return FixedShots(tuple(range(count)), count, None)
    if typical_query is None:
        indices, how = _most_central(subject, environment)
        return FixedShots(indices, count, how)
    near = await _nearest(subject, typical_query, environment)
    return FixedShots(near, count, f"nearest to the query {quoted(typical_query)}")


async def _nearest(subject: Subject, query: str, environment: Mapping[str, str]) -> tuple[int, ...]:
    connections = Connections()
    try:
        retriever = build_retriever(
            subject.embedder, subject.examples, connections, environment, Stop(), EmbeddingLimits()
        )
        return tuple((await retriever.top_k([query], subject.shots))[0])
    finally:
        await connections.aclose()


def _most_central(subject: Subject, environment: Mapping[str, str]) -> tuple[tuple[int, ...], str]:
    """The K examples of the highest mean similarity to the others, the highest first, equal ones by lower
    index; and in words by what they are similar."""
    queries = [example.query for example in subject.examples]
    vectors = None
    by = "by words, BM25"
    if subject.embedder != "lexical":
        vectors = _kept_vectors(subject.embedder, queries, environment)
        by = f"by the vectors of {subject.embedder}"
        if vectors is None:
            by = f"by words, BM25, since no vectors of {subject.embedder} are kept on this machine"
    mean = vector_centrality(vectors) if vectors is not None else lexical_centrality(queries)
    order = np.argsort(-mean, kind="stable")[: subject.shots]
    return tuple(order.tolist()), f"the most central (highest mean similarity to the others, {by})"


def _kept_vectors(embedder: str, queries: Sequence[str], environment: Mapping[str, str]) -> Vectors | None:
    """What an earlier retrieval has kept; no model is loaded for it and no endpoint asked."""
    texts = list(dict.fromkeys(queries))
    kept = VectorCache(cache_folder(environment) / "vectors").load(embedder, texts)
    if kept is None:
        return None
    row = {text: number for number, text in enumerate(texts)}
    chosen: Vectors = kept[[row[query] for query in queries]]
    return chosen


def vector_centrality(vectors: Vectors) -> NDArray[np.float64]:
    """Per unit vector (rows) its mean cosine to the others; 0 for one alone."""
    precise = vectors.astype(np.float64)
    # Rounded: sums in another order must not break a tie between equal vectors.
    total = np.round(precise @ precise.sum(axis=0) - np.einsum("ij,ij->i", precise, precise), 9)
    mean: NDArray[np.float64] = total / max(len(vectors) - 1, 1)
    return mean


def lexical_centrality(queries: Sequence[str]) -> NDArray[np.float64]:
    """Per query the mean BM25 score that it has for the other ones, indexed as `LexicalRetriever` does."""
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)
    total = np.zeros(len(queries))
    words: list[list[str]] = bm25s.tokenize(list(queries), return_ids=False, show_progress=False)
    if not any(words):
        return total
    index: Any = bm25s.BM25()
    index.index(words, show_progress=False)
    others = np.unique(np.linspace(0, len(queries) - 1, min(len(queries), OTHERS_AT_MOST)).astype(int))
    for other in others.tolist():
        if known := index.get_tokens_ids(words[other]):
            scores = index.get_scores_from_ids(known).astype(np.float64)
            scores[other] = 0.0  # itself
            total += scores
    mean: NDArray[np.float64] = np.round(total / max(len(others) - 1, 1), 9)
    return mean
