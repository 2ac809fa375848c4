"""The model card: what it tells, and that no text in it is anything but text."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from typing import Any

import pytest
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from drpo.sharing.card import SIMULATED, card_text, fenced, inline
from drpo.sharing.private import without_private
from drpo.validation.result import Compared, FloorCheck, Validation
from tests.test_share_checks import an_alignment

HOSTILE = [
    "```\n# Owned\n```",
    "`````\n---\nlicense: mit\n---\n<script>alert(1)</script>\n~~~",
    "---\nbase_model: evil\n---",
    "~~~\n</pre>\n\n[a](javascript:alert(1))\n\n```",
    "Be kind.\r```\r# Owned",
    "x\n\n    ```\n\n# Owned\u2028```",
]


def front_matter(card: str) -> dict[str, Any]:
    """As the hub's own library reads it."""
    return {name: value for name, value in vars(ModelCard(card).data).items() if value is not None}


def body(card: str) -> str:
    return card.split("---\n", 2)[2].lstrip("\n")


def headings(card: str) -> list[str]:
    tokens = MarkdownIt().parse(body(card))
    return [after.content for token, after in itertools.pairwise(tokens) if token.type == "heading_open"]


def blocks(card: str) -> list[str]:
    return [token.content for token in MarkdownIt().parse(body(card)) if token.type == "fence"]


def validated(better: bool) -> Validation:
    compared = Compared(3, "Be kind.", 4.2, 40, 40, 0.31, 0.12, 0.50, 40)
    floor = FloorCheck(3, "red-team", -0.05, -0.2, 0.1, 40, 0, 0.3, False)
    return Validation(
        40, 0.95, (replace(compared, node=0), compared), 3, better, 0.31, 0.12, 0.5, 80, 2, (floor,)
    )


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_no_prompt_setting_or_model_breaks_out_of_its_place(text: str) -> None:
    plain = an_alignment()
    settings = {**plain.found.settings, "settings": {"initial_prompt": text, "protect": [text]}}
    hostile = an_alignment(
        system_prompt=text,
        embedder=text,
        models={"base": text, f"role {text}": text},
        found=replace(plain.found, settings=settings, ended=text, calls={text: 1}),
    )
    card = card_text(hostile, "me/first", None)
    assert headings(card) == headings(card_text(plain, "me/first", None))
    newlines = text.replace("\r", "\n")
    assert blocks(card)[0] == newlines + "\n"
    assert len(blocks(card)) == 4
    assert front_matter(card) == {key: value for key, value in FRONT.items() if key != "base_model"}
    html = MarkdownIt().enable("table").render(body(card))
    assert "<script" not in html.replace("&lt;script", "") and 'href="javascript' not in html


FRONT = {
    "base_model": "org/model",
    "library_name": "drpo",
    "tags": ["drpo", "alignment", "system-prompt", "prompt-optimization"],
}


@given(st.text(alphabet="`~\n #-<>a"))
def test_a_code_block_holds_any_text(text: str) -> None:
    (token,) = MarkdownIt().parse(fenced(text))
    assert (token.type, token.content) == ("fence", text + "\n")


@given(st.text(alphabet="`*_[]( )<>\n|a", min_size=1))
def test_a_code_span_holds_any_text_as_one_line(text: str) -> None:
    tokens = MarkdownIt().parseInline(inline(text))[0].children or []
    assert [token.type for token in tokens] == ["code_inline"]
    assert tokens[0].content.split() == text.split()


def test_the_front_matter_names_the_base_model_only_where_the_hub_has_it() -> None:
    assert front_matter(card_text(an_alignment(), "me/first", None)) == FRONT
    assert front_matter(card_text(an_alignment(), "me/first", "mit")) == {**FRONT, "license": "mit"}
    for base, named in {
        "vllm/org/model@0123abc[dtype=half]": "org/model",
        "vllm/org/model@http://gpu7/v1": "org/model",
        "vllm/folder#0123": None,
        "openai/gpt": None,
        "demo/seed=0,noise=0.5": None,
    }.items():
        alignment = without_private(an_alignment(models={"base": base}))
        assert front_matter(card_text(alignment, "me/first", None)).get("base_model") == named


def test_a_simulated_one_says_so_in_the_first_line() -> None:
    card = card_text(an_alignment(simulated=True), "me/first", None)
    assert body(card).splitlines()[0] == SIMULATED
    assert "simulated" in front_matter(card)["tags"]
    assert "imulated" not in card_text(an_alignment(), "me/first", None)


def test_the_gain_stands_with_its_interval_or_is_said_to_be_unknown() -> None:
    assert "It was not validated" in card_text(an_alignment(), "me/first", None)
    card = card_text(an_alignment(validation=validated(better=True)), "me/first", None)
    assert "by +0.31 [+0.12, +0.50] on 40 kept queries" in card
    assert "2 of 80 rewards could not be had" in card
    assert "`red-team` queries it changes the mean reward by -0.05 [-0.20, +0.10]" in card
    card = card_text(an_alignment(validation=replace(validated(better=False), chosen=0)), "me/first", None)
    assert "no prompt is surely better" in card and "therefore the initial one" in card


def test_equal_alignments_have_equal_cards_without_a_date() -> None:
    card = card_text(an_alignment(), "me/first", None)
    assert card == card_text(an_alignment(), "me/first", None)
    assert not re.search(r"20[2-9]\d-|\d\d:\d\d", card)


def test_the_commands_name_the_model_where_others_can() -> None:
    for base, named in {
        "vllm/org/model@0123abc[dtype=half]": " --model vllm/org/model@0123abc",
        "openai/gpt-4": " --model openai/gpt-4",
        "openai/big@http://10.0.0.7/v1": " --model MODEL",
        "vllm/folder#0123": " --model MODEL",
        "openai/x;reboot": " --model MODEL",
        "demo/seed=0,noise=0.5": "",
    }.items():
        card = card_text(without_private(an_alignment(models={"base": base})), "me/first", None)
        assert f"\ndrpo chat first{named}\n" in card
        assert ("MODEL is the one" in card) == named.endswith("MODEL") and "10.0.0.7" not in card
