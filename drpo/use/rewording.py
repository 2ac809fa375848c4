"""`drpo rewrite`: queries in other words, by a rewriter alone or with its rewrites weighed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from drpo.choices import ModelChoice, refuse_idle_flags
from drpo.config_use import RewriteConfig
from drpo.data import ExampleSet
from drpo.errors import InputError
from drpo.evaluation_data import Item, read_items
from drpo.jsonl import plain_lines, write_atomically
from drpo.llm.base import LLM, Role
from drpo.measured import ANSWERS_NAME
from drpo.measuring.plan import base_model, identity_of
from drpo.measuring.progress import Counting
from drpo.measuring.running import Opened, measure
from drpo.measuring.subject import Subject, read_subject
from drpo.plan import Inputs, RunPlan, digest_of, run_path
from drpo.rewriting.contract import Rewrite
from drpo.rewriting.opening import Answers, open_rewriter
from drpo.rewriting.plan import Rewriting, meaning_embedder, rewriting_of
from drpo.run import Hooks
from drpo.search.engine import settle
from drpo.templates import Templates
from drpo.types import Failed, Query
from drpo.use.asking import open_using
from drpo.use.generating import refuse_folder, write_out
from drpo.use.plan import UsePlan
from drpo.wiring import open_model


@dataclass(frozen=True, slots=True)
class RewritePlan(RunPlan):
    """Queries and a rewriter before the first request. subject: by which the base model is asked where
    rewrites are weighed, else None. source: where the queries come from."""

    config: RewriteConfig
    rewriting: Rewriting
    items: tuple[Item, ...]
    source: str
    subject: Subject | None


@dataclass(frozen=True, slots=True)
class Reworded:
    """The result of `drpo rewrite`: per query its rewrites, the one to use first."""

    run_dir: Path
    out: Path
    items: tuple[Item, ...]
    rewrites: tuple[tuple[Rewrite, ...], ...]
    simulated: bool
    sent: dict[str, int]

    def lines(self) -> list[dict[str, Any]]:
        """What stands in the file, a line each."""
        return [_line(item, found) for item, found in zip(self.items, self.rewrites, strict=True)]


def rewrite_plan(
    config: RewriteConfig,
    queries: Sequence[str],
    environment: Mapping[str, str],
    custom: Mapping[Role, LLM] | None = None,
) -> RewritePlan:
    """The plan of `drpo rewrite` for `queries`, or for those of the file in the settings. Raises InputError
    for whatever cannot be used."""
    rewriting = rewriting_of(config, environment, custom)
    if rewriting is None:
        raise InputError("--rewriter is missing: bpo/PATH, bpo-prompt/MODEL or align-pro/MODEL")
    items, source, cleaned = _items(config, queries)
    models: dict[Role, ModelChoice] = dict(rewriting.models)
    subject = None
    if config.samples > 1:
        subject = read_subject(config.alignment, "--alignment", config)
        named = "demo" if config.model is None and rewriting.choice.provider == "demo" else config.model
        models["base"] = base_model(named, "base", "--model", subject, config, environment, custom or {})
    refuse_idle_flags(config, models.values())
    shown = subject.examples if subject is not None else ()
    examples = ExampleSet(shown, subject.name if subject else "", subject.digest if subject else "")
    files = [("items.jsonl", plain_lines(map(asdict, items)))]
    files += [] if subject is None else [("alignment.json", subject.as_json())]
    asked = tuple(Query(item.query) for item in items)
    inputs = Inputs(asked, examples, Templates(config.prompts), cleaned, files=tuple(files))
    embedder = (subject.embedder if subject is not None and subject.shots else "") or meaning_embedder(config)
    digests = {"items": digest_of([asdict(item) for item in items]), **rewriting.digests()}
    digests |= {} if subject is None else {"alignment": subject.digest}
    identity = identity_of("rewrite", config, models, embedder, digests)
    return RewritePlan(config, models, inputs, embedder, identity, rewriting, items, source, subject)


def _items(config: RewriteConfig, queries: Sequence[str]) -> tuple[tuple[Item, ...], str, tuple[str, ...]]:
    if queries and config.queries is not None:
        raise InputError("expected queries on the command line or a file of them (--in), came both")
    if config.queries is not None:
        found = read_items(config.queries, column=config.queries_column)
        return found.items[: config.limit], found.source, found.cleaned
    blank = [query for query in queries if not query.strip()]
    if not queries or blank:
        raise InputError('expected a query, such as drpo rewrite "how do I ...", or a file of them by --in')
    return tuple(Item(str(n), query) for n, query in enumerate(queries)), "the command line", ()


async def run_rewrite(
    plan: RewritePlan, environment: Mapping[str, str], hooks: Hooks, counting: Counting | None = None
) -> Reworded:
    """The rewrites of all queries of the plan; the same call again resumes, and sends nothing once all are
    there. Raises InputError where `--out` names a file that is there and holds something else."""
    refuse_folder(plan.config.out)
    counting = counting or Counting(plan, run_path(plan), len(plan.items))
    return await measure(plan, environment, hooks, counting, partial(_rewrite, plan))


async def _rewrite(plan: RewritePlan, opened: Opened) -> Reworded:
    config, resources, rewriting = plan.config, opened.resources, plan.rewriting
    llm = await open_model(rewriting.choice, resources)
    rewriter = await open_rewriter(plan, rewriting, resources, llm, await _answers(plan, opened))

    async def one(item: Item) -> tuple[Rewrite, ...]:
        found = await rewriter.rewrite(item.query)
        opened.counting.count()
        return found

    rewrites = tuple(await settle(one(item) for item in plan.items))
    out = config.out or opened.directory.path / ANSWERS_NAME
    sent = dict(resources.record.sent)
    result = Reworded(opened.directory.path, out, plan.items, rewrites, plan.simulated, sent)
    text = plain_lines(result.lines())
    write_atomically(opened.directory.path / ANSWERS_NAME, text)
    if config.out is not None:
        write_out(config.out, text)
    return result


async def _answers(plan: RewritePlan, opened: Opened) -> Answers:
    """The base model, opened where it will be asked."""
    if plan.subject is None:

        async def nobody(text: str) -> str | Failed:
            raise AssertionError("one rewrite is not weighed")

        return nobody
    use = UsePlan(plan.config, plan.models, plan.inputs, plan.embedder, plan.identity, plan.subject)
    using = await open_using(use, opened.resources, await open_model(use.choice, opened.resources))
    return using.answer


def _line(item: Item, found: Sequence[Rewrite]) -> dict[str, Any]:
    first = found[0]
    line: dict[str, Any] = {
        "id": item.id,
        "query": item.query,
        "rewritten": first.text,
        "kept": first.kept or None,
        "rounds": list(first.rounds),
        "note": first.note or None,
    }
    if any(one.reward is not None for one in found):
        line["weighed"] = [{"text": one.text, "weight": one.weight, "reward": one.reward} for one in found]
    return line
