"""Pairs judged in both orders: what counts as a win, and what is left of it when length is taken out."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Sequence
from fractions import Fraction

import pytest

from drpo.judging.preference import (
    LENGTH_SD,
    PRIOR_TIES,
    WORTH,
    LengthControlled,
    Outcome,
    PairOutcome,
    Tally,
    length_controlled_interval,
    length_controlled_win_rate,
    pair_outcome,
    tally,
)
from drpo.judging.verdicts import Preferred, Unreadable, Verdict
from drpo.types import Failed

WORDS: tuple[Preferred, ...] = ("A", "B", "tie")
SWAPPED: dict[Outcome, Outcome] = {"win": "loss", "loss": "win", "tie": "tie"}
AT_FIRST = PairOutcome("tie", flipped=True, toward="first")
AT_SECOND = PairOutcome("tie", flipped=True, toward="second")


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        ("A", "B", PairOutcome("win")),
        ("B", "A", PairOutcome("loss")),
        ("tie", "tie", PairOutcome("tie")),
        ("A", "A", AT_FIRST),
        ("A", "tie", AT_FIRST),
        ("tie", "A", AT_FIRST),
        ("B", "B", AT_SECOND),
        ("B", "tie", AT_SECOND),
        ("tie", "B", AT_SECOND),
    ],
)
def test_only_a_verdict_that_stands_in_both_orders_wins(
    first: Preferred, second: Preferred, outcome: PairOutcome
) -> None:
    assert pair_outcome(Verdict(first), Verdict(second)) == outcome


def test_the_other_side_sees_the_opposite_outcome() -> None:
    for first, second in itertools.product(WORDS, WORDS):
        one = pair_outcome(Verdict(first), Verdict(second))
        two = pair_outcome(Verdict(second), Verdict(first))
        assert isinstance(one, PairOutcome)
        assert two == PairOutcome(SWAPPED[one.outcome], one.flipped, one.toward)


def test_a_pair_without_two_verdicts_is_unreadable_and_says_in_which_order() -> None:
    bad, failed = Unreadable("no verdict"), Failed("too long", "raw")
    assert pair_outcome(bad, Verdict("A")) == Unreadable("in the first order: no verdict")
    assert pair_outcome(Verdict("A"), failed) == Unreadable("in the second order: too long")


def test_flips_are_ties_and_unreadable_pairs_are_apart() -> None:
    pairs = [PairOutcome("win"), PairOutcome("win"), PairOutcome("loss"), PairOutcome("tie"), AT_FIRST]
    counts = tally([*pairs, AT_SECOND, AT_SECOND, Unreadable("x")])
    assert counts == Tally(wins=2, ties=4, losses=1, flips=3, flips_first=1, flips_second=2, unreadable=1)
    assert counts.judged == 7 and counts.win_rate == Fraction(4, 7)
    assert tally([Unreadable("x")]).win_rate is None


def drawn(
    pairs: int, quality: float, effect: float, seed: int = 0
) -> tuple[list[Outcome], list[int], list[int]]:
    """Outcomes of a judge whose log-odds are quality + effect * tanh(d / sd), ties at random."""
    rng = random.Random(seed)
    a = [rng.randint(200, 2400) for _ in range(pairs)]
    b = [rng.randint(200, 1600) for _ in range(pairs)]
    spread = statistics.stdev(x - y for x, y in zip(a, b, strict=True))
    outcomes: list[Outcome] = []
    for x, y in zip(a, b, strict=True):
        chance = 1 / (1 + math.exp(-quality - effect * math.tanh((x - y) / spread)))
        outcomes.append("win" if rng.random() < chance else "loss")
    return outcomes, a, b


@pytest.mark.parametrize(
    ("quality", "effect"), [(0.0, 2.0), (0.8, 1.0), (-0.7, 1.5), (0.5, -1.0), (0.3, 0.0)]
)
def test_the_quality_of_a_length_loving_judge_is_recovered(quality: float, effect: float) -> None:
    found = length_controlled_win_rate(*drawn(6000, quality, effect))
    true = 1 / (1 + math.exp(-quality))
    # Four standard errors of a share of 6,000, and twice that for the second parameter's sake.
    assert abs(found.win_rate - true) < 8 * math.sqrt(true * (1 - true) / 6000)
    assert abs(found.length_effect - effect) < 0.25
    if abs(effect) >= 1:  # side a is longer on average
        assert (found.raw - true) * effect > 0 and abs(found.win_rate - true) < abs(found.raw - true)
    assert not found.extrapolated and found.pairs == 6000


@pytest.mark.parametrize("seed", range(6))
def test_the_fit_is_at_the_minimum_of_the_penalised_loss(seed: int) -> None:
    rng = random.Random(seed)
    pairs = rng.choice([1, 2, 5, 40])
    outcomes = [rng.choice(list(WORTH)) for _ in range(pairs)]
    a, b = ([rng.randint(0, 500) for _ in range(pairs)] for _ in range(2))
    found = length_controlled_win_rate(outcomes, a, b)
    quality = math.log(found.win_rate / (1 - found.win_rate))
    differences = [x - y for x, y in zip(a, b, strict=True)]
    spread = statistics.stdev(differences) if pairs > 1 else 0
    squashed = [math.tanh(d / spread) if spread else 0.0 for d in differences]
    misses = [
        1 / (1 + math.exp(-quality - found.length_effect * x)) - WORTH[outcome]
        for x, outcome in zip(squashed, outcomes, strict=True)
    ]
    assert sum(misses) + PRIOR_TIES * (found.win_rate - 0.5) == pytest.approx(0, abs=1e-7)
    pull = found.length_effect / LENGTH_SD**2
    assert sum(m * x for m, x in zip(misses, squashed, strict=True)) + pull == pytest.approx(0, abs=1e-7)


def lengths_swapped(outcomes: Sequence[Outcome], a: Sequence[int], b: Sequence[int]) -> LengthControlled:
    return length_controlled_win_rate([SWAPPED[outcome] for outcome in outcomes], b, a)


def test_swapping_the_sides_gives_the_rest_and_the_same_input_the_same_bits() -> None:
    data = drawn(150, 0.4, 1.0, seed=3)
    found, swapped = length_controlled_win_rate(*data), lengths_swapped(*data)
    assert swapped.win_rate == pytest.approx(1 - found.win_rate, abs=1e-9)
    assert swapped.length_effect == pytest.approx(found.length_effect, abs=1e-9)
    assert length_controlled_win_rate(*data) == found


def test_a_judge_that_only_counts_characters_prefers_neither() -> None:
    rng = random.Random(1)
    a = [rng.randint(500, 2000) for _ in range(400)]
    b = [rng.randint(200, 1000) for _ in range(400)]
    outcomes: list[Outcome] = [
        "win" if x > y else "loss" if x < y else "tie" for x, y in zip(a, b, strict=True)
    ]
    found = length_controlled_win_rate(outcomes, a, b)
    assert found.raw > 0.85 and abs(found.win_rate - 0.5) < 0.1 and found.length_effect > 3


def test_separable_data_give_a_sane_answer() -> None:
    wins: list[Outcome] = ["win"] * 50
    balanced = length_controlled_win_rate(wins, [10, 20] * 25, [20, 10] * 25)
    assert 0.97 < balanced.win_rate < 1 and abs(balanced.length_effect) < 1e-9 and not balanced.extrapolated
    longer = length_controlled_win_rate(wins, list(range(60, 110)), [5] * 50)
    assert 0.5 < longer.win_rate < balanced.win_rate and longer.extrapolated
    same = length_controlled_win_rate(wins, [10] * 50, [5] * 50)
    assert same.win_rate == pytest.approx(50.5 / 51) and same.length_effect == 0 and same.extrapolated
    equal = length_controlled_win_rate(["win", "tie", "loss", "win"], [7] * 4, [7] * 4)
    assert equal.win_rate == pytest.approx(3 / 5) and not equal.extrapolated
    assert length_controlled_win_rate(["win"], [10**9], [0]).win_rate == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("outcomes", "a", "b"), [([], [], []), (["win"], [1], []), (["win"], [1, 2], [1]), (["win"], [-1], [1])]
)
def test_input_that_is_none_is_refused(outcomes: list[Outcome], a: list[int], b: list[int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        length_controlled_win_rate(outcomes, a, b)


def test_the_interval_is_wider_for_fewer_pairs_and_for_more_confidence_and_none_for_too_few() -> None:
    dice = random.Random(3)
    rows = [
        (dice.choice(("win", "tie", "loss")), dice.randint(5, 90), dice.randint(5, 90)) for _ in range(80)
    ]

    def width(count: int, level: float = 0.95) -> float:
        outcomes = [outcome for outcome, _, _ in rows[:count]]
        lengths = ([a for _, a, _ in rows[:count]], [b for _, _, b in rows[:count]])
        found = length_controlled_interval(outcomes, *lengths, level=level)  # type: ignore[arg-type]
        assert found is not None
        assert found == length_controlled_interval(outcomes, *lengths, level=level)  # type: ignore[arg-type]
        assert length_controlled_win_rate(outcomes, *lengths).win_rate in found  # type: ignore[arg-type]
        return found.high - found.low

    assert width(10) > width(40) > width(80) and width(40, 0.99) > width(40, 0.9)
    assert length_controlled_interval(["win"] * 5, [3] * 5, [4] * 5) is None
