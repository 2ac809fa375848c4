"""The targets messages and text: the alignment as data for whatever is to read it."""

from __future__ import annotations

import json

from drpo.exporting.content import unused_marker
from drpo.exporting.export import Export, Made, Target, answer_notes, chat_messages, refuse_text_form
from drpo.exporting.words import plain_line

MESSAGES, NOTES, PAGE = "messages.json", "NOTES.txt", "prompt.txt"


def make_messages(export: Export) -> Made:
    """One JSON document: the messages before the query, and the text around the query in the last one."""
    refuse_text_form(export, "messages", "text or openai")
    query = export.content.query
    value = {
        "note": [plain_line(note) for note in export.notes],
        "messages": chat_messages(export),
        "query": {"role": "user", "before": query.before, "after": query.after},
    }
    text = json.dumps(value, ensure_ascii=False, indent=2) + "\n"
    use = (
        f"send what stands under messages in {export.path(MESSAGES)}, then one message of the user: before, "
        "the query, after",
    )
    return Made(((MESSAGES, text),), use)


def make_text(export: Export) -> Made:
    """A page with a mark where the query goes; of a chat one file per message, each with its text and nothing
    else."""
    content = export.content
    mark = unused_marker(content.query.before, content.query.after)
    if content.form == "text":
        files = [(PAGE, content.query.around(mark))]
        use = f"put the query where {mark} stands in {export.path(PAGE)}; the model continues the page"
    else:
        width = len(str(len(content.turns) + 1))
        messages = content.messages(mark)
        files = [(f"{n:0{width}}-{m.role}.txt", m.content) for n, m in enumerate(messages, 1)]
        use = f"each file is one message, in their order; put the query where {mark} stands in the last one"
    notes = answer_notes(export)
    told = "".join(
        f"{plain_line(note)}\n" for note in (*export.notes, *notes, use[0].upper() + use[1:] + ".")
    )
    return Made((*files, (NOTES, told)), (use,), notes)


MESSAGES_TARGET = Target("messages", "one query at a time, fixed shots; the chat as JSON", make_messages)
TEXT_TARGET = Target(
    "text", "one query at a time, fixed shots; a page, or the messages one by one", make_text
)
