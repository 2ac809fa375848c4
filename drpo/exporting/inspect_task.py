"""The target inspect: a task and a solver for Inspect (inspect_ai)."""

from __future__ import annotations

import shlex

from drpo.exporting.export import LOOPBACK, Export, Made, Target, chat_messages, refuse_text_form
from drpo.exporting.openai_script import messages_literal
from drpo.exporting.queries import QUERIES, QUERIES_NOTE, queries_file
from drpo.exporting.words import comment

TASK = "drpo_alignment.py"
_IMPORTS = """from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import FieldSpec, json_dataset
from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser, GenerateConfig
from inspect_ai.solver import generate, solver

KINDS = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}
"""
_CODE = '''

@solver
def aligned():
    """The alignment before the question of a sample, as the search asked it."""

    async def solve(state, generate):
        fixed = [KINDS[message["role"]](content=message["content"]) for message in MESSAGES]
        state.messages = [*fixed, ChatMessageUser(content=BEFORE + state.input_text + AFTER)]
        return state

    return solve


@task
def drpo_alignment(queries=None):
    """The answers to a file of JSON lines with a field query."""
    file = queries or Path(__file__).with_name("queries.jsonl")
    samples = json_dataset(str(file), FieldSpec(input="query"))
    return Task(dataset=samples, solver=[aligned(), generate()], config=GenerateConfig(**PARAMETERS))
'''
_NOTES = (
    "Of a sample that is a chat, its last question is asked, without what stands before it.",
    "The task has no scorer: add one, or use the solver aligned in a task of yours.",
)


def make_inspect(export: Export) -> Made:
    """A file with a task, and queries to try it on."""
    refuse_text_form(export, "inspect", "lm-eval or openai")
    content, model = export.content, export.named()
    text = "".join(
        [
            f"# Written by drpo export --to inspect.\n{comment((*export.notes, *_NOTES))}{_IMPORTS}",
            f"PARAMETERS = {export.parameters()!r}\nMESSAGES = {messages_literal(chat_messages(export))}\n",
            f"BEFORE, AFTER = {content.query.before!r}, {content.query.after!r}\n{_CODE}",
        ]
    )
    # The search asks for chats; for OpenAI's models Inspect asks the Responses API unless told not to.
    asked = f"openai/{model.name} -M responses_api=false"
    if model.url or model.provider == "vllm":
        asked = f"openai-api/local/{model.name} --model-base-url {model.url or LOOPBACK}"
    key = "LOCAL_API_KEY" if "/local/" in asked else "OPENAI_API_KEY"
    # From within the folder: inspect takes no absolute paths.
    folder = shlex.quote(str(export.folder))
    use = (
        f"export {key}=...",
        f"cd {folder} && inspect eval {TASK} --model {asked}",
    )
    return Made(((TASK, text), (QUERIES, queries_file())), use, (*_NOTES, QUERIES_NOTE))


INSPECT_TARGET = Target(
    "inspect", "one query at a time, fixed shots; a task and a solver of Inspect", make_inspect
)
