"""The target promptfoo: a configuration with the alignment as its prompt."""

from __future__ import annotations

import json
import re
from typing import Any

from drpo.exporting.content import Frame
from drpo.exporting.export import Export, Made, Target, answer_notes, chat_messages
from drpo.exporting.queries import sample_queries
from drpo.exporting.words import comment

CONFIG, PROMPT = "promptfooconfig.yaml", "prompt.j2"
# promptfoo renders prompts with Nunjucks, for which a brace before another one, % or # is a beginning, and #}
# an error where no comment has begun; a brace at the end may stand before the place of the query.
_MARKS = re.compile(r"\{(?=[{%#]|\Z)|#\}")
_NOTES = (
    "promptfoo takes one line end off the end of a query, and reads {{...}} in it as a variable of its own.",
)


def nunjucks(text: str) -> str:
    """`text` as Nunjucks renders it back."""
    return _MARKS.sub(lambda mark: f'{{{{ "{mark[0]}" }}}}', text)


def _asked(frame: Frame) -> str:
    return f"{nunjucks(frame.before)}{{{{ query }}}}{nunjucks(frame.after)}"


def make_promptfoo(export: Export) -> Made:
    """The configuration with provider and a few tests, and the prompt in a file of its own.

    The file ends in .j2 since promptfoo reads what is in such a file as it is; in others, and within the
    configuration, it takes a text for a pattern of files, or loads what a text names by file://.
    """
    content, model = export.content, export.named()
    if content.form == "text":
        kind, raw = "completion", _asked(content.query)
    else:
        kind = "chat"
        fixed = [{**message, "content": nunjucks(message["content"])} for message in chat_messages(export)]
        raw = json.dumps([*fixed, {"role": "user", "content": _asked(content.query)}])
    settings: dict[str, Any] = export.parameters()
    if model.url:
        settings["apiBaseUrl"] = model.url
    value = {
        "description": "An alignment found by drpo",
        "prompts": [{"id": f"file://{PROMPT}", "label": "aligned"}],
        "providers": [{"id": f"openai:{kind}:{model.name}", "config": settings}],
        "tests": [{"vars": {"query": query}} for query in sample_queries()],
    }
    notes = (*answer_notes(export), *_NOTES, "The tests are a few held-out queries; put yours there.")
    # JSON is YAML; in ASCII, since YAML reads some characters of other languages as line ends.
    told = "# Written by drpo export --to promptfoo.\n" + comment((*export.notes, *notes))
    text = f"{told}{json.dumps(value, indent=2)}\n"
    return Made(((CONFIG, text), (PROMPT, raw)), (f"promptfoo eval -c {export.path(CONFIG)}",), notes)


PROMPTFOO_TARGET = Target(
    "promptfoo", "one query at a time, fixed shots, as a chat or a page; a configuration", make_promptfoo
)
