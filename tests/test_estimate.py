"""The forecast of a run covers what the run comes to, and says what it cannot know."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.estimates import SETTINGS, Compared, compare
from drpo.choices import choose_models
from drpo.config import ExamplesConfig, OptimizeConfig
from drpo.errors import BudgetSpent, RecordDamaged
from drpo.estimate.counts import counts_of, paper_counts
from drpo.estimate.forecast import Forecast, Recorded, forecast, read_recorded
from drpo.estimate.habits import CHAT_BASE, DEMO, PLAIN_BASE, habits_of
from drpo.estimate.ranges import Range, exactly, total
from drpo.plan import Inputs, Plan, examples_plan, optimize_plan
from drpo.search.engine import search
from drpo.search.problem import Draw, Keep, Proposals
from drpo.search.strategy import Beam, Strategy
from drpo.search.tree import Node
from drpo.searches import prompt_strategy
from drpo.settings import resolve
from drpo.types import Failed, Scored, Unscored
from tests.support.published import RUNS, needs_published_runs, tree

KEY = {"OPENAI_API_KEY": "x"}
SMALL = (
    *("two levels", "width 1, one sample", "three evaluations", "monte carlo, five queries", "six queries"),
    *("everything kept", "replies cut at 64 tokens", "no shots", "examples: three evaluations"),
    "examples: cut at 64 tokens",
)
PRICES = ("base=1/2", "optimizer=2/10", "evaluator=2/10", "selector=2/10")


@functools.cache
def shipped() -> Inputs:
    """The shipped texts, read once."""
    return optimize_plan(resolve(OptimizeConfig, {"model": "demo", "validate": 0}, {}), {}).inputs


def planned(environment: dict[str, str] | None = None, **given: Any) -> Plan:
    config = resolve(OptimizeConfig, {"model": "demo", **given}, {})
    if "seeds" in given:
        return optimize_plan(config, environment or {})
    models = choose_models(config, environment or {}, {})
    return Plan(config, models, shipped(), config.embedder or "lexical", {})


@functools.cache
def shipped_examples() -> Inputs:
    """The shipped examples, read once."""
    return examples_plan(resolve(ExamplesConfig, {"model": "demo"}, {}), {}).inputs


def of_examples(**given: Any) -> Plan:
    config = resolve(ExamplesConfig, {"model": "demo", **given}, {})
    models = choose_models(config, KEY, {})
    return Plan(config, {r: m for r, m in models.items() if r != "base"}, shipped_examples(), "", {})


# Against real runs


@pytest.mark.parametrize("name", SMALL)
def test_the_range_covers_calls_tokens_and_cost_of_a_run(name: str, tmp_path: Path) -> None:
    one = compare(name, SETTINGS[name], tmp_path)
    assert one.outside() == []
    assert one.usd > 0


@pytest.fixture(scope="module")
def default_run(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    return compare("the defaults", {}, tmp_path_factory.mktemp("default"))


def test_by_default_the_range_covers_the_run(default_run: Compared) -> None:
    assert default_run.outside() == []


def test_by_default_what_is_expected_is_within_a_quarter(default_run: Compared) -> None:
    said = default_run.said
    assert said.calls.expected == pytest.approx(sum(default_run.real.calls.values()), rel=0.25)
    assert said.usd.expected == pytest.approx(default_run.usd, rel=0.25)
    for role in said.roles:
        usage = default_run.real.usage[role.role]
        assert role.calls.expected == pytest.approx(default_run.real.calls[role.role], rel=0.25)
        assert role.prompt_tokens.expected == pytest.approx(usage.prompt_tokens, rel=0.25)
        assert role.completion_tokens.expected == pytest.approx(usage.completion_tokens, rel=0.25)


def test_books_and_record_agree_on_what_is_compared(default_run: Compared) -> None:
    for role, calls in default_run.real.calls.items():
        assert default_run.spent[role].answered == calls
        assert default_run.spent[role].prompt_tokens == default_run.real.usage[role].prompt_tokens


@needs_published_runs
@pytest.mark.parametrize("name", RUNS)
def test_what_is_expected_of_real_models_is_near_the_published_runs(name: str) -> None:
    model = {"gpt-3.5-turbo": "gpt-3.5-turbo", "mistral-7b-v0.1": "mistral-7b"}[name]
    published = tree(name)
    said = forecast(planned(KEY, model=model, embedder="lexical", preset="published"))
    calls = {role.role: role.calls.expected for role in said.roles}
    prompts = {n["id"]: n["system_prompt"] for n in published["nodes"]}
    rewritten = {n["parent"] for n in published["nodes"] if n["parent"] is not None} - {
        n["parent"] for n in published["nodes"] if prompts.get(n["parent"]) == n["system_prompt"]
    }
    assert calls["base"] == pytest.approx(len(published["nodes"]), rel=0.15)
    assert calls["optimizer"] == pytest.approx(len(rewritten), rel=0.3)
    assert calls["selector"] == pytest.approx(len(published["aspects"]), rel=0.05)


# The bounds, against the engine itself


@dataclass
class Dice:
    """A problem whose outcomes are thrown; it counts what a run would send."""

    dice: random.Random
    keep_above: float
    bad: float
    tries: int = 0
    orders: int = 0

    async def root(self) -> Scored[float] | Unscored[float]:
        return self._tried()

    async def expand(self, node: Node[float], draw: Draw) -> Proposals[int] | Keep | Failed:
        if node.reward is None or node.reward > self.keep_above:
            return Keep()
        self.orders += 1
        return Proposals(tuple(range(len(draw.trials))))

    async def step(
        self, node: Node[float], action: int | Keep, trial: int
    ) -> Scored[float] | Unscored[float] | Failed:
        if not isinstance(action, Keep) and self.dice.random() < self.bad / 3:
            return Failed("no proposal")
        return self._tried()

    def _tried(self) -> Scored[float] | Unscored[float]:
        self.tries += 1
        reward = self.dice.choice([1.0, 2.0, 3.0, 4.0, 5.0])
        return Unscored(reward, Failed("unread")) if self.dice.random() < self.bad else Scored(reward, reward)


SHAPES = st.fixed_dictionaries(
    {
        "width": st.integers(1, 4),
        "samples": st.integers(1, 4),
        "depth": st.integers(2, 7),
        "max_extra_depth": st.integers(0, 5),
        "keep_above": st.sampled_from([0.5, 3.0, 4.5, 5.0]),
        "patience": st.sampled_from([None, 1, 2]),
        "path_score": st.sampled_from(["mean", "last"]),
    }
)


@pytest.fixture(scope="module")
def any_plan() -> Plan:
    return planned()


@settings(max_examples=150)
@given(SHAPES, st.integers(1, 12), st.sampled_from([0.0, 0.1, 0.5, 0.9]), st.randoms(use_true_random=False))
def test_no_search_leaves_the_bounds(
    any_plan: Plan, shape: dict[str, Any], queries: int, bad: float, dice: random.Random
) -> None:
    inputs = replace(any_plan.inputs, queries=any_plan.inputs.queries[:queries])
    config = any_plan.config.model_copy(update=shape)
    assert isinstance(config, OptimizeConfig)
    counts = counts_of(replace(any_plan, config=config, inputs=inputs), DEMO)
    problem = Dice(dice, config.keep_above, bad)
    strategy = prompt_strategy(config, min(queries, config.depth + config.max_extra_depth))
    levels = asyncio.run(searched(problem, strategy))
    assert problem.tries <= (counts.base.most or 0)
    assert problem.orders <= (counts.orders.most or 0)
    assert levels <= (counts.levels.most or 0)
    if not bad:
        assert problem.tries >= counts.base.least
        assert problem.orders >= counts.orders.least
        assert levels >= counts.levels.least


async def searched(problem: Dice, strategy: Strategy) -> int:
    return (await search(problem, strategy)).levels


class Worst(Dice):
    """Every level but each third is lost: so the most requests are made."""

    level = 0

    async def step(
        self, node: Node[float], action: int | Keep, trial: int
    ) -> Scored[float] | Unscored[float] | Failed:
        self.tries += 1
        lost = trial % 3 and not isinstance(action, Keep)
        return Unscored(1.0, Failed("unread")) if lost else Scored(1.0, 1.0)


@pytest.mark.parametrize(("width", "samples", "depth"), [(1, 1, 16), (1, 3, 19), (2, 3, 22)])
def test_the_most_is_reached_but_for_the_first_levels(width: int, samples: int, depth: int) -> None:
    counts = counts_of(planned(width=width, samples=samples, depth=depth, max_extra_depth=0), DEMO)
    problem = Worst(random.Random(0), 5.0, 0.0)
    asyncio.run(searched(problem, Beam(width, samples, depth, 0, depth)))
    assert 0.93 * (counts.base.most or 0) <= problem.tries <= (counts.base.most or 0)
    assert 0.93 * (counts.orders.most or 0) <= problem.orders <= (counts.orders.most or 0)


def test_without_keeping_each_level_is_one_rewrite_at_least() -> None:
    counts = counts_of(planned(keep_above=5.0, depth=8), DEMO)
    assert (counts.orders.least, counts.base.least, counts.levels.least) == (7, 8, 8)
    assert counts_of(planned(keep_above=4.9, depth=8), DEMO).orders.least == 0


def test_patience_ends_the_shortest_search_early() -> None:
    assert counts_of(planned(patience=2), DEMO).levels.least == 4  # the first level passes the start's none
    assert counts_of(planned(patience=2, path_score="last"), DEMO).levels.least == 3
    assert counts_of(planned(patience=50), DEMO).levels.least == 20


def test_the_expected_lies_between_the_bounds_whatever_is_asked() -> None:
    for width, samples, depth, extra in ((1, 1, 2, 0), (1000, 128, 3, 0), (3, 2, 400, 4000), (2, 3, 20, 10)):
        for plan in (
            planned(width=width, samples=samples, depth=depth, max_extra_depth=extra),
            planned(width=width, samples=samples, depth=depth, search="monte-carlo"),
            of_examples(width=width, samples=samples, depth=min(depth, 50)),
        ):
            for role in forecast(plan).roles:
                for said in (role.calls, role.prompt_tokens, role.completion_tokens):
                    assert said.least <= said.expected <= (said.most or 0), (role.role, said)


# The paper's figures


def test_the_papers_figure_is_w_times_m_times_d() -> None:
    assert paper_counts(planned()) == {"base": 120, "optimizer": 120, "evaluator": 120, "selector": 20}
    assert paper_counts(planned(width=4, samples=5, depth=6, search="greedy"))["base"] == 5 * 6
    assert paper_counts(planned(reward="static"))["selector"] == 0


def test_the_papers_figure_of_one_example_is_eleven() -> None:
    plan = of_examples()
    examples = len(plan.inputs.examples.examples)
    assert sum(paper_counts(plan).values()) == (1 + 5 + 5) * examples


# Calls


def one(said: Forecast, name: str) -> Any:
    return next(role for role in said.roles if role.role == name)


def test_one_choice_a_request_and_every_repair_count_at_most() -> None:
    def most(repairs: int) -> Any:
        return one(forecast(planned(repairs=repairs, depth=5, max_extra_depth=0)), "optimizer").calls.most

    assert [most(repairs) for repairs in (0, 1, 2)] == [
        3 * (1 + 2 + 2 + 2) * (1 + repairs) for repairs in (0, 1, 2)
    ]


def test_static_rewards_ask_no_selector_and_repeated_ones_ask_the_evaluator_again() -> None:
    assert one(forecast(planned(reward="static")), "selector").calls == Range(0, 0, 0)
    single, double = forecast(planned()), forecast(planned(evaluations=2))
    assert one(double, "evaluator").calls.most == 2 * one(single, "evaluator").calls.most
    assert one(double, "evaluator").calls.least == 2 * one(single, "evaluator").calls.least


def test_no_more_levels_than_queries(tmp_path: Path) -> None:
    (tmp_path / "seeds.txt").write_text("one\ntwo\nthree\n", encoding="utf-8")
    said = forecast(planned(seeds=str(tmp_path / "seeds.txt")))
    assert (said.levels.least, said.levels.most) == (3, 3)
    assert one(said, "selector").calls.least == 3


def test_a_chat_that_is_tried_first_counts_at_most() -> None:
    server = "vllm/org/m@http://127.0.0.1:1/v1"
    asked, told = (
        forecast(planned(KEY, model=server, optimizer="demo", prompt_form=form)) for form in ("auto", "chat")
    )
    assert one(asked, "base").calls.most == one(told, "base").calls.most + 1


# Tokens and money


def test_a_longer_limit_of_tokens_raises_the_most_and_nothing_else() -> None:
    short, long = forecast(planned(price=PRICES)), forecast(planned(price=PRICES, max_tokens=4096))
    assert (long.usd.most or 0) > 1.5 * (short.usd.most or 0)
    assert (long.usd.least, long.usd.expected) == (short.usd.least, short.usd.expected)


def test_a_long_prompt_to_start_from_is_read_each_time() -> None:
    short, long = forecast(planned()), forecast(planned(initial_prompt="Be kind. " * 1000))
    assert one(long, "base").prompt_tokens.expected > 2 * one(short, "base").prompt_tokens.expected
    assert one(long, "base").prompt_tokens.most > one(short, "base").prompt_tokens.most


def test_text_of_few_characters_and_many_bytes_counts_by_bytes_at_most(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a" * 500, encoding="utf-8")
    (tmp_path / "b.txt").write_text("文" * 500, encoding="utf-8")
    ascii_, wide = (forecast(planned(seeds=str(tmp_path / name))) for name in ("a.txt", "b.txt"))
    difference = one(wide, "selector").prompt_tokens.most - one(ascii_, "selector").prompt_tokens.most
    assert difference >= 1000


def test_an_unknown_price_is_unknown_and_left_out_of_the_total() -> None:
    server = "openai/m@http://127.0.0.1:1/v1"
    plan = planned(KEY, model="demo", optimizer="gpt-4o", evaluator=server)
    said = forecast(plan)
    assert said.unpriced == ("evaluator", "selector")
    assert one(said, "evaluator").usd is None and one(said, "evaluator").left_usd is None
    assert said.usd == one(said, "optimizer").usd + one(said, "base").usd
    given = {"model": "demo", "optimizer": "gpt-4o", "evaluator": server}
    told = forecast(planned(KEY, **given, price=("evaluator=1/1", "selector=1/1")))
    assert told.unpriced == () and told.usd.expected > said.usd.expected


def test_a_model_that_thinks_without_limit_has_no_most() -> None:
    said = forecast(planned(KEY, model="mistral-7b"))
    assert said.thinking == ("optimizer", "evaluator", "selector")
    assert said.usd.most is None and one(said, "evaluator").completion_tokens.most is None
    assert one(said, "optimizer").calls.most is not None
    bounded = forecast(planned(KEY, model="mistral-7b", max_thinking_tokens=1000))
    evaluator = one(bounded, "evaluator")
    assert evaluator.completion_tokens.most == evaluator.calls.most * (2048 + 1000)
    assert bounded.usd.most is not None and bounded.thinking_usd == said.thinking_usd > 0


def test_what_thinking_adds_is_a_thousand_tokens_a_reply() -> None:
    said = forecast(planned(KEY, model="mistral-7b", repairs=0))
    replies = one(said, "optimizer").calls.expected * 3
    replies += one(said, "evaluator").calls.expected + one(said, "selector").calls.expected
    assert said.thinking_usd == pytest.approx(replies * 1000 * 10 / 1e6)


def test_prompts_of_a_long_context_have_their_own_price() -> None:
    """gpt-6.1-sol costs more above its tier, and by --price it costs the same throughout."""
    given = {"optimizer": "gpt-6.1-sol", "evaluator": "demo", "initial_prompt": "Be kind. " * 40_000}
    listed = forecast(planned(KEY, **given))
    same = forecast(planned(KEY, **given, price=("optimizer=2/10",)))
    assert one(listed, "optimizer").usd.expected > 1.3 * one(same, "optimizer").usd.expected


def test_an_embedder_at_an_endpoint_has_its_row() -> None:
    given = {"model": "demo", "embedder": "openai/text-embedding-3-small"}
    role = one(forecast(planned(KEY, **given)), "embedder")
    assert (role.calls.least, role.calls.most) == (0, 2)
    assert 0 < role.usd.expected < role.usd.most < 0.01
    assert one(forecast(planned(KEY, **given, shots=0)), "embedder").calls.most == 0
    elsewhere = forecast(planned(KEY, **given), environment={"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"})
    assert one(elsewhere, "embedder").usd is None


# What is recorded


def test_what_is_recorded_is_not_to_come() -> None:
    plan = planned(price=PRICES)
    fresh = forecast(plan)
    half = round(one(fresh, "base").calls.expected / 2)
    said = forecast(plan, Recorded({"base": half}, reused=5))
    assert one(said, "base").left.expected == pytest.approx(one(fresh, "base").calls.expected - half)
    assert one(said, "selector").done == 5
    assert one(said, "selector").left.least == one(fresh, "selector").calls.least - 5
    assert one(said, "base").left_usd.expected == pytest.approx(one(fresh, "base").usd.expected / 2, rel=0.02)
    assert said.usd == fresh.usd
    assert (said.left_usd.most or 0) < (fresh.left_usd.most or 0)


def test_of_a_finished_run_nothing_is_to_come() -> None:
    said = forecast(planned(price=PRICES), Recorded({"base": 3}, finished=True))
    assert said.left == Range() and said.left_usd == Range()


def test_a_record_gives_calls_and_tokens_by_role(tmp_path: Path, default_run: Compared) -> None:
    assert read_recorded(tmp_path / "none.jsonl") == Recorded()
    assert default_run.real.usage["base"].completion_tokens > 0
    (tmp_path / "bad.jsonl").write_text("{}\n{}\n", encoding="utf-8")
    with pytest.raises(RecordDamaged):
        read_recorded(tmp_path / "bad.jsonl")


# Limits


def test_what_a_limit_of_calls_means() -> None:
    said = forecast(planned())
    most, expected, least = said.calls.most, said.calls.expected, said.calls.least
    assert said.calls_suffice(int(most or 0)) == "enough"
    assert said.calls_suffice(int(expected) + 1) == "may end early"
    assert said.calls_suffice(int(expected) - 1) == "will likely end early"
    assert said.calls_suffice(int(least) - 1) == "will end early"
    assert said.calls_suffice(4) == "too little to begin"


def test_what_was_sent_before_counts_against_the_limit() -> None:
    plan = planned()
    most = int(forecast(plan).calls.most or 0)
    assert forecast(plan, Recorded(spent_calls=10)).calls_suffice(most) == "may end early"
    went_on = Recorded({"base": 10}, spent_calls=10)
    assert forecast(plan, went_on).calls_suffice(most) == "enough"
    assert forecast(plan, went_on).calls_suffice(12) == "will end early"


def test_what_a_limit_of_money_means() -> None:
    said = forecast(planned(price=PRICES))
    usd = said.usd
    assert said.usd_suffices((usd.most or 0) + 0.001) == "enough"
    assert said.usd_suffices(usd.expected * 1.01) == "may end early"
    assert said.usd_suffices(usd.expected * 0.99) == "will likely end early"
    held = max(role.held_usd or 0.0 for role in said.roles)
    assert held > 3 * 2048 * 10 / 1e6  # one request for three proposals is set aside as long as they can be
    assert said.usd_suffices(held * 0.99) == "too little to begin"


def test_too_little_to_begin_is_what_a_run_finds_too(tmp_path: Path) -> None:
    settings_: dict[str, Any] = {"depth": 3, "price": PRICES, "max_usd": 0.03}
    assert forecast(planned(**settings_)).usd_suffices(0.03) == "too little to begin"
    with pytest.raises(BudgetSpent):
        compare("poor", settings_, tmp_path)
    assert set(read_recorded(tmp_path / "run" / "calls.jsonl").calls) <= {"base", "evaluator", "selector"}


# Habits and ranges


def test_habits_are_by_who_plays() -> None:
    assert habits_of(planned()) is DEMO
    assert habits_of(planned(KEY, model="mistral-7b")) is PLAIN_BASE
    assert habits_of(planned(KEY, model="gpt-4o")) is CHAT_BASE
    assert habits_of(planned(KEY, model="gpt-4o", prompt_form="text")) is PLAIN_BASE
    assert habits_of(planned(KEY, model="vllm/org/unknown")) is PLAIN_BASE
    assert habits_of(of_examples(model="gpt-4o")).about.startswith("GPT-4's evaluations")


@pytest.mark.parametrize("habits", [DEMO, CHAT_BASE, PLAIN_BASE])
def test_fewer_nodes_are_above_a_higher_reward(habits: Any) -> None:
    shares = [habits.share_above(step / 20) for step in range(101)]
    assert shares == sorted(shares, reverse=True)
    assert (shares[0], shares[-1]) == (1.0, 0.0)


def numbers() -> Iterator[Any]:
    yield from (st.floats(0, 1e6), st.floats(0, 1e6), st.none() | st.floats(0, 1e6))


ranges = st.builds(Range, *numbers())


@given(ranges, ranges)
def test_sums_and_products_are_unbounded_where_a_part_is(a: Range, b: Range) -> None:
    assert ((a + b).most is None) == (a.most is None or b.most is None)
    product = a.times(b)
    assert (product.most is None) == ((a.most is None or b.most is None) and 0.0 not in (a.most, b.most))
    assert total([a, b]) == Range() + a + b
    assert a.times(exactly(0)).most == 0
    ordered = a.ordered()
    assert ordered.least <= ordered.expected or ordered.expected == a.most
