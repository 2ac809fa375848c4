"""The target lm-eval: a task with fixed few-shot examples, and the command with the system instruction."""

from __future__ import annotations

import json
import shlex
from typing import Any

from drpo.errors import InputError
from drpo.exporting.export import LOOPBACK, Export, Made, Target, answer_notes
from drpo.exporting.queries import QUERIES, QUERIES_NOTE, queries_file
from drpo.exporting.words import comment
from drpo.jsonl import plain_lines

NAME = "drpo_alignment"
FEWSHOT, RUN = "fewshot.jsonl", "run.sh"
_OPENAI = "https://api.openai.com/v1"
_CODE = '''import json
from pathlib import Path


def _rows(name):
    with Path(__file__).with_name(name).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def queries(**_):
    """The queries, as the one split of a dataset."""
    from datasets import Dataset

    return {"test": Dataset.from_list(_rows("queries.jsonl"))}


def shots():
    """The few-shot examples, in their order; their texts are those that the search sent."""
    return _rows("fewshot.jsonl")


def question(doc):
    """What the model is asked."""
    return BEFORE + doc["query"] + AFTER


def no_target(doc):
    """Queries have no right answer."""
    return ""


def shot_query(doc):
    return doc["query"]


def shot_response(doc):
    return doc["response"]
'''
_TASK = """task: drpo_alignment
custom_dataset: !function drpo_alignment.queries
test_split: test
output_type: generate_until
doc_to_text: !function drpo_alignment.question
doc_to_target: !function drpo_alignment.no_target
"""
_FEWSHOT = """fewshot_config:
  sampler: first_n
  samples: !function drpo_alignment.shots
  doc_to_text: !function drpo_alignment.shot_query
  doc_to_target: !function drpo_alignment.shot_response
"""
_NOTES = (
    "For a task of lm-eval's own, take --system_instruction from run.sh; its examples are then that task's.",
    "Tried with lm-eval 0.4.13; earlier ones may not know what this task uses.",
)


def _pairs(export: Export) -> tuple[str, list[dict[str, str]]]:
    """The system instruction, and the shots as rows. Raises InputError where lm-eval would leave one out."""
    turns = list(export.content.turns)
    instruction = turns.pop(0).content if turns and turns[0].role == "system" else ""
    if export.content.form == "chat" and not instruction:
        raise InputError(
            "--to lm-eval: the system prompt is empty, which lm-eval does not send; use --to openai"
        )
    pairs = zip(turns[::2], turns[1::2], strict=True)
    rows = [{"query": asked.content, "response": said.content} for asked, said in pairs]
    if not all(row["response"] for row in rows):
        raise InputError(
            "--to lm-eval: an example has an empty response, which lm-eval leaves out; use --to openai"
        )
    return instruction, rows


def _command(export: Export, instruction: str) -> str:
    model = export.named()
    is_page = export.content.form == "text"
    own = _OPENAI if model.provider == "openai" else LOOPBACK
    url = f"{model.url or own}/{'completions' if is_page else 'chat/completions'}"
    arguments = f"model={model.name},base_url={url}"
    if is_page:
        arguments += ",tokenizer_backend=None,tokenized_requests=False"
    kind = "local-completions" if is_page else "local-chat-completions"
    parts = ["lm_eval", "run", "--model", kind, "--model_args", arguments, "--tasks", NAME]
    if not is_page:
        parts += ["--apply_chat_template", "--fewshot_as_multiturn", "True"]
    if instruction:
        parts.append(f"--system_instruction={instruction}")
    parts += ["--predict_only", "--log_samples"]
    return f'{shlex.join(parts)} --include_path "$here" --output_path "$here/results" "$@"'


def make_lm_eval(export: Export) -> Made:
    """A task (YAML with its functions), its few-shot file, a few queries and the command."""
    instruction, rows = _pairs(export)
    given: dict[str, Any] = export.parameters()
    generation = {"until": given.get("stop", []), "do_sample": bool(given.get("temperature"))}
    generation |= {key: given[key] for key in ("temperature", "top_p") if key in given}
    if "max_tokens" in given:
        generation["max_gen_toks"] = given["max_tokens"]
    notes = (*answer_notes(export), *_NOTES)
    told = "# Written by drpo export --to lm-eval.\n" + comment((*export.notes, *notes))
    frame = export.content.query
    task = f"{told}{_TASK}num_fewshot: {len(rows)}\n{_FEWSHOT if rows else ''}"
    task += f'target_delimiter: ""\nfewshot_delimiter: ""\ngeneration_kwargs: {json.dumps(generation)}\n'
    task += "metric_list:\n  - metric: bypass\n"
    code = f"{told}{_CODE}\n\nBEFORE, AFTER = {frame.before!r}, {frame.after!r}\n"
    here = 'here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)'
    script = f"#!/bin/sh\n{told}{here}\nexec {_command(export, instruction)}\n"
    files = [(f"{NAME}.yaml", task), (f"{NAME}.py", code), (QUERIES, queries_file()), (RUN, script)]
    if rows:
        files.insert(2, (FEWSHOT, plain_lines(rows)))
    return Made(tuple(files), (f"sh {export.path(RUN)}",), (*notes, QUERIES_NOTE))


LM_EVAL_TARGET = Target(
    "lm-eval",
    "one query at a time, fixed shots, as a chat or a page; a task, few-shot file, command",
    make_lm_eval,
)
