"""What finding the shots of one request takes, among few examples and among many.

    python -m benchmarks.serving_shots [--among 100000] [--dimensions 384]
                                       [--embedder sentence-transformers/NAME]

Each figure is of `Retriever.top_k` for one query and K = 3, as the server asks, after a first one that is
not timed: the median over the queries, the slowest of a hundred, and the processor time of all threads.
Where other programs share the machine, quote the processor time. The 16 examples are the shipped ones, the
many are drawn: words by Zipf's law, and vectors in all directions, for which exact search takes as long as
for any. The embedding of the query is no part of it; `--embedder` has it timed with a real model, apart.

Exact search reads every vector for every query (154 MB for 100,000 of 384 numbers), so its time grows with
their number. What would come after it is an approximate index, such as HNSW in usearch or hnswlib: a graph
in which a query meets some hundreds of vectors instead of all. It pays off where exact search takes longer
than a request may wait (from about 500,000 examples on) or where many requests come at once (exact search
among 100,000 takes a core for about 12 ms). It costs memory, minutes to build, and that the nearest example
is sometimes missed.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Sequence

import numpy as np

from drpo.data import read_examples
from drpo.resources import resource_folder
from drpo.retrieve import Embedder, LexicalRetriever, Retriever, VectorRetriever, Vectors
from drpo.types import Example

_WORDS, _WORDS_A_TEXT = 20_000, 12
_QUERIES, _SHOTS = 100, 3


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--among", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--embedder", default="")
    given = parser.parse_args()
    asyncio.run(shots(given.among, given.dimensions, given.embedder))


async def shots(among: int, dimensions: int, embedder: str = "") -> None:
    """Print what it takes among 16 examples and among so many."""
    print(f"{'finding 3 shots for a query':<34}{'median ms':>12}{'slowest ms':>12}{'processor ms':>14}")
    few = read_examples(resource_folder("icl_examples") / "base.jsonl").examples
    many, queries = _drawn(among), [example.query for example in _drawn(_QUERIES, seed=1)]
    for examples in (few, many):
        for kind in ("words", "vectors"):
            began_s = time.perf_counter()
            retriever: Retriever = (
                LexicalRetriever(examples)
                if kind == "words"
                else VectorRetriever(examples, _Drawn(dimensions))
            )
            await retriever.top_k(["a first one"], _SHOTS)
            made_s = time.perf_counter() - began_s
            _row(f"  by {kind}, {len(examples):,} examples", await _timed(retriever, queries), made_s)
    if embedder:
        _row(f"  embedding of the query, {embedder}", await _embedding(embedder, queries))


class _Drawn:
    """Vectors in all directions."""

    identity = "drawn"

    def __init__(self, dimensions: int) -> None:
        self._source, self._dimensions = np.random.default_rng(0), dimensions

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Of standard normal numbers; a hundredth of a millisecond for one text."""
        return self._source.standard_normal((len(texts), self._dimensions), np.float32)


def _drawn(count: int, seed: int = 0) -> tuple[Example, ...]:
    """Examples whose queries are all different."""
    source = random.Random(seed)
    words = ["".join(source.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(_WORDS)]
    shares = [1 / rank for rank in range(1, _WORDS + 1)]
    drawn = source.choices(words, shares, k=count * _WORDS_A_TEXT)
    texts = (drawn[start : start + _WORDS_A_TEXT] for start in range(0, len(drawn), _WORDS_A_TEXT))
    return tuple(Example(f"{' '.join(text)} {number}", "An answer.") for number, text in enumerate(texts))


Times = tuple[list[float], float]
"""Seconds of each query, and the processor time of all together."""


async def _timed(retriever: Retriever, queries: Sequence[str]) -> Times:
    took_s: list[float] = []
    before_s = time.process_time()
    for query in queries:
        began_s = time.perf_counter()
        assert len((await retriever.top_k([query], _SHOTS))[0]) == _SHOTS
        took_s.append(time.perf_counter() - began_s)
    return took_s, time.process_time() - before_s


async def _embedding(name: str, queries: Sequence[str]) -> Times:
    from drpo.llm.embed import SentenceTransformerEmbedder

    embedder: Embedder = SentenceTransformerEmbedder(name.removeprefix("sentence-transformers/"))
    await embedder.embed(["a first one"])
    took_s: list[float] = []
    before_s = time.process_time()
    for query in queries:
        began_s = time.perf_counter()
        await embedder.embed([query])
        took_s.append(time.perf_counter() - began_s)
    return took_s, time.process_time() - before_s


def _row(name: str, times: Times, made_s: float | None = None) -> None:
    took_s, processor_s = times
    figures = (statistics.median(took_s), max(took_s), processor_s / len(took_s))
    told = "" if made_s is None else f"   (made ready in {made_s:.1f} s, once)"
    median, slowest, processor = (f"{1000 * figure:.3f}" for figure in figures)
    print(f"{name:<34}{median:>12}{slowest:>12}{processor:>14}{told}", flush=True)


if __name__ == "__main__":
    main()
