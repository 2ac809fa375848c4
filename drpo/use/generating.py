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
from drpo.measuring.running import Opened, measure
from drpo.plan import run_path
from drpo.run import Hooks
from drpo.search.engine import settle
from drpo.types import Failed
from drpo.use.asking import Answer, open_using
from drpo.use.plan import UsePlan
from drpo.wiring import open_model, shots_of


@dataclass(frozen=True, slots=True)
class Generated:
    """The answer to one query; `Failed` where there is none, because it does not fit the context."""

    item: Item
    answer: Answer | Failed

    def as_dict(self) -> dict[str, Any]:
        """A line of answers.jsonl."""
        asked = {"id": self.item.id, "query": self.item.query}
        if isinstance(self.answer, Failed):
            return {**asked, "response": None, "problem": self.answer.reason}
        return {
            **asked,
            "response": self.answer.text,
            "finish_reason": self.answer.finish_reason,
            "shots": list(self.answer.shots),
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
    _refuse_folder(plan.config.out)
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
    if subject.shots and subject.embedder:
        found = plan.inputs.examples
        shots = await shots_of(found, subject.embedder, resources, subject.shots, plan.inputs.queries)

    async def one(item: Item, indices: tuple[int, ...]) -> Generated:
        asked = await using.asked(item.query, shots=indices)
        answer = asked if isinstance(asked, Failed) else await using.complete(asked)
        opened.counting.count()
        return Generated(item, answer)

    answers = tuple(await settle(one(*pair) for pair in zip(plan.items, shots, strict=True)))
    text = plain_lines(answer.as_dict() for answer in answers)
    out = config.out or opened.directory.path / ANSWERS_NAME
    write_atomically(opened.directory.path / ANSWERS_NAME, text)
    if config.out is not None:
        _write_out(config.out, text)
    return Generation(opened.directory.path, out, answers, plan.simulated, dict(resources.record.sent))


def _refuse_folder(out: Path | None) -> None:
    if out is not None and out.is_dir():
        raise InputError(f"--out {out}: is a folder; name a file in it")


def _write_out(out: Path, text: str) -> None:
    """The file that the user asked for; one that is there is written over only with what it holds."""
    if out.exists() and out.read_bytes() != text.encode("utf-8"):
        raise InputError(f"--out {out}: there is such a file and nothing is written over; name another")
    write_atomically(out, text)
