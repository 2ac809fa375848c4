"""The one renderer: both forms to the letter, and no text that could change its own surroundings."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drpo.compose import TEXT_STOP, Composer, PromptForm, Sampling
from drpo.llm.base import Message
from drpo.templates import Templates
from drpo.types import Example

TEMPLATES = Templates()
CHAT, TEXT = Composer(TEMPLATES, "chat"), Composer(TEMPLATES, "text")
SHOTS = (Example("Why is the sky blue?", "Air scatters blue light most."), Example("2+2?", "Four.", "kind"))
TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ("{{7*7}}", "[QUERY]", "<END>", "{% raw %}", "{# x #}", "a\r\nb\r", "\n", "\x00\x1b\u2028")
    ),
)


def test_the_text_form_to_the_letter() -> None:
    assert TEXT.text("Be kind.", SHOTS, "Who?") == (
        "Be kind.\n"
        "\n"
        "# Query\n"
        "Why is the sky blue?\n"
        "\n"
        "# Answer\n"
        "Air scatters blue light most.\n"
        "\n"
        "# Query\n"
        "2+2?\n"
        "\n"
        "# Answer\n"
        "Four.\n"
        "\n"
        "# Query\n"
        "Who?\n"
        "\n"
        "# Answer\n"
    )
    assert TEXT.text("Be kind.", (), "Who?") == "Be kind.\n\n# Query\nWho?\n\n# Answer\n"


def test_the_chat_form_to_the_letter() -> None:
    assert CHAT.messages("Be kind.", SHOTS, "Who?") == (
        Message("system", "Be kind."),
        Message("user", "Why is the sky blue?"),
        Message("assistant", "Air scatters blue light most."),
        Message("user", "2+2?"),
        Message("assistant", "Four."),
        Message("user", "Who?"),
    )
    assert CHAT.messages("Be kind.", (), "Who?") == (Message("system", "Be kind."), Message("user", "Who?"))


@given(prompt=TEXTS, query=TEXTS, shots=st.lists(st.tuples(TEXTS, TEXTS), max_size=3))
@settings(deadline=None)
def test_what_goes_in_comes_out(prompt: str, query: str, shots: list[tuple[str, str]]) -> None:
    examples = [Example(asked, answered) for asked, answered in shots]
    messages = CHAT.messages(prompt, examples, query)
    turns = [text for shot in shots for text in shot]
    assert [message.content for message in messages] == [prompt, *turns, query]
    page = TEXT.text(prompt, examples, query)
    parts = [f"# Query\n{asked}\n\n# Answer\n{answered}\n\n" for asked, answered in shots]
    assert page == f"{prompt}\n\n{''.join(parts)}# Query\n{query}\n\n# Answer\n"


@pytest.mark.parametrize("form", ["chat", "text"])
def test_a_request_says_whom_it_asks_and_how(form: PromptForm) -> None:
    sampling = Sampling(temperature=0.0, top_p=0.5, max_tokens=7)
    request = Composer(TEMPLATES, form).request("openai/x", sampling, "Be kind.", SHOTS, "Who?")
    asked = (request.model, request.role, request.temperature, request.top_p, request.max_tokens)
    assert asked == ("openai/x", "base", 0.0, 0.5, 7)
    assert (request.n, request.seed, request.priority) == (1, None, 0)
    if form == "chat":
        assert (request.prompt, request.stop) == (None, ())
        assert request.messages == CHAT.messages("Be kind.", SHOTS, "Who?")
    else:
        assert (request.messages, request.stop) == ((), TEXT_STOP)
        assert request.prompt == TEXT.text("Be kind.", SHOTS, "Who?")


def test_prompts_to_one_model_begin_alike_as_far_as_they_can() -> None:
    # A server's prefix cache works on what comes first: system prompt, then shots, then the query.
    one, other = TEXT.text("Be kind.", SHOTS, "Who?"), TEXT.text("Be kind.", SHOTS, "How?")
    assert one[: one.rindex("Who?")] == other[: other.rindex("How?")]


def test_the_text_form_stops_where_its_own_template_begins_the_next_query() -> None:
    page = TEXT.text("p", SHOTS, "q")
    assert page.count(TEXT_STOP[0]) == len(SHOTS) + 1


def test_a_template_of_the_users_own_is_used(tmp_path: Path) -> None:
    (tmp_path / "respond_text.j2").write_text(
        "{{ query }}|{% for s in shots %}{{ s.query }};{% endfor %}|{{ system_prompt }}", encoding="utf-8"
    )
    composer = Composer(Templates(tmp_path), "text")
    assert composer.text("p", SHOTS, "{{7*7}}") == "{{7*7}}|Why is the sky blue?;2+2?;|p"
