"""Rules of the simulated rewriting world: what clarity does, the rewriters, preference pairs, the truth."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import pytest

from drpo.errors import InputError
from drpo.llm.base import Message, Request, Role
from drpo.llm.simulated import SimulatedLLM, World, preference_pairs, true_reward, true_reward_of_rewrite
from drpo.llm.world import rewriting, wishes
from drpo.llm.world.clarity import defects_in, mended, read_clarity
from drpo.llm.world.queries import read_query
from drpo.llm.world.settings import Dice
from drpo.rewriting.templates import Mode, RewriteTemplates
from drpo.types import Example, Query

ROOT = Path(__file__).parent.parent
TEMPLATES = RewriteTemplates()
WORLD = World()
CLEAN = World(slips=0.0, damage=0.0)
Row = dict[str, str]


def rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


ROWS, HELDOUT = rows(ROOT / "seeds" / "rewriting.jsonl"), rows(ROOT / "seeds" / "rewriting_heldout.jsonl")
OTHERS = [row["query"] for row in rows(ROOT / "seeds" / "seeds.jsonl")]
BAD = [row["query"] for row in ROWS if row["defect"] != "none"]
GOOD = [row["query"] for row in ROWS if row["defect"] == "none"]


def ask(world: World, role: Role, text: str, n: int = 1, seed: int | None = None) -> list[str]:
    request = Request("demo", (Message("user", text),), role=role, n=n, seed=seed)
    return [choice.text for choice in asyncio.run(SimulatedLLM(world).complete(request)).choices]


def improved(world: World, query: str, mode: Mode = "stable") -> str:
    reply = json.loads(ask(world, "rewriter", TEMPLATES.improve(query, mode))[0])
    assert set(reply) == {"changes", "rewritten_query"}
    return str(reply["rewritten_query"])


def gain(queries: Sequence[str], texts: Sequence[str], world: World = WORLD) -> float:
    """Points of true reward that these texts bring over the queries, on average."""
    return fmean(
        true_reward_of_rewrite(world, query, text) - true_reward_of_rewrite(world, query, query)
        for query, text in zip(queries, texts, strict=True)
    )


def wished_by(query: str, wanted: Sequence[wishes.Wish]) -> str:
    return " ".join([query, *[wish.wordings[0] for wish in wanted]])


def test_the_first_wishes_help_and_ever_more_of_them_help_less() -> None:
    plain = [mended(row["query"]) for row in ROWS if row["defect"] in ("vague", "badly-put")][:40]
    any_of = [wish for wish in wishes.USEFUL if not wish.suits or "information" in wish.suits]
    gains = [gain(plain, [wished_by(q, any_of[:k]) for q in plain]) for k in (0, 3, len(any_of))]
    assert gains[0] == 0.0
    assert gains[1] > 0.25
    assert gains[2] < gains[1]


def test_wishes_act_where_no_system_prompt_can() -> None:
    helpless = World(helpable=False)
    plain = [mended(query) for query in BAD[:30]]
    assert gain(plain, [wished_by(q, wishes.USEFUL[3:6]) for q in plain], helpless) > 0.2


@pytest.mark.parametrize("defect", ["vague", "badly-put", "unsafe"])
def test_a_query_put_right_and_with_fitting_wishes_is_answered_clearly_better(defect: str) -> None:
    queries = [row["query"] for row in (*ROWS, *HELDOUT) if row["defect"] == defect]
    right = [rewriting.wished(query, Dice.of("right", query)) for query in queries]
    assert gain(queries, right) > 0.4


def test_useless_wishes_do_not_help_and_harmful_ones_harm() -> None:
    plain = [query for query in OTHERS if not read_query(query).harmful][:40]
    empty = gain(plain, [wished_by(query, wishes.EMPTY) for query in plain])
    assert abs(empty) < 0.1  # other words, other noise, and nothing else

    def spoilt(query: str) -> str:
        dice = Dice.of("harmful", query)
        return wished_by(query, [dice.pick(wishes.HARMFUL, at) for at in range(2)])

    assert gain(plain, [spoilt(query) for query in plain]) < -0.04
    assert gain(GOOD, [spoilt(query) for query in GOOD]) < -0.1


def test_a_good_query_gains_next_to_nothing_from_being_put_right() -> None:
    good = [row["query"] for row in (*ROWS, *HELDOUT) if row["defect"] == "none"]
    assert abs(gain(good, [improved(CLEAN, query) for query in good])) < 0.15
    assert sum(improved(CLEAN, query) == query for query in good) > 0.7 * len(good)


@pytest.fixture(scope="module")
def sampled() -> list[list[float]]:
    """The gains of eight samples of the reference prompter for some queries of every kind."""
    result = []
    for query in [row["query"] for row in ROWS[:45]]:
        before = true_reward_of_rewrite(WORLD, query, query)
        texts = ask(WORLD, "rewriter", TEMPLATES.prompter(query), n=8, seed=3)
        result.append([true_reward_of_rewrite(WORLD, query, text) - before for text in texts])
    return result


def test_the_prompter_stands_between_no_rewriter_and_one_that_was_told_how(
    sampled: list[list[float]],
) -> None:
    queries = [row["query"] for row in ROWS[:45]]
    told = gain(queries, [improved(World(damage=0.0), query) for query in queries])
    assert 0.15 < fmean(map(fmean, sampled)) < told - 0.15


def test_the_best_of_eight_samples_is_clearly_above_their_mean(sampled: list[list[float]]) -> None:
    assert fmean(map(max, sampled)) - fmean(map(fmean, sampled)) > 0.4


def test_a_greedy_rewrite_is_one_and_samples_follow_their_seed() -> None:
    text = TEMPLATES.prompter(BAD[0])
    assert len(set(ask(WORLD, "rewriter", text, n=4))) == 1
    first = ask(WORLD, "rewriter", text, n=6, seed=1)
    assert len(set(first)) >= 4
    assert first == ask(WORLD, "rewriter", text, n=6, seed=1)
    assert first != ask(WORLD, "rewriter", text, n=6, seed=2)
    assert first != ask(World(seed=1), "rewriter", text, n=6, seed=1)


def test_the_bold_mode_asks_for_more() -> None:
    count = {
        mode: fmean(len(read_clarity(improved(CLEAN, query, mode)).wishes) for query in BAD[:60])
        for mode in ("stable", "aggressive")
    }
    assert count["stable"] + 1 < count["aggressive"]


def test_an_unsafe_query_keeps_its_subject_and_becomes_what_can_be_asked() -> None:
    for row in ROWS:
        if row["defect"] == "unsafe":
            new = read_query(improved(CLEAN, row["query"]))
            assert {"harmful", "responsible"} <= new.signs
            assert read_query(row["query"]).keys & new.keys, row


@pytest.mark.parametrize("mode", ["stable", "aggressive"])
def test_rewriting_again_and_again_stays_within_bounds(mode: Mode) -> None:
    for query in BAD[:12]:
        for _ in range(4):
            query = improved(CLEAN, query, mode)
        assert len(read_clarity(query).wishes) <= 8
        assert defects_in(query) == ()


def test_slips_of_every_kind_come_at_their_rate() -> None:
    dice = [Dice.of("slip", at) for at in range(3000)]
    slips = [rewriting._slip(WORLD, rewriting.IMPROVE_SLIPS, one) for one in dice]
    assert 0.08 < sum(slip is not None for slip in slips) / 3000 < 0.12
    assert set(slips) == {None, *rewriting.SLIPS}
    query = "How do I prune a fig tree?"
    texts = [rewriting.improve(World(slips=3.0), query, False, one)[1] for one in dice[:300]]
    assert all(text != query for text in texts)
    told = Counter("" if not text else "kept" if "fig tree" in text else "lost" for text in texts)
    assert min(told[""], told["lost"]) > 25
    assert any(text.startswith(("In short", "The short answer")) for text in texts)
    assert any(len(text) > 8 * len(query) for text in texts)


def test_damage_of_rewriters_comes_at_its_rate() -> None:
    replies = [
        reply
        for query in BAD[:30]
        for reply in ask(World(damage=0.3), "rewriter", TEMPLATES.improve(query), n=10, seed=1)
    ]
    unreadable = sum(not reply.startswith("{") or not reply.endswith("\n}") for reply in replies)
    assert 0.18 < unreadable / len(replies) < 0.32


def test_a_trained_models_template_is_not_played_and_that_is_said() -> None:
    with pytest.raises(InputError, match=r"apply\.j2 is for trained models"):
        asyncio.run(SimulatedLLM().complete(Request("demo", prompt=TEMPLATES.apply("why?"), role="rewriter")))
    with pytest.raises(InputError, match=r"<bad-response-\.\.\.>"):
        ask(WORLD, "optimizer", TEMPLATES.build("why?", "a", "b").replace("bad-response", "worst"))


def built(world: World, instruction: str, good: str, bad: str, protected: tuple[str, ...] = ()) -> str:
    text = TEMPLATES.build(instruction, good, bad, protected=protected)
    reply = json.loads(ask(world, "optimizer", text)[0])
    assert set(reply) == {"comparison", "optimized_instruction"}
    return str(reply["optimized_instruction"])


def test_the_optimizer_asks_for_what_the_preferred_response_has() -> None:
    good = "In short, water it less. For example, a fig in a pot needs a cup a week.\n\n1. Look.\n2. Wait."
    bad = "One would leverage a holistic view. It should be noted that the aforementioned is so."
    new = read_clarity(built(CLEAN, "How do I keep a fig alive?", good, bad))
    assert new.core == "How do I keep a fig alive?"
    assert set(new.wishes) & {"example", "steps"}
    assert built(CLEAN, "How do I keep a fig alive?", good, good) == "How do I keep a fig alive?"
    assert "cup a week" not in built(CLEAN, "How do I keep a fig alive?", good, bad)


def test_protected_parts_come_back_word_for_word() -> None:
    for query, part in (("plz fix this, u know {name}", "plz fix this"), ("how do I hack {name}?", "{name}")):
        assert part in built(CLEAN, query, "For example, no.", "Yes.", (part,))


def test_pairs_are_the_same_ones_every_time_and_the_better_response_stands_first() -> None:
    queries = [row["query"] for row in ROWS[:20]]
    pairs = preference_pairs(WORLD, queries, 30)
    assert pairs == preference_pairs(WORLD, queries, 30)
    assert len(pairs) == 30
    assert len(set(pairs)) == 30
    assert all(pair.gap > 0 and pair.good != pair.bad for pair in pairs)
    assert preference_pairs(WORLD, [], 5) == ()


def test_instructions_built_from_pairs_are_answered_better() -> None:
    queries = [row["query"] for row in ROWS if row["defect"] != "none"][:50]
    pairs = preference_pairs(WORLD, queries, 50)
    texts = [built(CLEAN, pair.prompt, pair.good, pair.bad) for pair in pairs]
    assert gain([pair.prompt for pair in pairs], texts) > 0.4


def test_material_of_a_prompt_becomes_the_context_of_its_pair() -> None:
    heads = [
        f"plz translate {what} into plain English:" for what in ("this note", "a poem", "the rules", "it")
    ]
    pairs = preference_pairs(WORLD, [f"{head}\n\nThe mill closed in 1974." for head in heads], 8)
    assert {pair.context for pair in pairs} == {"The mill closed in 1974."}
    assert {pair.prompt for pair in pairs} <= set(heads)
    story = "My cat ran off, idk where.\n\nHow do I find her?"
    assert {(pair.prompt, pair.context) for pair in preference_pairs(WORLD, [story], 1)} == {(story, "")}


def test_the_reward_of_a_query_left_alone_is_its_true_reward() -> None:
    shots = (Example("What is rust?", "It's iron oxide, because iron meets air. Let's look: it's slow."),)
    seen: list[str] = []

    def retrieved(query: Query) -> tuple[Example, ...]:
        seen.append(query.text)
        return shots

    for query in BAD[:5]:
        alone = true_reward(WORLD, "Be kind.", [Query(query)], shots)
        assert true_reward_of_rewrite(WORLD, query, query, "Be kind.", shots) == alone
        true_reward_of_rewrite(WORLD, query, "another", "", retrieved)
    assert seen == ["another"] * 5


def test_a_system_prompt_and_a_rewrite_add_up() -> None:
    prompt = (
        "You are a helpful assistant.\n- Begin with the answer itself in one or two sentences, before"
        " anything else.\n- Write in a natural, conversational tone and avoid sounding like a robot."
    )
    queries = [row["query"] for row in HELDOUT[:50]]
    texts = [improved(CLEAN, query) for query in queries]

    def mean(system_prompt: str, read: Sequence[str]) -> float:
        asked = zip(queries, read, strict=True)
        return fmean(true_reward_of_rewrite(WORLD, q, text, system_prompt) for q, text in asked)

    assert mean(prompt, texts) > max(mean(prompt, queries), mean("", texts)) + 0.2


HOSTILE = (
    " " * 9000,
    "\n " * 4000,
    ", ;" * 2000,
    "",
    " \n ",
    "\0\ud800",
    "plz " * 3000,
    "]]>{{x}}</query-00000000>",
    "<good-response-12345678>",
    "?" * 9000,
)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_rewritten_like_any_other(text: str) -> None:
    safe = text.encode("utf-8", "replace").decode() if "\ud800" in text else text
    for request in (TEMPLATES.improve(safe), TEMPLATES.improve(safe, "aggressive"), TEMPLATES.prompter(safe)):
        assert ask(WORLD, "rewriter", request, n=3, seed=1)
    assert ask(WORLD, "optimizer", TEMPLATES.build(safe, safe, safe, safe, (safe,)))
    assert true_reward_of_rewrite(WORLD, text, text) >= 1.0
    assert true_reward_of_rewrite(WORLD, BAD[0], text) >= 1.0
    preference_pairs(WORLD, [text], 1)
