"""A rewriter, ready to rewrite: its model behind its wrappers, and how much of a query may be lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from drpo.align_pro.rewarding import Rewarding, open_rewarding
from drpo.ask import Asker
from drpo.config_rewriting import RewritingConfig
from drpo.live import Resources
from drpo.llm.base import LLM
from drpo.plan import RunPlan, digest_of
from drpo.respond import choose_form
from drpo.rewriting.asking import Left, Writer, by_words
from drpo.rewriting.bpo import BpoRewriter
from drpo.rewriting.contract import Rewriter
from drpo.rewriting.plan import Rewriting, meaning_embedder
from drpo.rewriting.weighing import Prompter, RewardOf, WeighedPrompter
from drpo.templates import Templates
from drpo.types import Failed
from drpo.wiring import EmbeddingLimits, build_embedder

Answers = Callable[[str], Awaitable[str | Failed]]
"""What the base model reads -> its answer."""


async def open_rewriter(
    plan: RunPlan, rewriting: Rewriting, resources: Resources, llm: LLM, answers: Answers
) -> Rewriter:
    """The rewriter of a plan. llm: its model behind its wrappers. answers: the base model, asked where
    several rewrites of a query are weighed by the reward of its answers."""
    config = plan.config
    assert isinstance(config, RewritingConfig)
    writer = await open_writer(rewriting, config, plan.inputs.templates, resources, llm)
    left = left_by(meaning_embedder(config), resources)
    if rewriting.kind != "align-pro":
        return BpoRewriter(writer, config.rounds, left)
    if config.samples == 1:
        return Prompter(writer, left)
    rewarding = await open_rewarding(plan, resources, rewriting.reward_model)
    reward = _reward_of(rewarding, answers)
    return WeighedPrompter(
        writer, reward, config.samples, config.lambda_, config.pick, config.random_seed, left
    )


def _reward_of(rewarding: Rewarding, answers: Answers) -> RewardOf:
    async def reward(query: str, text: str) -> float | None:
        answer = await answers(text)
        if isinstance(answer, Failed):
            return None
        (value,) = await rewarding.rewards([(query, answer)])
        return None if isinstance(value, Failed) else value

    return reward


async def open_writer(
    rewriting: Rewriting, config: RewritingConfig, templates: Templates, resources: Resources, llm: LLM
) -> Writer:
    """The model that rewrites, asked as its kind wants it."""
    choice, is_json = rewriting.choice, rewriting.format == "improve"
    structured = is_json and (
        config.structured == "on" or (config.structured == "auto" and choice.provider == "vllm")
    )
    return Writer(
        Asker(llm, templates, config.repairs if is_json else 0, structured, whole=not is_json),
        choice.identity,
        rewriting.format,
        rewriting.templates,
        rewriting.sampling,
        "chat" if is_json else await choose_form(choice, "auto", resources, "rewriter"),
        config.rewriter_mode,
        config.random_seed,
    )


def left_by(embedder: str | None, resources: Resources) -> Left:
    """How much of a query is left in a rewrite: the cosine of their vectors, recorded; by words where the
    embedder is lexical or none."""
    if embedder is None or embedder in ("lexical", ""):
        return by_words
    model = build_embedder(
        embedder,
        resources.connections,
        resources.environment,
        resources.stop,
        EmbeddingLimits(
            resources.config.timeout_s, resources.config.deadline_s, resources.config.concurrency
        ),
        resources.ledger,
    )

    async def left(query: str, text: str) -> float | None:
        async def compute() -> float:
            one, other = await model.embed([query, text])
            return float(one @ other)

        share = await resources.record.fact(f"left {digest_of([embedder, query, text])}", compute)
        return float(share)

    return left
