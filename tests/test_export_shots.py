"""Which examples an export shows with every query: the nearest to a typical one, or the most central."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from drpo.config_use import UseConfig
from drpo.exporting.shots import choose_shots, lexical_centrality, vector_centrality
from drpo.measuring.subject import Subject, read_subject
from drpo.retrieve import LexicalRetriever, VectorCache
from drpo.types import Example
from tests.support.command import Shell, content_of
from tests.support.export_cases import QUERY, written

DEMO = Path(__file__).resolve().parent.parent / "demo-lm"
HOSTILE = 'leaking tap #} {{ boom }}\nimport os\n""" \x1b[31m -#}'
QUERIES = (
    "How do I bake bread at home?",
    "Which whale is the largest?",
    "How do I bake a cake?",
    "How do I bake bread and a cake for a party?",
    "Who was the first person on the moon?",
)


def subject(embedder: str = "lexical", shots: int = 2, queries: tuple[str, ...] = QUERIES) -> Subject:
    examples = tuple(Example(query, "An answer.") for query in queries)
    known = read_subject("none", "the alignment", UseConfig())
    return replace(known, name="x", examples=examples, shots=shots, embedder=embedder)


async def chosen(
    one: Subject, typical: str | None = None, environment: Mapping[str, str] | None = None
) -> tuple[tuple[int, ...], str]:
    found = await choose_shots(one, typical, environment or {})
    return found.indices, found.note


async def test_the_most_central_examples_are_those_nearest_to_the_others() -> None:
    indices, note = await chosen(subject())
    assert set(indices) <= {0, 2, 3}  # about baking; the others share no word with anything
    assert "by words, BM25" in note


def bm25(words: Sequence[str], document: Sequence[str], documents: Sequence[Sequence[str]]) -> float:
    """The score of a document for a query, by the formula of Lucene, k1 = 1.5 and b = 0.75."""
    mean_length = sum(map(len, documents)) / len(documents)
    total = 0.0
    for word in words:
        having = sum(word in other for other in documents)
        rarity = math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
        count = document.count(word)
        total += rarity * count / (count + 1.5 * (0.25 + 0.75 * len(document) / mean_length))
    return total


async def test_lexical_centrality_is_the_mean_score_for_the_other_queries() -> None:
    texts = ("bake bread", "bake cake", "bread cake party tonight", "whale", "bread bread whale")
    words = [text.split() for text in texts]
    scores = [[bm25(asked, document, words) for document in words] for asked in words]
    wanted = [sum(scores[j][i] for j in range(5) if j != i) / 4 for i in range(5)]
    assert lexical_centrality(texts) == pytest.approx(wanted, abs=1e-5)
    found = await LexicalRetriever([Example(text, "") for text in texts]).top_k(texts, 5)
    assert found == [tuple(np.argsort(-np.round(row, 5), kind="stable").tolist()) for row in scores]


def test_texts_without_words_and_one_alone_are_no_more_central_than_others() -> None:
    assert lexical_centrality(["", "!"]).tolist() == [0.0, 0.0]
    assert lexical_centrality(["alone here"]).tolist() == [0.0]
    assert vector_centrality(np.ones((1, 1), np.float32)).tolist() == [0.0]


def test_vector_centrality_is_the_mean_cosine_to_the_others() -> None:
    vectors = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    wanted = [(row.sum() - row[number]) / 6 for number, row in enumerate(cosines)]
    assert vector_centrality(vectors) == pytest.approx(wanted, abs=1e-6)


async def test_vectors_that_are_kept_are_used_and_else_words_with_a_note(tmp_path: Path) -> None:
    name = "sentence-transformers/some-model"
    environment = {"DRPO_CACHE_DIR": str(tmp_path)}
    indices, note = await chosen(subject(name), environment=environment)
    assert set(indices) <= {0, 2, 3}
    assert f"by words, BM25, since no vectors of {name} are kept" in note
    near = np.array([[1, 0, 0], [0.6, 0.8, 0], [0, 0, 1], [-1, 0, 0], [0.8, 0.6, 0]], np.float32)
    VectorCache(tmp_path / "vectors").save(name, QUERIES, near)
    indices, note = await chosen(subject(name), environment=environment)
    assert indices == (1, 4)
    assert f"by the vectors of {name}" in note


async def test_equally_central_examples_come_by_their_index() -> None:
    indices, _ = await chosen(subject(shots=3, queries=("a same text", "a same text", "a same text")))
    assert indices == (0, 1, 2)


def test_the_shots_of_a_typical_query_are_those_of_the_search(shell: Shell) -> None:
    path = written(shell.folder)
    shell.done("export", path, "--to", "messages", "-o", "near", "--shots-for", QUERY)
    shell.done(
        "export",
        path,
        "--to",
        "messages",
        "-o",
        "whales",
        "--shots-for",
        "a story about whales",
        "--shots",
        "1",
    )
    told = {name: (shell.folder / name / "messages.json").read_text("utf-8") for name in ("near", "whales")}
    queries = {
        name: [m["content"][:12] for m in json.loads(text)["messages"][1::2]] for name, text in told.items()
    }
    assert queries == {"near": ["Fix a leakin", "My tap is le"], "whales": ["Tell me a st"]}


@pytest.mark.parametrize("target", ["openai", "inspect", "lm-eval", "modelfile", "vllm", "promptfoo"])
def test_a_hostile_query_stays_inside_the_comment_that_names_it(shell: Shell, target: str) -> None:
    path = written(shell.folder, hard="x")
    flags = ("export", path, "--to", target, "--tokenizer", DEMO)
    ran = shell.done(*flags, "-o", "hostile", "--shots-for", HOSTILE)
    assert "\x1b" not in ran.out + ran.err
    shell.done(*flags, "-o", "harmless", "--shots-for", "a leaking tap")
    hostile, harmless = (
        {
            name: [line for line in file.decode().splitlines() if not line.startswith(("#", "   Fixed"))]
            for name, file in content_of(shell.folder / folder).items()
        }
        for folder in ("hostile", "harmless")
    )
    assert hostile == harmless


def test_a_hostile_query_does_not_end_the_comment_of_a_template(shell: Shell) -> None:
    path = written(shell.folder, hard="x")
    flags = ("export", path, "--to", "chat-template", "-o", "made", "--tokenizer", DEMO)
    shell.done(*flags, "--shots-for", HOSTILE)
    text = (shell.folder / "made" / "chat_template.jinja").read_text("utf-8")
    told, _, rest = text.partition("#}")
    assert "boom" in told and "boom" not in rest
