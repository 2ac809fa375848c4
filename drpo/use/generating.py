"""`drpo generate`: answers to many queries, in order, resumed where they were left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from drpo.config_use import GenerateConfig
from drpo.errors import InputError
from drpo.evaluation_data import Item
from drpo.jsonl import plain_lines, write_atomically
from drpo.measured import ANSWERS_NAME
from drpo.measuring.answering import made_for_another
from drpo.measuring.progress import Counting
from drpo.measuring.results import rewrite_fields
from drpo.measuring.running import Opened, measure
from drpo.plan import run_path
from drpo.rewriting.contract import Rewrite
from drpo.run import Hooks
from drpo.search.engine import settle
from drpo.types import Failed, Query
from drpo.use.asking import Answer, open_using
from drpo.use.plan import UsePlan
from drpo.wiring import open_model, shots_of


@dataclass(frozen=True, slots=True)
class Generated:
    """The answer to one query; `Failed` where there is none, because it does not fit the context."""

    item: Item
    answer: Answer | Failed
    rewrite: Rewrite | None = None

    def as_dict(self) -> dict[str, Any]:
        """A line of answers.jsonl."""
        asked = {"id": self.item.id, "query": self.item.query, **rewrite_fields(self.rewrite)}
        if isinstance(self.answer, Failed):
            return {**asked, "response": None, "problem": self.answer.reason}
        return {
            **asked,
            "response": self.answer.text,
            "finish_reason": self.answer.finish_reason,
            "shots": list(self.answer.shots),
        }

    def as_training(self, own_words: bool = False) -> dict[str, Any] | None:
        """A line of a set for supervised fine-tuning, as TRL reads conversations; None without a whole
        answer. own_words: whether the prompt is the user's own query, where the model answered a rewrite."""
        if isinstance(self.answer, Failed) or self.answer.finish_reason != "stop" or not self.answer.text:
            return None
        asked = self.item.query if own_words or self.rewrite is None else self.rewrite.text
        return {
            "prompt": [{"role": "user", "content": asked}],
            "completion": [{"role": "assistant", "content": self.answer.text}],
        }


@dataclass(frozen=True, slots=True)
class Generation:
    """The result of `drpo generate`. out: the file with the answers, in the order of the queries."""

    run_dir: Path
    out: Path
    answers: tuple[Generated, ...]
    simulated: bool
    sent: dict[str, int]

    @property
    def failed(self) -> tuple[Generated, ...]:
        """Those without an answer."""
        return tuple(one for one in self.answers if isinstance(one.answer, Failed))


async def run_generate(
    plan: UsePlan, environment: Mapping[str, str], hooks: Hooks, counting: Counting | None = None
) -> Generation:
    """Answers to all queries of the plan. The same call again resumes, and sends nothing once all are there.

    Raises InputError where `--out` names a file that is there and holds something else.
    """
    assert isinstance(plan.config, GenerateConfig)
    for file in (plan.config.out, plan.config.sft):
        refuse_folder(file)
    counting = counting or Counting(plan, run_path(plan), len(plan.items))
    return await measure(plan, environment, hooks, counting, partial(_generate, plan))


async def _generate(plan: UsePlan, opened: Opened) -> Generation:
    config, resources = plan.config, opened.resources
    assert isinstance(config, GenerateConfig)
    if (said := made_for_another(plan.subject, plan.choice)) is not None:
        resources.notice(said)
    using = await open_using(plan, resources, await open_model(plan.choice, resources))
    subject = plan.subject
    shots: tuple[tuple[int, ...], ...] = (tuple(range(subject.shots)),) * len(plan.items)
    rewrites = await settle(using.rewrite(item.query) for item in plan.items)
    if subject.shots and subject.embedder:
        pairs = zip(plan.items, rewrites, strict=True)
        asked_for = [Query(item.query if one is None else one.text) for item, one in pairs]
        found = plan.inputs.examples
        shots = await shots_of(found, subject.embedder, resources, subject.shots, asked_for)

    async def one(item: Item, indices: tuple[int, ...], rewrite: Rewrite | None) -> Generated:
        asked = await using.asked(item.query, shots=indices, rewrite=rewrite)
        answer = asked if isinstance(asked, Failed) else await using.complete(asked)
        opened.counting.count()
        return Generated(item, answer, rewrite)

    answers = tuple(await settle(one(*each) for each in zip(plan.items, shots, rewrites, strict=True)))
    text = plain_lines(answer.as_dict() for answer in answers)
    out = config.out or opened.directory.path / ANSWERS_NAME
    write_atomically(opened.directory.path / ANSWERS_NAME, text)
    if config.out is not None:
        write_out(config.out, text)
    if config.sft is not None:
        own_words = config.sft_prompt == "query"
        write_out(config.sft, plain_lines(line for one in answers if (line := one.as_training(own_words))))
    return Generation(opened.directory.path, out, answers, plan.simulated, dict(resources.record.sent))


def refuse_folder(out: Path | None) -> None:
    """Raises InputError where the file for the answers is a folder."""
    if out is not None and out.is_dir():
        raise InputError(f"{out}: is a folder; name a file in it")


def write_out(out: Path, text: str) -> None:
    """The file that the user asked for; one that is there is written over only with what it holds."""
    if out.exists() and out.read_bytes() != text.encode("utf-8"):
        raise InputError(f"{out}: there is such a file and nothing is written over; name another")
    write_atomically(out, text)
