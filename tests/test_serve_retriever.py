"""The quick way to the shots of one query finds what the library finds."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from drpo.data import read_examples
from drpo.resources import resource_folder
from drpo.retrieve import LexicalRetriever

EXAMPLES = read_examples(resource_folder("icl_examples") / "base.jsonl").examples
RETRIEVER = LexicalRetriever(EXAMPLES)
WORDS = sorted({word for example in EXAMPLES for word in example.query.split()})


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=8)), max_size=30).map(" ".join),
    st.integers(1, len(EXAMPLES)),
)
def test_few_examples_are_ranked_as_the_library_ranks_them(query: str, k: int) -> None:
    assert RETRIEVER._top_k_of_few(query, k) == RETRIEVER._top_k([query], k)[0]
