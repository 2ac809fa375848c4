"""`drpo audit-judge`: fixed questions to a judge, and whether its answers can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from drpo.judging.audit import Answer, Audit, AuditQuestion, PreferQuestion, audit, questions
from drpo.judging.verdicts import Verdict
from drpo.measured import SCHEMA
from drpo.measuring.judge import Judge, open_judge
from drpo.measuring.plan import MeasuringPlan
from drpo.measuring.progress import Counting
from drpo.measuring.results import write_results
from drpo.measuring.running import Opened, measure
from drpo.plan import run_path
from drpo.run import Hooks
from drpo.search.engine import settle
from drpo.types import Failed


@dataclass(frozen=True, slots=True)
class AuditResult:
    """What the audit of a judge came to. facts: who was audited with what."""

    run_dir: Path
    facts: dict[str, Any]
    audit: Audit
    simulated: bool
    sent: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """The content of summary.json."""
        return {
            "schema": SCHEMA,
            "command": "audit-judge",
            "simulated": self.simulated,
            **self.facts,
            **self.audit.as_dict(),
        }


async def run_audit(
    plan: MeasuringPlan, environment: Mapping[str, str], hooks: Hooks, counting: Counting | None = None
) -> AuditResult:
    """The audit of the plan's judge; files and resuming as `run_evaluate`."""
    counting = counting or Counting(plan, run_path(plan), len(questions(plan.cases)))
    return await measure(plan, environment, hooks, counting, partial(_audit, plan))


async def _audit(plan: MeasuringPlan, opened: Opened) -> AuditResult:
    judge = await open_judge(plan, opened.resources)
    asked = questions(plan.cases)
    answers = await settle(_ask(question, judge, opened.counting) for question in asked)
    by_id: dict[str, Answer] = {question.id: answer for question, answer in zip(asked, answers, strict=True)}
    result = AuditResult(
        run_dir=opened.directory.path,
        facts={
            "models": plan.identity["models"],
            "data": plan.source,
            "digests": plan.identity["digests"],
            "settings": plan.identity["settings"],
        },
        audit=audit(plan.cases, by_id),
        simulated=plan.simulated,
        sent=dict(opened.resources.record.sent),
    )
    lines = (_line(question, by_id[question.id]) for question in asked)
    write_results(result.run_dir, lines, result.as_dict())
    return result


async def _ask(question: AuditQuestion, judge: Judge, counting: Counting) -> Answer:
    answer: Answer
    if isinstance(question, PreferQuestion):
        answer = await judge.prefer(question.query, question.response_a, question.response_b, question.repeat)
    else:
        aspects = judge.templates.criteria.general
        answer = await judge.score(question.query, question.response, aspects, question.repeat)
    counting.count()
    return answer


def _line(question: AuditQuestion, answer: Answer) -> dict[str, Any]:
    """A line of items.jsonl: what was asked, by its id, and what the judge said."""
    said: Any = None
    if isinstance(answer, Verdict):
        said = {"preferred": answer.preferred, "reason": answer.reason}
    elif isinstance(answer, tuple):
        said = {score.aspect: score.score for score in answer}
    problem = answer.reason if isinstance(answer, Failed) else None
    return {
        "id": question.id,
        "mode": question.mode,
        "query": question.query,
        "said": said,
        "problem": problem,
    }
