"""`drpo bpo build`: preference pairs -> pairs of prompts (BPO, section 3.1). A run like every other:
recorded, resumed, within its budget."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from drpo.ask import Asker, derived_seed
from drpo.bpo.filters import Filter, why_left_out, without_context
from drpo.bpo.pairs import Preference, Preferences, read_preferences
from drpo.choices import ModelChoice, custom_choice, named_model, refuse_idle_flags
from drpo.config_bpo import BuildConfig
from drpo.data import ExampleSet
from drpo.errors import InputError
from drpo.jsonl import plain_lines, write_atomically
from drpo.llm.base import LLM, Message, Request, Role
from drpo.measured import SCHEMA, SUMMARY_NAME
from drpo.measuring.plan import identity_of
from drpo.measuring.progress import Counting
from drpo.measuring.running import Opened, measure
from drpo.parse import Unreadable, read_rewrite
from drpo.plan import Inputs, RunPlan, digest_of, run_path
from drpo.reply_schemas import rewrite_schema
from drpo.rewriting.templates import RewriteTemplates
from drpo.run import Hooks
from drpo.search.engine import settle
from drpo.templates import Templates
from drpo.types import Failed, Query
from drpo.wiring import open_model, structured_for

COMMAND, DEMO = "bpo-build", "demo"
PAIRS_NAME, LEFT_OUT_NAME = "pairs.jsonl", "left_out.jsonl"
FIELD = "optimized_instruction"
DEMO_PAIRS = 200
MOST_FAILED = 0.05
"""A larger share of preferences without a readable reply makes data that nobody should train on (exit 4)."""


@dataclass(frozen=True, slots=True)
class BuildPlan(RunPlan):
    """Preferences and an optimizer before the first request."""

    config: BuildConfig
    preferences: Preferences
    templates: RewriteTemplates


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt and what became of it. left_out: why it is none to train on; None where it is."""

    preference: Preference
    optimized: str
    left_out: Filter | None = None
    problem: str = ""

    @property
    def is_unchanged(self) -> bool:
        """Whether the optimizer found nothing to do; such pairs teach to leave good prompts alone."""
        return self.left_out is None and self.optimized == self.preference.instruction

    def as_dict(self) -> dict[str, Any]:
        """A line of pairs.jsonl or left_out.jsonl."""
        line: dict[str, Any] = {"prompt": self.preference.instruction, "optimized_prompt": self.optimized}
        line |= {"context": self.preference.context} if self.preference.context else {}
        if self.left_out is not None:
            line |= {"why": self.left_out, "problem": self.problem or None}
        return line


@dataclass(frozen=True, slots=True)
class Built:
    """The result of `drpo bpo build`. out: the folder of pairs.jsonl, left_out.jsonl and summary.json."""

    run_dir: Path
    out: Path
    pairs: tuple[Pair, ...]
    preferences: Preferences
    model: str
    simulated: bool
    sent: dict[str, int]

    @property
    def kept(self) -> tuple[Pair, ...]:
        """The pairs to train on."""
        return tuple(pair for pair in self.pairs if pair.left_out is None)

    @property
    def is_believable(self) -> bool:
        """Whether at most `MOST_FAILED` of the preferences have no readable reply."""
        failed = sum(pair.left_out == "failed" for pair in self.pairs)
        return failed <= MOST_FAILED * len(self.pairs)

    def as_dict(self) -> dict[str, Any]:
        """The content of summary.json."""
        return {
            "schema": SCHEMA,
            "command": COMMAND,
            "simulated": self.simulated,
            "models": {"optimizer": self.model},
            "source": self.preferences.source,
            "preferences": len(self.pairs),
            "said_nothing": self.preferences.left_out,
            "kept": len(self.kept),
            "unchanged": sum(pair.is_unchanged for pair in self.pairs),
            "left_out": dict(Counter(pair.left_out for pair in self.pairs if pair.left_out is not None)),
        }


def build_plan(
    config: BuildConfig, environment: Mapping[str, str], custom: Mapping[Role, LLM] | None = None
) -> BuildPlan:
    """The plan of `drpo bpo build`. Raises InputError for whatever cannot be used."""
    if custom and "optimizer" in custom:
        optimizer = custom_choice(custom["optimizer"])
    elif config.optimizer is None:
        raise InputError("--optimizer is missing: name the model that rewrites, such as openai/NAME or demo")
    else:
        optimizer = named_model("optimizer", config.optimizer, config, environment)
    models: dict[Role, ModelChoice] = {"optimizer": optimizer}
    refuse_idle_flags(config, models.values())
    found = _preferences(config)
    templates = RewriteTemplates(config.prompts)
    rows = [asdict(one) for one in found.items]
    inputs = Inputs(
        tuple(Query(one.instruction) for one in found.items),
        ExampleSet((), "", ""),
        Templates(config.prompts),
        tuple(f"{count} left out: {why}" for why, count in found.left_out.items()),
        files=(("preferences.jsonl", plain_lines(rows)),),
    )
    build = "rewrite/build.j2"
    digests = {"preferences": digest_of(rows), build: templates.digests()[build]}
    digests["prompts/repair.j2"] = inputs.templates.digests()["repair.j2"]
    identity = identity_of(COMMAND, config, models, "", digests)
    return BuildPlan(config, models, inputs, "", identity, found, templates)


def _preferences(config: BuildConfig) -> Preferences:
    if config.pairs != DEMO or Path(DEMO).exists():
        found = read_preferences(config.pairs)
        return Preferences(found.items[: config.limit], found.source, found.left_out)
    from drpo.bpo.demo import demo_preferences

    return demo_preferences(config, config.limit or DEMO_PAIRS)


async def run_build(
    plan: BuildPlan, environment: Mapping[str, str], hooks: Hooks, counting: Counting | None = None
) -> Built:
    """The pairs of the plan, in its order. The same call again resumes, and sends nothing once all are there.

    Raises InputError where `--out` is a folder that holds other data.
    """
    _refuse_other(plan)
    counting = counting or Counting(plan, run_path(plan), len(plan.preferences.items))
    return await measure(plan, environment, hooks, counting, partial(_build, plan))


async def _build(plan: BuildPlan, opened: Opened) -> Built:
    config, resources, choice = plan.config, opened.resources, plan.models["optimizer"]
    llm = await open_model(choice, resources)
    asker = Asker(llm, plan.inputs.templates, config.repairs, structured_for(plan, "optimizer"))

    async def one(preference: Preference) -> Pair:
        pair = await _pair(plan, asker, choice.identity, preference)
        opened.counting.count()
        return pair

    pairs = tuple(await settle(one(preference) for preference in plan.preferences.items))
    out = config.out or opened.directory.path
    sent = dict(resources.record.sent)
    built = Built(opened.directory.path, out, pairs, plan.preferences, choice.identity, plan.simulated, sent)
    for folder in {one.resolve(): one for one in (opened.directory.path, out)}.values():
        _write(folder, built)
    return built


async def _pair(plan: BuildPlan, asker: Asker, model: str, one: Preference) -> Pair:
    config = plan.config
    protected = tuple(part for part in config.protect if part in one.instruction)
    text = plan.templates.build(one.instruction, one.good, one.bad, one.context, protected)
    greedy = config.optimizer_temperature == 0
    request = Request(
        model,
        messages=(Message("user", text),),
        temperature=config.optimizer_temperature,
        top_p=config.optimizer_top_p,
        max_tokens=config.max_tokens,
        seed=None if greedy else derived_seed(config.random_seed, f"build {digest_of(asdict(one))}"),
        role="optimizer",
    )

    def read(reply: str) -> str | Unreadable:
        return read_rewrite(reply, FIELD)

    reply = await asker.ask(request, read, rewrite_schema(FIELD))
    if isinstance(reply, Failed):
        return Pair(one, "", "failed", reply.reason)
    optimized = without_context(reply.strip(), one.context)
    return Pair(one, optimized, why_left_out(one.instruction, optimized, one.good, one.context, protected))


def _refuse_other(plan: BuildPlan) -> None:
    """Data of another run is not written over: a model may be in training on it."""
    out = plan.config.out
    if out is None or not out.exists() or out.resolve() == run_path(plan).resolve():
        return
    if not out.is_dir():
        raise InputError(f"--out {out}: expected a folder, found a file; name another")
    try:
        there = json.loads((out / SUMMARY_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if any(out.iterdir()):
            raise InputError(f"--out {out}: expected an empty folder or none, it holds other files") from None
        return
    except (OSError, ValueError):
        there = None
    if not isinstance(there, dict) or there.get("run") != digest_of(plan.identity):
        raise InputError(f"--out {out}: holds the data of other settings, and nothing is written over")


def _write(folder: Path, built: Built) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / PAIRS_NAME, plain_lines(pair.as_dict() for pair in built.kept))
    dropped = [pair.as_dict() for pair in built.pairs if pair.left_out is not None]
    write_atomically(folder / LEFT_OUT_NAME, plain_lines(dropped))
    identity = json.loads((built.run_dir / "run.json").read_text(encoding="utf-8"))["identity"]
    summary = {**built.as_dict(), "run": digest_of(identity)}
    write_atomically(folder / SUMMARY_NAME, json.dumps(summary, ensure_ascii=False, indent=2) + "\n")
