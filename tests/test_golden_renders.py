"""What leaves the renderer is what a model of each family is known to read, to the letter."""

from __future__ import annotations

import pytest

from drpo.respond import form_of_tokenizer
from tests.support.golden import FAMILIES, TemplateFacts, applied, golden, messages, page, template

CHATS = [family for family, form in FAMILIES.items() if form != "text"]


@pytest.mark.parametrize("family", CHATS)
def test_a_chat_is_read_as_its_family_reads_it(family: str) -> None:
    assert applied(template(family), messages(FAMILIES[family])) == golden(family)


def test_a_base_model_reads_the_page_behind_its_first_token() -> None:
    assert "<s>" + page() == golden("mistral-base")


@pytest.mark.parametrize("family", FAMILIES)
async def test_the_tokenizer_decides_the_form(family: str) -> None:
    source = None if FAMILIES[family] == "text" else template(family)
    assert await form_of_tokenizer(TemplateFacts(source)) == FAMILIES[family]


async def test_a_template_that_drops_the_system_message_silently_counts_as_one_without() -> None:
    assert await form_of_tokenizer(TemplateFacts(template("drops-system"))) == "chat-without-system"
