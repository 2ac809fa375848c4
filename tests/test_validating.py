"""A search hands over a prompt only if it is better on queries it never saw, and no less safe."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from drpo.alignment import read_alignment
from drpo.api import optimize
from drpo.compose import Composer, Sampling
from drpo.config import OptimizeConfig
from drpo.errors import InputError
from drpo.plan import Plan, optimize_plan
from drpo.problems import PromptState, Responder
from drpo.reward import OwnReward
from drpo.search.engine import Outcome
from drpo.search.tree import Node
from drpo.settings import resolve
from drpo.templates import Templates
from drpo.testing import ScriptedLLM
from drpo.types import AspectScore, Evaluation, Query
from drpo.validating import Part, contenders_of, validate
from drpo.validation.result import Validation, read_validation
from tests.support.command import Shell, content_of

START = "start"
RATED = Evaluation((AspectScore("Depth", 3.0, ""),))


def plan(**given: Any) -> Plan:
    return optimize_plan(resolve(OptimizeConfig, {"model": "demo", "initial_prompt": START, **given}, {}), {})


def tree(*rewards_of: tuple[str, float | None]) -> Outcome[PromptState]:
    """A search whose root has a child for each prompt, with its reward; the first child is its result."""

    def state(prompt: str, reward: float | None) -> PromptState:
        return PromptState(prompt, Query("q"), (), "a", "stop", None if reward is None else RATED)

    root = Node(0, "r", 0, state(START, 3.0), 3.0, None)
    nodes = [root]
    for number, (prompt, reward) in enumerate(rewards_of):
        nodes.append(Node(number + 1, f"r/0.{number}", 1, state(prompt, reward), reward, root))
    return Outcome(nodes[1] if rewards_of else root, 4.0, tuple(nodes), 2, "depth")


def part(name: str, count: int, rewards: dict[str, float]) -> Part:
    """Queries on which each prompt gets its own reward, a little more or less from query to query."""

    async def judged(query: str, response: str) -> Any:
        number = int(query.split()[1])
        prompt = response.partition("|")[0]
        if prompt not in rewards:
            return None
        wobble = ((number * 7 + len(prompt) * 3) % 5 - 2) / 20
        return {"Depth": (min(5.0, max(1.0, rewards[prompt] + wobble)), "")}

    base = ScriptedLLM(lambda request: f"{request.messages[0].content}|{request.messages[-1].content}")
    responder = Responder(base, "m", Composer(Templates(), "chat"), Sampling(), (), ((),) * count)
    queries = tuple(Query(f"{name} {number}") for number in range(count))
    return Part(queries, responder, OwnReward(judged))


async def validated(
    rewards: dict[str, float],
    found: Outcome[PromptState],
    safety: dict[str, Part] | None = None,
    **given: Any,
) -> Validation:
    kept = part("kept", 20, {START: 3.0, **rewards})
    return await validate(plan(**given), found, kept, safety or {}, lambda said: None)


async def test_a_prompt_that_is_better_on_kept_queries_is_handed_over() -> None:
    found = await validated({"a": 3.1, "b": 4.0}, tree(("a", 5.0), ("b", 4.5)))
    assert (found.better, found.prompt, found.chosen) == (True, "b", 2)
    assert found.gain == pytest.approx(1.0, abs=0.1) and found.low is not None and found.low > 0
    assert found.sentence.startswith("better than the initial prompt, by +")


async def test_if_none_is_better_the_result_is_the_initial_prompt() -> None:
    found = await validated({"a": 3.0, "b": 2.5}, tree(("a", 5.0), ("b", 4.5)))
    assert (found.better, found.prompt, found.chosen) == (False, START, 0)
    assert "no prompt is surely better" in found.sentence


async def test_among_prompts_alike_the_shorter_one_is_handed_over() -> None:
    found = await validated(
        {"a long prompt": 4.0, "short": 4.0}, tree(("a long prompt", 5.0), ("short", 4.9))
    )
    assert found.prompt == "short"


async def test_a_prompt_that_is_less_safe_is_refused_however_good_it_is() -> None:
    safety = {"red-team": part("red", 40, {START: 4.0, "unsafe": 3.5, "sound": 4.0})}
    found = await validated({"unsafe": 4.6, "sound": 3.8}, tree(("unsafe", 5.0), ("sound", 4.0)), safety)
    assert (found.better, found.prompt) == (True, "sound")
    refused, passed = found.floors
    assert (refused.node, refused.refused, passed.node, passed.refused) == (1, True, 2, False)
    assert refused.change == pytest.approx(-0.5, abs=0.1) and refused.high is not None and refused.high < 0


async def test_a_prompt_that_refuses_everything_is_refused() -> None:
    safety = {
        "red-team": part("red", 40, {START: 3.5, "no": 5.0}),
        "look-alike": part("alike", 40, {START: 4.0, "no": 1.0}),
    }
    found = await validated({"no": 3.9}, tree(("no", 5.0)), safety)
    assert (found.better, found.prompt) == (False, START)
    assert [check.name for check in found.floors if check.refused] == ["look-alike"]
    assert "losing on the look-alike queries" in found.sentence


async def test_what_falls_by_exactly_what_is_allowed_passes() -> None:
    def flat(value: float) -> dict[str, float]:
        return {START: 4.0, "xxxxx": value}  # as long as the start, so the wobble is the same

    for change, refused in ((-0.25, False), (-0.3, True)):
        safety = {"red-team": part("red", 40, flat(4.0 + change))}
        found = await validated({"xxxxx": 4.0}, tree(("xxxxx", 5.0)), safety)
        assert found.floors[0].refused is refused


async def test_rewards_that_could_not_be_had_are_counted_and_never_scores() -> None:
    found = await validated({"b": 4.0}, tree(("lost", 5.0), ("b", 4.5)))  # "lost" has no reward anywhere
    assert found.prompt == "b" and found.missing > 0
    assert next(item for item in found.prompts if item.system_prompt == "lost").gain is None


async def test_a_search_that_kept_its_start_has_nothing_to_compare() -> None:
    found = await validated({}, tree())
    assert (found.better, found.prompt, found.asked) == (False, START, 0)
    assert found.sentence == "no prompt could be compared with the initial one"


def test_candidates_are_different_prompts_within_the_length_that_is_asked_for() -> None:
    found = tree(("x" * 41, 5.0), ("a", 4.0), ("a", 3.9), (START, 4.9), ("unread", None), ("b", 3.5))
    config = plan(max_prompt_tokens=10).config
    assert isinstance(config, OptimizeConfig)
    assert [node.id for node in contenders_of(found, config)] == [2, 6]


def test_prompts_tried_on_the_same_queries_are_compared_whichever_they_did_worst_on() -> None:
    def state(prompt: str, worst: str, other: str) -> PromptState:
        one, two = (PromptState(prompt, Query(text), (), "a", "stop", RATED) for text in (worst, other))
        return dataclasses.replace(one, others=(two,))

    root = Node(0, "r", 0, state(START, "q0", "q1"), 3.0, None)
    long = "a prompt that is too long for a result"
    tried = (
        ("found", "q2", "q3", 2.0),
        ("poor", "q2", "q3", 2.5),
        ("good", "q3", "q2", 3.0),
        (long, "q3", "q2", 5.0),
    )
    nodes = [
        root,
        *(Node(n, str(n), 1, state(*of), reward, root) for n, (*of, reward) in enumerate(tried, 1)),
    ]
    config = plan(candidates=2, max_prompt_tokens=5).config
    assert isinstance(config, OptimizeConfig)
    found = contenders_of(Outcome(nodes[1], 2.0, tuple(nodes), 2, "depth"), config)
    assert [node.state.system_prompt for node in found] == ["found", "good"]


def test_a_validation_comes_back_from_its_plain_values(tmp_path: Path) -> None:
    result = optimize(
        model="demo", depth=3, max_extra_depth=0, validate=6, report=False, run_dir=tmp_path / "run"
    )
    kept = result.alignment.validation
    assert kept is not None and read_validation(json.loads(json.dumps(kept.as_dict()))) == kept
    assert read_alignment(result.run_dir) == result.alignment


# Which queries


def test_kept_queries_are_no_queries_of_the_search() -> None:
    inputs = plan().inputs
    assert len(inputs.kept) == 40 and len(inputs.queries) == 140 and len(inputs.safety) == 80
    assert not {query.text for query in inputs.kept} & {query.text for query in inputs.queries}
    assert plan(validate=0).inputs.queries[:30] == inputs.queries[:30]


@pytest.mark.parametrize(("count", "kept"), [(30, 0), (39, 0), (40, 10), (60, 30), (90, 40)])
def test_by_default_so_many_are_kept_as_the_search_leaves_over(tmp_path: Path, count: int, kept: int) -> None:
    seeds = tmp_path / "s.txt"
    seeds.write_text("".join(f"query number {n}?\n" for n in range(count)), encoding="utf-8")
    assert len(plan(seeds=str(seeds)).inputs.kept) == kept


def test_too_few_seeds_for_what_is_asked_are_refused(tmp_path: Path) -> None:
    seeds = tmp_path / "s.txt"
    seeds.write_text("".join(f"query number {n}?\n" for n in range(30)), encoding="utf-8")
    with pytest.raises(InputError, match="--validate 20: of 30 seed queries the search needs 20"):
        plan(seeds=str(seeds), validate=20)
    with pytest.raises(InputError, match="expected 0 or at least 6"):
        plan(validate=5)


# As a user meets it

SMALL = ("optimize", "--model", "demo", "--depth", 4, "--max-extra-depth", 0, "--run-dir", "run", "--quiet")


@pytest.fixture
def validating(shell: Shell) -> Shell:
    shell.env.delenv("DRPO_VALIDATE")
    return shell


def test_nothing_better_is_exit_4_with_the_initial_prompt(validating: Shell) -> None:
    command = (*SMALL, "--validate", 6, "--candidates", 1, "--no-safety")
    ran = validating.run(*command)
    assert ran.code == 4 and ran.out.startswith("You are a helpful assistant.\n")
    assert "no prompt is surely better than the initial one" in ran.err and "--validate 0" in ran.err
    again = validating.run(*command)
    assert (again.code, again.out, again.err) == (4, ran.out, ran.err)
    assert "validated   no prompt is surely better" in validating.done("show", "run").out
    assert validating.done("replay", "run").out.startswith("identical")


def test_kept_queries_that_were_changed_are_named_by_their_file(validating: Shell) -> None:
    validating.run(*SMALL, "--validate", 6, "--candidates", 1)
    for name in ("kept", "safety"):
        file = validating.folder / "run" / "inputs" / f"{name}.jsonl"
        whole = file.read_text(encoding="utf-8")
        file.write_text("".join(whole.splitlines(keepends=True)[:-1]), encoding="utf-8")
        assert f"{name}.jsonl: is not what the run was begun with" in validating.refused(4, "replay", "run")
        file.write_text(whole, encoding="utf-8")
    assert validating.done("replay", "run").out.startswith("identical")


def test_what_is_better_is_handed_over_with_its_gain(validating: Shell) -> None:
    ran = validating.run(*SMALL, "--depth", 10, "--candidates", 3)
    assert ran.code == 0, ran.err
    assert "validated   better than the initial prompt, by +" in ran.out
    assert "red-team queries" in ran.out and "look-alike queries" in ran.out
    told = validating.done("show", "run", "--json").json
    assert told["validation"]["better"] is True
    chosen = next(p for p in told["validation"]["prompts"] if p["node"] == told["validation"]["chosen"])
    assert told["system_prompt"] == chosen["system_prompt"]


def test_a_budget_that_ends_in_the_validation_resumes_to_the_same_bytes(validating: Shell) -> None:
    whole = (*SMALL, "--validate", 8, "--candidates", 2)
    validating.run(*whole, "--run-dir", "whole")
    validating.env.delenv("DRPO_REPORT", raising=False)
    total = sum(read_alignment(validating.folder / "whole").found.calls.values())
    assert total > 40
    ended = validating.run(*whole, "--max-calls", total - 20)
    assert ended.code == 9
    assert read_alignment(validating.folder / "run").found.ended == "budget"
    validating.run(*whole)
    first, second = content_of(validating.folder / "whole"), content_of(validating.folder / "run")
    for name in ("alignment.json", "events.jsonl"):
        assert first[name] == second[name]


def test_several_queries_a_level_count_by_their_mean(validating: Shell) -> None:
    validating.done(*SMALL, "--queries-per-level", 3, "--validate", 0)
    nodes = [
        event
        for event in map(json.loads, (validating.folder / "run" / "events.jsonl").read_text().splitlines())
        if event["event"] == "node"
    ]
    for node in nodes:
        tried = [node["state"], *node["state"]["others"]]
        assert len({one["query"] for one in tried}) == 3
        means = [
            sum(float(entry["score"]) for entry in scores) / len(scores)
            for one in tried
            if one["evaluation"]
            and (scores := [e for e in one["evaluation"].values() if e["score"] != "N/A"])
        ]
        assert node["reward"] == pytest.approx(sum(means) / len(means)) and means[0] == min(means)
    levels = {
        node["depth"]: {
            tuple(sorted([node["state"]["query"], *[o["query"] for o in node["state"]["others"]]]))
        }
        for node in nodes
    }
    assert len(levels) == 4 and len(set().union(*levels.values())) == 4
