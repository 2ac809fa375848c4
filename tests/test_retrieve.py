from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from drpo.errors import InputError
from drpo.retrieve import (
    Embedder,
    LexicalRetriever,
    Retriever,
    VectorCache,
    VectorRetriever,
)
from drpo.types import Example

Vectors = NDArray[np.float32]


def examples(*queries: str) -> list[Example]:
    return [Example(query, "a response") for query in queries]


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


class TableEmbedder:
    """Looks vectors up; a text not in the table gets one that only its digest decides."""

    def __init__(self, table: Mapping[str, Sequence[float]] | None = None, dimensions: int = 8) -> None:
        self.identity = "table"
        self.batches: list[list[str]] = []
        self._table, self._dimensions = table or {}, dimensions

    async def embed(self, texts: Sequence[str]) -> Vectors:
        self.batches.append(list(texts))
        await asyncio.sleep(0)
        return np.array([self._table.get(text) or self._made_up(text) for text in texts], np.float32)

    def _made_up(self, text: str) -> list[float]:
        digest = hashlib.sha256(text.encode()).digest()
        return [byte / 128 - 0.99 for byte in digest[: self._dimensions]]


POEM, TAX, STARS, SOUP = (
    "Write a poem about the autumn sea",
    "How do I file my income tax return?",
    "Why do stars twinkle at night?",
    "Give me a recipe for lentil soup",
)
TOPICS = examples(POEM, TAX, STARS, SOUP)


async def test_words_shared_with_an_example_bring_it_first() -> None:
    retriever = LexicalRetriever(TOPICS)
    found = await retriever.top_k(["a soup with lentils: any recipe?", "stars at night", "tax"], 1)
    assert found == [(3,), (2,), (1,)]


async def test_a_query_that_shares_no_word_gets_the_first_examples() -> None:
    assert (
        await LexicalRetriever(TOPICS).top_k(["xylophone", "the of and", "", "为什么"], 3) == [(0, 1, 2)] * 4
    )


async def test_examples_without_any_word_can_be_searched() -> None:
    assert await LexicalRetriever(examples("?", "!", "a I")).top_k(["hello"], 2) == [(0, 1)]


async def test_equal_examples_come_by_lower_index() -> None:
    twice = examples(SOUP, STARS, SOUP, TAX, STARS)
    assert await LexicalRetriever(twice).top_k(["stars twinkle", "lentil soup"], 3) == [(1, 4, 0), (0, 2, 1)]
    assert (await VectorRetriever(twice, TableEmbedder()).top_k([STARS], 2)) == [(1, 4)]


@pytest.mark.parametrize("make", [LexicalRetriever, lambda shots: VectorRetriever(shots, TableEmbedder())])
async def test_a_number_of_shots_that_cannot_be_had_is_refused(make: type[LexicalRetriever]) -> None:
    retriever: Retriever = make(TOPICS)
    for k in (5, -1):
        with pytest.raises(InputError, match=rf"from 0 to 4, the number of examples, came {k}"):
            await retriever.top_k(["x"], k)
    assert sorted((await retriever.top_k(["x"], 4))[0]) == [0, 1, 2, 3]
    assert await retriever.top_k([], 2) == []


async def test_no_shots_need_no_model() -> None:
    embedder = TableEmbedder()
    assert await VectorRetriever(TOPICS, embedder).top_k(["a", "b"], 0) == [(), ()]
    assert await VectorRetriever([], embedder).top_k(["a"], 0) == [()]
    assert await LexicalRetriever([]).top_k(["a"], 0) == [()]
    assert embedder.batches == []


async def test_the_nearest_by_cosine_come_first_whatever_the_lengths() -> None:
    table = {
        "east": (9.0, 0.0),
        "north": (0.0, 0.1),
        "north-east": (3.0, 3.0),
        "q": (1.0, 0.2),
        "r": (0.2, 1.0),
    }
    retriever = VectorRetriever(examples("east", "north", "north-east"), TableEmbedder(table))
    assert await retriever.top_k(["q", "r"], 3) == [(0, 2, 1), (1, 2, 0)]
    assert retriever.identity == "vectors/table"


async def test_each_distinct_text_is_embedded_once_and_in_one_batch() -> None:
    embedder = TableEmbedder()
    retriever = VectorRetriever(examples(SOUP, TAX, SOUP), embedder)
    await asyncio.gather(retriever.top_k(["a", "b", "a"], 1), retriever.top_k(["c"], 2))
    assert embedder.batches[0] == [SOUP, TAX]
    assert sorted(map(tuple, embedder.batches[1:])) == [("a", "b"), ("c",)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(-2, 2), min_size=3, max_size=3).filter(any), min_size=2, max_size=40),
    st.data(),
)
def test_top_k_is_the_head_of_a_stable_sort(rows: list[list[int]], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(rows)))
    table = {str(number): tuple(map(float, row)) for number, row in enumerate(rows)} | {"q": (1.0, 2.0, -1.0)}
    shots = examples(*(str(number) for number in range(len(rows))))
    found = asyncio.run(VectorRetriever(shots, TableEmbedder(table)).top_k(["q"], k))[0]
    matrix = np.array(rows, np.float64)
    cosines = matrix @ [1.0, 2.0, -1.0] / np.linalg.norm(matrix, axis=1)
    assert len(set(found)) == k
    # Directions that are mathematically equal may differ in the last bit of a single: compare up to that.
    np.testing.assert_allclose(cosines[list(found)], np.sort(cosines)[::-1][:k], atol=1e-6)
    for left, right in pairwise(found):
        assert rows[left] != rows[right] or left < right


async def test_results_do_not_depend_on_what_else_is_asked() -> None:
    rng = np.random.default_rng(5)
    base = rng.standard_normal(96)
    # 300 examples within rounding error of each other: the order is that of exact arithmetic
    table = {f"e{i}": tuple(base + 1e-7 * rng.standard_normal(96)) for i in range(300)}
    queries = {f"q{i}": tuple(rng.standard_normal(96)) for i in range(150)}
    retriever = VectorRetriever(examples(*table), TableEmbedder(table | queries))
    together = await retriever.top_k(list(queries), 5)
    alone = [(await retriever.top_k([query], 5))[0] for query in queries]
    assert together == alone


@pytest.mark.parametrize(
    ("bad", "came"), [((0.0, 0.0), "zeros only"), ((float("nan"), 1.0), "NaN or infinity")]
)
async def test_a_vector_without_direction_names_the_embedder_and_the_text(
    bad: tuple[float, float], came: str
) -> None:
    table = {"fine": (1.0, 0.0), "broken": bad}
    with pytest.raises(InputError, match=f"embedder table: .*{came} for 'broken'.*--embedder lexical"):
        await VectorRetriever(examples("fine"), TableEmbedder(table)).top_k(["broken"], 1)
    with pytest.raises(InputError, match=f"embedder table: .*{came} for 'broken'"):
        await VectorRetriever(examples("fine", "broken"), TableEmbedder(table)).top_k(["fine"], 1)


async def test_a_wrong_number_of_vectors_and_another_length_are_refused() -> None:
    class Short(TableEmbedder):
        async def embed(self, texts: Sequence[str]) -> Vectors:
            return (await super().embed(texts))[1:]

    with pytest.raises(InputError, match=r"expected 4 vectors, came an array of shape \(3, 8\)"):
        await VectorRetriever(TOPICS, Short()).top_k(["x"], 1)

    class Changing(TableEmbedder):
        async def embed(self, texts: Sequence[str]) -> Vectors:
            return (await super().embed(texts))[:, : 8 - len(self.batches)]

    with pytest.raises(InputError, match="vectors of 7 numbers as for the examples, came 6"):
        await VectorRetriever(TOPICS, Changing()).top_k(["x"], 1)


async def test_stored_vectors_are_used_instead_of_the_model(tmp_path: Path) -> None:
    first, second = TableEmbedder(), TableEmbedder()
    cache = VectorCache(tmp_path / "new" / "folder")
    before = await VectorRetriever(TOPICS, first, cache).top_k(["x", "y"], 3)
    assert await VectorRetriever(TOPICS, second, cache).top_k(["x", "y"], 3) == before
    assert [len(batch) for batch in first.batches] == [4, 2]
    assert [len(batch) for batch in second.batches] == [2]
    assert [path.suffix for path in files(tmp_path / "new" / "folder")] == [".npy"]


async def test_another_model_or_other_examples_have_vectors_of_their_own(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path)
    embedder: Embedder = TableEmbedder()
    await VectorRetriever(TOPICS, embedder, cache).top_k(["x"], 1)
    await VectorRetriever(TOPICS[::-1], embedder, cache).top_k(["x"], 1)
    other = TableEmbedder()
    other.identity = "another"
    await VectorRetriever(TOPICS, other, cache).top_k(["x"], 1)
    assert len(other.batches) == 2
    assert len(files(tmp_path)) == 3


def damage(content: bytes) -> list[bytes]:
    wrong_values = bytearray(content)
    wrong_values[-4:] = b"\x00\x00\xc0\x7f"  # NaN
    pickled = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117)
        + b"\n"
    )
    return [
        b"",
        content[:40],
        content[:-1],
        b"PK\x03\x04 no array",
        bytes(wrong_values),
        pickled,
        b"\x00" * 300,
    ]


@pytest.mark.parametrize("number", range(7))
async def test_a_damaged_file_is_computed_anew_and_replaced(tmp_path: Path, number: int) -> None:
    cache = VectorCache(tmp_path)
    expected = await VectorRetriever(TOPICS, TableEmbedder(), cache).top_k(["x"], 4)
    (path,) = files(tmp_path)
    sound = path.read_bytes()
    path.write_bytes(damage(sound)[number])
    embedder = TableEmbedder()
    assert await VectorRetriever(TOPICS, embedder, cache).top_k(["x"], 4) == expected
    assert len(embedder.batches) == 2
    assert path.read_bytes() == sound


@pytest.mark.parametrize("shape", [(3, 8), (4, 0), (4,), (4, 8, 1)])
async def test_a_file_of_another_shape_is_computed_anew(tmp_path: Path, shape: tuple[int, ...]) -> None:
    cache = VectorCache(tmp_path)
    await VectorRetriever(TOPICS, TableEmbedder(), cache).top_k(["x"], 1)
    (path,) = files(tmp_path)
    np.save(path, np.full(shape, 8**-0.5, np.float32))
    embedder = TableEmbedder()
    await VectorRetriever(TOPICS, embedder, cache).top_k(["x"], 1)
    assert len(embedder.batches) == 2


async def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    found = await VectorRetriever(TOPICS, TableEmbedder(), VectorCache(blocked)).top_k([STARS], 1)
    assert found == [(2,)]


async def test_a_failed_embedding_is_tried_again_by_the_next_call() -> None:
    class Flaky(TableEmbedder):
        async def embed(self, texts: Sequence[str]) -> Vectors:
            vectors = await super().embed(texts)
            if len(self.batches) == 1:
                raise InputError("not yet")
            return vectors

    retriever = VectorRetriever(TOPICS, Flaky())
    with pytest.raises(InputError, match="not yet"):
        await retriever.top_k(["x"], 1)
    assert await retriever.top_k([TAX], 1) == [(1,)]


def test_lexical_results_are_the_same_in_every_process() -> None:
    program = (
        "import asyncio; from drpo.retrieve import LexicalRetriever; from drpo.types import Example\n"
        "words = 'sun moon tide wind salt rock fish bird tree leaf'.split()\n"
        "shots = [Example(' '.join(words[i % 7:] + words[:i % 3]), '') for i in range(50)]\n"
        "print(asyncio.run(LexicalRetriever(shots).top_k(['tide and salt', 'leaf moon sun bird'], 9)))"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        for seed in ("0", "1")
    ]
    assert printed[0].stdout == printed[1].stdout != ""
    assert printed[0].stderr == ""


@given(
    st.lists(st.lists(st.integers(0, 12), max_size=12), min_size=1, max_size=20),
    st.lists(st.integers(0, 14), max_size=30),
)
def test_among_few_examples_words_find_what_the_library_finds(
    examples: list[list[int]], query: list[int]
) -> None:
    def text(words: list[int]) -> str:
        return " ".join(f"word{number}" for number in words)

    retriever = LexicalRetriever([Example(text(words), "") for words in examples])
    k = len(examples)
    assert retriever._top_k_of_few(text(query), k) == retriever._top_k([text(query)], k)[0]
    (words,) = retriever._words([text(query)])
    assert [-score for score in retriever._below(text(query))] == retriever._scores(words).tolist()
