"""The decisions of a search, each alone: rules 5 and 8 to 12 of the published runs, early ends, sampling."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpo.search.strategy import Beam, MonteCarlo, PathScore
from drpo.search.tree import Node

ROOT: Node[str] = Node(0, "r", 0, "r", 5.0, None)
BEAM = Beam(2, 3, 20, 10, trials=180)


def chain(*rewards: float | None, first_id: int = 1) -> Node[str]:
    """The last node of a path with these rewards below the root."""
    node = ROOT
    for number, reward in enumerate(rewards):
        node = Node(first_id + number, "r", node.depth + 1, "s", reward, node)
    return node


def published(*fives: tuple[int, int]) -> tuple[float, ...]:
    """Rewards as evaluations give them: total of the scores / number of scores."""
    return tuple(total / number for total, number in fives)


# The same seven rewards in two orders, with the exact mean 123/28 as in rule 11.
LOWER = published((23, 5), (14, 3), (18, 5), (24, 5), (10, 3), (5, 1), (19, 4))
HIGHER = published((23, 5), (14, 3), (10, 3), (19, 4), (24, 5), (18, 5), (5, 1))


def test_the_path_mean_leaves_out_the_root() -> None:
    assert chain(2.0, 3.0).mean_path_reward() == 2.5
    assert ROOT.mean_path_reward() is None


def test_the_path_mean_leaves_out_unscored_nodes() -> None:
    assert chain(2.0, None, 3.0).path_rewards() == (2.0, 3.0)
    assert chain(2.0, None, 3.0).mean_path_reward() == 2.5
    assert chain(None, None).mean_path_reward() is None


def test_a_zero_reward_counts_in_the_path_mean() -> None:
    assert chain(0.0, 4.0).mean_path_reward() == 2.0


def test_an_exact_tie_is_decided_by_adding_from_depth_one_downwards() -> None:
    assert math.fsum(LOWER) == math.fsum(HIGHER), "for an exact sum they are equal"
    lower, higher = chain(*LOWER), chain(*HIGHER, first_id=20)
    assert (lower.mean_path_reward(), higher.mean_path_reward()) == (4.392857142857142, 4.392857142857143)
    assert BEAM.select([lower, higher]) == (higher, lower)


def test_a_node_far_from_the_root_has_a_path() -> None:
    assert len(chain(*[1.0] * 5000).path()) == 5001


def test_the_next_beam_is_the_best_w_and_ties_stay_in_order_of_creation() -> None:
    nodes = [chain(reward, first_id=number) for number, reward in enumerate([3.0, 4.0, 3.0, 4.0, 5.0], 1)]
    assert [node.id for node in Beam(4, 3, 20, 10, 180).select(nodes)] == [5, 2, 4, 1]


def test_a_beam_is_short_when_fewer_nodes_exist() -> None:
    only = chain(1.0)
    assert BEAM.select([only]) == (only,)


def test_an_unscored_path_ranks_last() -> None:
    lost, poor = chain(None, first_id=1), chain(1.0, first_id=2)
    assert BEAM.select([lost, poor]) == (poor, lost)


def test_the_last_reward_ranks_where_asked_for() -> None:
    last = Beam(1, 3, 20, 10, 180, path_score="last")
    falling, rising = chain(5.0, 2.0, first_id=1), chain(1.0, 3.0, first_id=5)
    assert last.select([falling, rising]) == (rising,)
    assert BEAM.select([falling, rising])[0] is falling


def test_the_last_reward_of_an_unscored_node_is_the_last_on_its_path() -> None:
    last = Beam(1, 3, 20, 10, 180, path_score="last")
    assert last.score(chain(4.0, None, None)) == 4.0
    assert last.score(chain(None)) is None
    assert last.score(ROOT) == 5.0


def test_the_limit_grows_by_one_and_never_above_its_cap() -> None:
    limits = [20]
    for kept in [True, False, True] + [True] * 20:
        limits.append(BEAM.next_limit(limits[-1], kept))
    assert limits[:4] == [20, 21, 21, 22]
    assert max(limits) == limits[-1] == 30


@pytest.mark.parametrize(
    ("limit", "trials", "depth_of_first_terminal"), [(20, 180, 19), (20, 5, 4), (2, 180, 1), (1, 180, 0)]
)
def test_a_node_is_terminal_by_the_limit_or_by_the_number_of_queries(
    limit: int, trials: int, depth_of_first_terminal: int
) -> None:
    beam = Beam(2, 3, 20, 10, trials)
    draws = [bool(beam.draws(chain(*[1.0] * depth), limit)) for depth in range(25)]
    assert draws.index(False) == depth_of_first_terminal
    assert not any(draws[depth_of_first_terminal:])


def test_a_beam_node_is_tried_on_the_query_of_its_depth() -> None:
    (draw,) = BEAM.draws(chain(1.0, 1.0), 20)
    assert draw.trials == (3, 3, 3)
    assert draw.place == "r/0"


def test_the_result_is_the_first_of_the_last_beam() -> None:
    good, last = chain(5.0), chain(5.0, 1.0)
    assert BEAM.best([last], [ROOT, good, last]) is last


def test_best_seen_takes_the_later_one_on_a_tie_and_never_an_unscored_node() -> None:
    seen = Beam(1, 1, 6, 0, 6, result="best seen")
    first, second, unscored = chain(4.0, first_id=1), chain(4.0, first_id=2), chain(None, first_id=3)
    start: Node[str] = Node(0, "r", 0, "r", 4.0, None)
    assert seen.best([unscored], [start, first, second, unscored]) is second
    assert seen.best([unscored], [start, chain(3.0), unscored]) is start


def test_best_seen_is_the_start_when_nothing_was_scored() -> None:
    start: Node[str] = Node(0, "r", 0, "r", None, None)
    unscored = chain(None)
    assert Beam(1, 1, 6, 0, 6, result="best seen").best([unscored], [start, unscored]) is start


def test_patience_counts_levels_without_a_gain() -> None:
    patient = Beam(2, 3, 20, 10, 180, patience=2)
    assert patient.enough([None, 3.0, 3.0]) is None
    assert patient.enough([None, 3.0, 3.0, 3.0]) == "patience"
    assert patient.enough([None, 3.0, 3.0, 3.1]) is None
    assert patient.enough([None, 4.0, 3.0, 3.5]) == "patience"


def test_unscored_levels_are_no_gain_and_the_first_score_is_one() -> None:
    patient = Beam(2, 3, 20, 10, 180, patience=2)
    assert patient.enough([None, None, None]) == "patience"
    assert patient.enough([None, None, 1.0]) is None
    assert patient.enough([None, None]) is None


def test_without_patience_nothing_ends_early() -> None:
    assert BEAM.enough([5.0] * 50) is None


def test_a_perfect_score_ends_the_search() -> None:
    perfect = Beam(1, 1, 6, 0, 6, perfect=5.0)
    assert perfect.enough([5.0]) == "perfect"
    assert perfect.enough([4.9, None]) is None
    assert perfect.enough([]) is None


@given(
    width=st.integers(1, 5), samples=st.integers(1, 6), depth=st.integers(2, 12), trials=st.integers(2, 20)
)
def test_monte_carlo_makes_w_m_d_prompts_spread_over_the_queries(
    width: int, samples: int, depth: int, trials: int
) -> None:
    strategy = MonteCarlo(width, samples, depth, trials)
    draws = strategy.draws(ROOT, strategy.first_limit())
    numbers = [trial for draw in draws for trial in draw.trials]
    assert len(numbers) == width * samples * depth
    assert numbers == [1 + i % (min(depth, trials) - 1) for i in range(len(numbers))]
    assert len({draw.place for draw in draws}) == len(draws)
    assert strategy.draws(chain(3.0), strategy.first_limit()) == ()


@pytest.mark.parametrize(("depth", "trials"), [(1, 180), (20, 1)])
def test_monte_carlo_without_a_second_query_samples_nothing(depth: int, trials: int) -> None:
    assert MonteCarlo(2, 3, depth, trials).draws(ROOT, 2) == ()


def test_monte_carlo_ranks_by_its_own_reward_ties_to_the_first() -> None:
    strategy = MonteCarlo(2, 3, 20, 180)
    nodes = [chain(reward, first_id=number) for number, reward in enumerate([None, 2.0, 4.5, 4.5, 0.0], 1)]
    (best,) = strategy.select(nodes)
    assert best.id == 3
    assert strategy.best((best,), nodes) is best
    assert strategy.score(best) == 4.5


def test_monte_carlo_prefers_any_score_to_none() -> None:
    unscored, zero = chain(None, first_id=1), chain(0.0, first_id=2)
    assert MonteCarlo(2, 3, 20, 180).select([unscored, zero]) == (zero,)


@given(st.lists(st.sampled_from([1.0, 2.5, 10 / 3, 4.2, 13 / 3, 5.0]), min_size=1, max_size=12))
def test_selecting_is_a_stable_sort(rewards: list[float]) -> None:
    path_score: PathScore = "mean"
    beam = Beam(len(rewards), 1, 20, 10, 180, path_score=path_score)
    nodes = [chain(reward, first_id=number) for number, reward in enumerate(rewards)]
    expected = sorted(range(len(rewards)), key=lambda number: (-rewards[number], number))
    assert [node.id for node in beam.select(nodes)] == expected
