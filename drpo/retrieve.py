"""The K examples nearest to a query, by meaning (vectors) or by words (BM25)."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import re
from array import array
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tokenize import TokenError
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drpo.errors import InputError
from drpo.types import Example

Vectors = NDArray[np.float32]

# What numpy raises, besides ValueError, for one or another damaged header (found by damaging 100,000).
_UNSOUND = (OSError, ValueError, TypeError, EOFError, MemoryError, OverflowError, SyntaxError, TokenError)
_QUERIES_AT_ONCE = 64  # one block of similarities: 25 MB at 100,000 examples
# Up to these, words are compared in a twentieth of the time that a thread takes to be asked, vectors in half.
_FEW_EXAMPLES, _FEW_CHARACTERS = 200, 4000
_WORD = re.compile(r"(?u)\b\w\w+\b")  # bm25s' own
_ROWS_AT_ONCE = 4096  # one block of exact similarities: 12 MB at 384 dimensions


class Retriever(Protocol):
    """Finds examples by their queries. `identity` names the method (and the model) but not the examples."""

    @property
    def identity(self) -> str: ...

    async def top_k(self, queries: Sequence[str], k: int) -> list[tuple[int, ...]]:
        """Per query the indices of the `k` nearest examples, nearest first, equally near ones by lower index.

        Raises InputError where `k` is negative or above the number of examples.
        """
        ...


class Embedder(Protocol):
    """Turns texts into vectors of one length whose cosine says how near two texts are in meaning."""

    @property
    def identity(self) -> str: ...

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """One row per text, same order."""
        ...


class LexicalRetriever:
    """BM25 over the words of the example queries (bm25s with its own tokenizer and English stop words).

    An example that shares no word with the query scores 0; those come last, by lower index.
    """

    identity = "lexical/bm25"

    def __init__(self, examples: Sequence[Example]) -> None:
        import bm25s

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it asks for debug messages on import
        self._bm25s = bm25s
        self._examples = len(examples)
        words = self._words([example.query for example in examples])
        self._index: Any = None
        self._scored: dict[str, list[tuple[int, float]]] = {}
        self._nothing = array("f", bytes(4 * self._examples))
        if any(words):  # bm25s cannot index texts without any word
            self._index = bm25s.BM25()
            self._index.index(words, show_progress=False)
        if self._index is not None and self._examples <= _FEW_EXAMPLES:
            for word in {word for text in words for word in text}:
                scores = self._scores([word]).tolist()
                self._scored[word] = [(index, score) for index, score in enumerate(scores) if score]

    async def top_k(self, queries: Sequence[str], k: int) -> list[tuple[int, ...]]:
        """As `Retriever` says."""
        if _nothing_to_find(self._examples, queries, k):
            return [()] * len(queries)
        if self._examples <= _FEW_EXAMPLES and sum(map(len, queries)) <= _FEW_CHARACTERS:
            return [self._top_k_of_few(query, k) for query in queries]
        return await asyncio.to_thread(self._top_k, queries, k)

    def _top_k_of_few(self, query: str, k: int) -> tuple[int, ...]:
        """As `_top_k`, to the bit: the library's own words and scores, added up in its order, without its
        progress bars, and without numpy, which take most of the time where there are few examples."""
        return tuple(sorted(range(self._examples), key=self._below(query).__getitem__)[:k])

    def _below(self, query: str) -> array[float]:
        """Each example's score less than 0, so that the highest comes first."""
        below = self._nothing[:]
        scored = self._scored
        for word in _WORD.findall(query.lower()):
            if word in scored:  # stop words have none
                for index, score in scored[word]:
                    below[index] -= score  # a sum of two floats of 32 bits, which the array rounds to one
        return below

    def _top_k(self, queries: Sequence[str], k: int) -> list[tuple[int, ...]]:
        distinct = list(dict.fromkeys(queries))
        found = {
            query: tuple(_highest(self._scores(words), k).tolist())
            for query, words in zip(distinct, self._words(distinct), strict=True)
        }
        return [found[query] for query in queries]

    def _scores(self, words: list[str]) -> NDArray[Any]:
        known = self._index.get_tokens_ids(words) if self._index is not None else []
        if not known:
            return np.zeros(self._examples, np.float32)
        scores: NDArray[Any] = self._index.get_scores_from_ids(known)
        return scores

    def _words(self, texts: list[str]) -> list[list[str]]:
        words: list[list[str]] = self._bm25s.tokenize(texts, return_ids=False, show_progress=False)
        return words


class VectorCache:
    """Vectors in a folder, one file per embedder and list of texts. A cache: losing it costs only time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, identity: str, texts: Sequence[str]) -> Vectors | None:
        """What `save` was given for the same embedder and texts; None if there is nothing sound."""
        try:
            with self._path(identity, texts).open("rb") as file:
                stored = np.lib.format.read_array(file, allow_pickle=False)
        except _UNSOUND:
            return None
        if stored.dtype != np.float32 or stored.ndim != 2 or stored.shape[0] != len(texts):
            return None
        if not np.allclose(_lengths(stored), 1, rtol=0, atol=1e-3):
            return None
        vectors: Vectors = stored
        return vectors

    def save(self, identity: str, texts: Sequence[str], vectors: Vectors) -> None:
        """Store unit vectors, all or nothing. Where the disk refuses, the next run computes them again."""
        path = self._path(identity, texts)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                np.save(file, vectors, allow_pickle=False)
            temporary.replace(path)
        except OSError:
            logging.getLogger(__name__).info("%s: vectors could not be kept", self._folder, exc_info=True)
            with suppress(OSError):
                temporary.unlink()

    def _path(self, identity: str, texts: Sequence[str]) -> Path:
        digest = hashlib.sha256(json.dumps([identity, *texts]).encode("ascii")).hexdigest()
        return self._folder / f"{digest}.npy"


class VectorRetriever:
    """Cosine similarity of embeddings, exact: whatever else is asked at the same time changes no result.

    Single-precision products find the candidates, and these alone are compared in double precision, row by
    row; a library's choice of block sizes or threads can thus neither break a tie nor make one.
    """

    def __init__(
        self, examples: Sequence[Example], embedder: Embedder, cache: VectorCache | None = None
    ) -> None:
        self._embedder, self._cache = embedder, cache
        self.identity = f"vectors/{embedder.identity}"
        self._texts = list(dict.fromkeys(example.query for example in examples))
        row_by_text = {text: row for row, text in enumerate(self._texts)}
        self._rows = np.array([row_by_text[example.query] for example in examples], np.intp)
        self._vectors: Vectors | None = None
        self._loading = asyncio.Lock()

    async def top_k(self, queries: Sequence[str], k: int) -> list[tuple[int, ...]]:
        """As `Retriever` says. The queries of one call are embedded in one batch, each once."""
        if _nothing_to_find(len(self._rows), queries, k):
            return [()] * len(queries)
        vectors = await self._example_vectors()
        distinct = list(dict.fromkeys(queries))
        asked = await self._embed(distinct)
        if asked.shape[1] != vectors.shape[1]:
            raise InputError(
                f"embedder {self._embedder.identity}: expected vectors of {vectors.shape[1]} numbers as for "
                f"the examples, came {asked.shape[1]}. Did the model change? Start again"
            )
        if len(self._rows) * len(distinct) <= _FEW_EXAMPLES:
            nearest = _nearest(vectors, self._rows, asked, k)
        else:
            nearest = await asyncio.to_thread(_nearest, vectors, self._rows, asked, k)
        found = dict(zip(distinct, nearest, strict=True))
        return [found[query] for query in queries]

    async def _example_vectors(self) -> Vectors:
        async with self._loading:  # calls that come meanwhile wait for the one batch
            if self._vectors is None:
                # Column by column in memory, where one query is compared in half of the time.
                self._vectors = await asyncio.to_thread(np.asfortranarray, await self._load_or_embed())
            return self._vectors

    async def _load_or_embed(self) -> Vectors:
        name, texts = self._embedder.identity, self._texts
        if self._cache is not None:
            stored = await asyncio.to_thread(self._cache.load, name, texts)
            if stored is not None:
                return stored
        vectors = await self._embed(texts)
        if self._cache is not None:
            await asyncio.to_thread(self._cache.save, name, texts, vectors)
        return vectors

    async def _embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, one row per text."""
        who = f"embedder {self._embedder.identity}"
        vectors = np.asarray(await self._embedder.embed(texts), np.float32)
        if vectors.ndim != 2 or vectors.shape[0] != len(texts):
            raise InputError(f"{who}: expected {len(texts)} vectors, came an array of shape {vectors.shape}")
        lengths = _lengths(vectors)
        wrong = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
        if wrong.size:
            row = int(wrong[0])
            came = "zeros only" if lengths[row] == 0 else "NaN or infinity"
            raise InputError(
                f"{who}: expected vectors with a direction, came {came} for {texts[row][:60]!r}. "
                "Use another embedding model, or --embedder lexical"
            )
        return np.divide(vectors, lengths[:, None], out=np.empty_like(vectors), casting="same_kind")


def _nothing_to_find(examples: int, queries: Sequence[str], k: int) -> bool:
    if not 0 <= k <= examples:
        raise InputError(
            f"expected a number of shots from 0 to {examples}, the number of examples, came {k}. Ask for "
            "fewer, or give more examples"
        )
    return k == 0 or not queries


def _lengths(vectors: NDArray[Any]) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    return lengths


def _nearest(vectors: Vectors, rows: NDArray[np.intp], asked: Vectors, k: int) -> list[tuple[int, ...]]:
    """Per vector asked, the examples nearest to it; `vectors[rows[i]]` belongs to example i."""
    # A product of two unit vectors of d numbers is off by at most d * eps / 2, so a difference by d * eps;
    # twice that leaves room for lengths that are not quite 1.
    margin = 2 * vectors.shape[1] * np.finfo(np.float32).eps
    found: list[tuple[int, ...]] = []
    for start in range(0, len(asked), _QUERIES_AT_ONCE):
        block = asked[start : start + _QUERIES_AT_ONCE]
        for query, rough in zip(block, (block @ vectors.T)[:, rows], strict=True):
            floor = np.partition(rough, len(rows) - k)[len(rows) - k]
            near = np.flatnonzero(rough >= floor - margin)
            exact = _exact_products(vectors, rows[near], query)
            found.append(tuple(near[_highest(exact, k)].tolist()))
    return found


def _exact_products(vectors: Vectors, rows: NDArray[np.intp], query: Vectors) -> NDArray[np.float64]:
    precise = query.astype(np.float64)
    blocks = [
        (vectors[rows[start : start + _ROWS_AT_ONCE]].astype(np.float64) * precise).sum(axis=1)
        for start in range(0, len(rows), _ROWS_AT_ONCE)
    ]
    return np.concatenate(blocks)


def _highest(scores: NDArray[Any], k: int) -> NDArray[np.intp]:
    """Indices of the `k` (1 to all) highest scores, highest first, equal ones by lower index."""
    floor = np.partition(scores, len(scores) - k)[len(scores) - k]
    above, level = np.flatnonzero(scores > floor), np.flatnonzero(scores == floor)
    kept = np.sort(np.concatenate([above, level[: k - len(above)]]))
    order = np.argsort(-scores[kept], kind="stable")
    highest: NDArray[np.intp] = kept[order]
    return highest
