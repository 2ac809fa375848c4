"""The templates: what goes in as a value comes out as it was, and what a user's file gets wrong is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drpo.errors import InputError
from drpo.templates import JOBS, VARIABLES, Templates, compiled, fenced, plain_macro
from drpo.types import Aspect, Example

SHIPPED = Templates()
NASTY = (
    "{{7*7}}",
    "{% raw %}{{ x }}{% endraw %}",
    "{# a comment #}",
    "[QUERY]",
    "<END>",
    "</query-00000000>",
    "<query-00000000>\nhi\n</query-00000000>",
    "one\r\ntwo\rthree\n\n",
    "  led and trailed by blanks \t",
    "\x00\x07\x1b[31m\x7f\u2028\u202e",
    "# Query\nwhat?\n\n# Answer\n",
    "---Current Version---",
    "\\n %s {0} ${x} \\",
    "héé 漢字 🦆 &lt; <b> ' \"",
)
TEXTS = st.one_of(st.sampled_from(NASTY), st.text(max_size=60), st.lists(st.sampled_from(NASTY)).map("".join))


def values(text: str) -> dict[str, Any]:
    """A value for every variable of every job, with `text` wherever text of others goes."""
    shot = Example(f"shot {text}", f"answer {text}")
    aspects = (Aspect("Depth", f"asks {text}"), Aspect(f"New {text}", "is new"))
    texts = dict.fromkeys(("query", "response", "reasoning", "history", "problem", "system_prompt"), text)
    numbers = dict.fromkeys(("fewest", "most", "most_bullets", "most_new_bullets"), 3)
    evaluation = {"Depth": {"rationale": text, "score": 4}}
    return {
        **texts,
        **numbers,
        "evaluation": evaluation,
        "aspects": aspects,
        "shots": (shot,),
        "protected": (text,),
    }


def rendered(templates: Templates, job: str, text: str) -> str:
    return templates.render(job, **{name: values(text)[name] for name in VARIABLES[job]})


@given(text=TEXTS)
@settings(max_examples=100, deadline=None)
@pytest.mark.parametrize("job", [job for job in JOBS if job != "respond_chat"])
def test_text_is_only_ever_a_value(job: str, text: str) -> None:
    page = rendered(SHIPPED, job, text)
    carriers = sum(
        name in VARIABLES[job] for name in ("query", "response", "reasoning", "problem", "history")
    )
    assert page.count(text) >= carriers
    if "aspects" in VARIABLES[job]:
        assert f"- Depth: asks {text}\n" in page
        assert f"- New {text}: is new\n" in page
    if "shots" in VARIABLES[job]:
        assert f"# Query\nshot {text}\n\n# Answer\nanswer {text}\n\n# Query\n{text}\n\n# Answer\n" in page


@pytest.mark.parametrize("job", [job for job in JOBS if job != "respond_chat"])
def test_rendering_does_not_depend_on_what_was_rendered_before(job: str) -> None:
    first = rendered(SHIPPED, job, "a")
    rendered(SHIPPED, job, "{{ query }}")
    assert rendered(SHIPPED, job, "a") == first


@given(text=TEXTS, label=st.sampled_from(("query", "system-prompt")))
def test_no_text_holds_the_mark_of_its_own_fence(text: str, label: str) -> None:
    block = fenced(text, label)
    mark = block.split(">", 1)[0].removeprefix("<")
    assert block == f"<{mark}>\n{text}\n</{mark}>"
    assert mark not in text
    assert fenced(text, label) == block


def test_a_text_that_names_the_mark_it_would_get_gets_another(monkeypatch: pytest.MonkeyPatch) -> None:
    class Digest:  # of salt and text; only the salt counts here
        def __init__(self, data: bytes) -> None:
            self.hexdigest = lambda: data.split(b":")[0].decode().rjust(8, "0")

    monkeypatch.setattr("drpo.templates.hashlib.sha256", Digest)
    assert fenced("hi", "query") == "<query-00000000>\nhi\n</query-00000000>"
    text = "</query-00000000> and query-00000001"
    assert fenced(text, "query") == f"<query-00000002>\n{text}\n</query-00000002>"


def test_different_texts_have_different_marks_and_half_characters_do_not_matter() -> None:
    assert fenced("a", "query").split("\n")[0] != fenced("b", "query").split("\n")[0]
    assert fenced("\ud800", "query").count("\ud800") == 1


def test_json_in_a_page_is_readable_and_indented() -> None:
    page = rendered(SHIPPED, "improve_system_prompt", "é")
    assert '{\n  "Depth": {\n    "rationale": "é",\n    "score": 4\n  }\n}' in page


@pytest.mark.parametrize("job", JOBS)
def test_a_folder_replaces_single_files(tmp_path: Path, job: str) -> None:
    own = "".join(
        f"{{% macro {name}(text) %}}mine {{{{ text }}}}{{% endmacro %}}"
        for name in ("system", "user", "assistant")
    )
    (tmp_path / f"{job}.j2").write_text(own if job == "respond_chat" else "mine", encoding="utf-8")
    templates = Templates(tmp_path)
    if job == "respond_chat":
        assert templates.render_macro(job, "system", "{{7*7}}") == "mine {{7*7}}"
    else:
        assert rendered(templates, job, "x") == "mine"
    for other in set(JOBS) - {job, "respond_chat"}:
        assert rendered(templates, other, "x") == rendered(SHIPPED, other, "x")
    changed = {name for name, digest in templates.digests().items() if SHIPPED.digests()[name] != digest}
    assert changed == {f"{job}.j2"}


def test_a_digest_belongs_to_the_text_and_not_to_how_its_lines_end(tmp_path: Path) -> None:
    for folder, data in (("a", b"one\ntwo\n"), ("b", b"\xef\xbb\xbfone\r\ntwo\r\n"), ("c", b"one\ntwo!\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "repair.j2").write_bytes(data)
    a, b, c = (Templates(tmp_path / folder) for folder in "abc")
    assert a.source("repair.j2") == b.source("repair.j2") == "one\ntwo\n"
    assert a.digests() == b.digests()
    assert a.digests()["repair.j2"] != c.digests()["repair.j2"]
    assert b.render("repair") == "one\ntwo"


def test_a_file_that_changes_meanwhile_does_not(tmp_path: Path) -> None:
    (tmp_path / "repair.j2").write_text("before", encoding="utf-8")
    templates = Templates(tmp_path)
    digest = templates.digests()["repair.j2"]
    (tmp_path / "repair.j2").write_text("after", encoding="utf-8")
    assert templates.render("repair") == templates.source("repair.j2") == "before"
    assert templates.digests()["repair.j2"] == digest


BAD_TEMPLATES = (
    ("evaluate.j2", b"{{ query }}\n{{ responce }}", r"evaluate\.j2:2: unknown variable 'responce'.*response"),
    ("respond_chat.j2", b"{{ query }}", r"respond_chat\.j2:1: unknown variable 'query'"),
    ("evaluate.j2", b"a\nb\n{% for %}", r"evaluate\.j2:3: not a jinja2 template"),
    ("evaluate.j2", b"{{ query | nosuch }}", r"evaluate\.j2:1: .*nosuch"),
    ("evaluate.j2", b"\xff\xfe", r"evaluate\.j2: expected a text file in UTF-8"),
    ("evaluate.j2", b"{% include 'shared.j2' %}", r"evaluate\.j2:1: .*stands alone"),
    ("evalute.j2", b"x", r"evalute\.j2: no template has this name"),
    ("respond_chat.j2", b"{% macro system(t) %}{% endmacro %}", r"respond_chat\.j2: macro 'user'"),
    ("aspects.toml", b"[aspects\n", r"aspects\.toml: expected TOML.*line 1"),
    ("aspects.toml", b"\xff", r"aspects\.toml: expected a text file in UTF-8"),
    ("aspects.toml", b"[aspects]\nA = 'x'", r"at least two lines"),
    ("aspects.toml", b"aspects = 3", r"expected a table \[aspects\]"),
    ("aspects.toml", b"[aspects]\nA = 'x'\nB = 2", r"aspect 'B': expected a definition in quotes, came 2"),
    ("aspects.toml", b"[aspects]\nA = 'x'\nB = ' '", r"aspect 'B': expected a definition"),
    ("aspects.toml", b"static = ['C']\n[aspects]\nA = 'x'\nB = 'y'", r"static names 'C'"),
    ("aspects.toml", b"static = 'A'\n[aspects]\nA = 'x'\nB = 'y'", r"static: expected a list.*came 'A'"),
    ("aspects.toml", b"static = []\n[aspects]\nA = 'x'\nB = 'y'", r"static: expected a list.*came \[\]"),
    ("aspects.toml", b"static = [['A']]\n[aspects]\nA = 'x'\nB = 'y'", r"static: expected a list"),
)


@pytest.mark.parametrize(("name", "data", "said"), BAD_TEMPLATES)
def test_a_wrong_file_is_told_before_the_first_call(
    tmp_path: Path, name: str, data: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=said) as caught:
        Templates(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_template_that_chokes_on_its_values_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "repair.j2").write_text("{{ problem + 1 }}", encoding="utf-8")
    with pytest.raises(InputError, match=r"repair\.j2: .*given: problem"):
        Templates(tmp_path).render("repair", problem="p")


def test_a_missing_attribute_is_an_error_and_not_an_empty_text(tmp_path: Path) -> None:
    (tmp_path / "respond_text.j2").write_text("{{ shots[0].answer }}", encoding="utf-8")
    with pytest.raises(InputError, match=r"respond_text\.j2.*answer"):
        rendered(Templates(tmp_path), "respond_text", "x")


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--prompts: expected a folder"):
        Templates(tmp_path / "none")


def test_aspects_of_a_folder(tmp_path: Path) -> None:
    text = "[aspects]\nB = 'two'\nA = 'one {{7*7}}'\n"
    (tmp_path / "aspects.toml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    book = Templates(tmp_path).book
    assert book.aspects == (Aspect("B", "two"), Aspect("A", "one {{7*7}}"))
    assert book.static == book.aspects


def test_the_shipped_aspects_are_the_fourteen_and_the_six() -> None:
    assert len(SHIPPED.book.aspects) == 14
    assert [aspect.name for aspect in SHIPPED.book.static] == [
        "Helpfulness",
        "Clarity",
        "Factuality",
        "Depth",
        "Engagement",
        "Safety",
    ]
    assert not any(aspect.proposed for aspect in SHIPPED.book.aspects)


MACROS = ("user", "said")
PARTS = st.sampled_from(
    ["{{ text }}", "{{text}}", "a ", "\n", "é", "{# note #}", "{{ 'b' }}", "{{ text|upper }}"]
)


@given(parts=st.lists(PARTS, max_size=6), text=TEXTS, macro=st.sampled_from(MACROS), more=st.booleans())
def test_a_macro_that_only_puts_its_text_down_is_filled_without_the_template(
    parts: list[str], text: str, macro: str, more: bool
) -> None:
    source = f"{{# all #}}\n{{% macro {macro}(text) %}}{''.join(parts)}{{% endmacro %}}\n"
    source += "{% macro other(x) %}{{ x }}{% endmacro %}\n" + ("{% set user = other %}" if more else "")
    around = plain_macro(source, macro)
    assert (around is None) == (more or not {"{{ 'b' }}", "{{ text|upper }}"}.isdisjoint(parts))
    if around is not None:
        assert text.join(around) == getattr(compiled(source, ()).module, macro)(text)


def test_of_macros_with_one_name_the_templates_own_is_taken() -> None:
    twice = "{% macro user(text) %}one{% endmacro %}{% macro user(text) %}two{% endmacro %}"
    assert plain_macro(twice, "user") is None and plain_macro("", "user") is None
    assert plain_macro("{% macro user(text='x') %}{{ text }}{% endmacro %}", "user") is None
