"""How often validation calls a prompt better that is not, and finds one that is: its arithmetic, no models.

    python -m benchmarks.validation [--repetitions 1000] [--processes 2]

A score is 3 plus what the query adds for all prompts (standard deviation 0.5), what it adds for one prompt
(0.3), the prompt's help, and the evaluator's error (0.5); then rounded to what the mean of 2 to 5 aspects'
scores from 1 to 5 can be, as many for all prompts on a query. Lengths are random. In the worlds "one" the
helping candidate's place is random too. The true gain is that after rounding and cutting off at 1 and 5.

`better`: share of races that call a candidate better than the initial prompt; `false`: that name one which
does not help (nominally at most 2.5 %). `covered`: share of intervals that hold the picked candidate's true
gain. All in percent, with Wilson's interval. `bias`: mean of the winner's gain less its true gain, before and
after the correction, in points. `regret`: true gain of the best candidate less that of the picked one, over
races that end with better. `saved`: share of the scores that dropping made unnecessary.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from statistics import fmean

import numpy as np

from drpo.statistics import Floats, wilson
from drpo.validation.decision import Contender, Rules, Verdict
from drpo.validation.race import racing

QUERY, PAIR, NOISE = 0.5, 0.3, 0.5
QUERIES, CANDIDATES, HELPS = (10, 20, 40), (1, 3, 8), (0.2, 0.35, 0.5)
RULES = Rules(flips=256)
"""A test is exact with few flips too; with the default ones it is a little more powerful and slower."""
AT_ONCE = Rules(flips=256, rounds=(1.0,))


@dataclass(frozen=True)
class Row:
    """A world, and how it is raced in."""

    queries: int
    helps: tuple[float, ...]
    world: str
    rules: Rules = RULES


@dataclass(frozen=True)
class Result:
    """What one race came to, and the truth; `gains` are nan where all candidates were dropped."""

    better: bool
    false: bool
    covered: bool
    picked: bool
    plain_bias: float
    corrected_bias: float
    regret: float
    saved: float


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    rows = all_rows()
    print("| N | m | world | better % | false % | covered % | bias plain | corrected | regret | saved % |")
    print("|--:|--:|:------|:---------|:--------|:----------|-----------:|----------:|-------:|--------:|")
    with ProcessPoolExecutor(options.processes) as pool:
        for row, results in zip(
            rows, pool.map(partial(races, repetitions=options.repetitions), rows), strict=True
        ):
            print(line(row, results), flush=True)
    print(identical(options.repetitions // 4))


def all_rows() -> list[Row]:
    rows = []
    for queries in QUERIES:
        for count in CANDIDATES:
            rows.append(Row(queries, (0.0,) * count, "null"))
            rows += [
                Row(queries, (help_,) + (0.0,) * (count - 1), f"one +{help_}") for help_ in HELPS if count > 1
            ]
            rows += [Row(queries, (help_,) * count, f"all +{help_}") for help_ in HELPS]
    for world, helps in (
        ("null", (0.0,) * 8),
        ("one +0.35", (0.35,) + (0.0,) * 7),
        ("mixed 0.5..-0.5", tuple(np.linspace(0.5, -0.5, 8).tolist())),
        ("all -0.5", (-0.5,) * 8),
    ):
        rows += [Row(40, helps, world)] if world not in {row.world for row in rows} else []
        rows.append(Row(40, helps, f"{world}, no dropping", AT_ONCE))
    return rows


def races(row: Row, repetitions: int) -> list[Result]:
    """The same worlds at every start. Rows of equal numbers of queries and candidates share their noise."""
    truths = {help_: true_gain(help_) for help_ in set(row.helps)}
    return [one_race(row, truths, seed) for seed in range(repetitions)]


def true_gain(help_: float) -> float:
    draw = np.random.default_rng(1)
    size = 400_000
    latent = 3 + draw.normal(0, np.sqrt(QUERY**2 + PAIR**2 + NOISE**2), size)
    aspects = draw.integers(2, 6, size)
    return float((rounded(latent + help_, aspects) - rounded(latent, aspects)).mean())


def rounded(latent: Floats, aspects: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Floats:
    return np.asarray(np.round(np.clip(latent, 1, 5) * aspects) / aspects)


def one_race(row: Row, truths: dict[float, float], seed: int) -> Result:
    draw = np.random.default_rng((seed, row.queries, len(row.helps)))
    helps = draw.permutation(row.helps)
    shape = (row.queries, len(helps) + 1)
    latent = 3 + draw.normal(0, QUERY, (row.queries, 1)) + draw.normal(0, np.hypot(PAIR, NOISE), shape)
    scores = rounded(latent + np.array([0.0, *helps]), draw.integers(2, 6, (row.queries, 1)))
    verdict = run(scores, draw.integers(5, 200, shape[1]).tolist(), row.rules)
    if verdict.winner is None or verdict.gain is None or verdict.corrected is None:
        return Result(False, False, True, False, 0.0, 0.0, 0.0, verdict.saved)
    assert verdict.interval is not None
    truth = truths[float(helps[verdict.winner.index - 1])]
    regret = truths[max(truths)] - truth if verdict.better else 0.0
    biases = (verdict.gain - truth, verdict.corrected - truth)
    false = verdict.better and truth <= 0
    return Result(verdict.better, false, truth in verdict.interval, True, *biases, regret, verdict.saved)


def run(scores: Floats, lengths: Sequence[int], rules: Rules) -> Verdict:
    """The race itself, answered from a table of scores; the first column is the initial prompt."""
    contenders = [Contender(index, length) for index, length in enumerate(lengths)]
    steps = racing(contenders[1:], contenders[0], range(len(scores)), rules)
    asked = next(steps)
    while True:
        try:
            asked = steps.send([float(scores[query, prompt]) for prompt, query in asked])
        except StopIteration as end:
            verdict: Verdict = end.value
            return verdict


def line(row: Row, results: Sequence[Result]) -> str:
    picked = [result for result in results if result.picked]
    better = [result for result in results if result.better]
    cells = [
        str(row.queries),
        str(len(row.helps)),
        row.world,
        share([result.better for result in results]),
        share([result.false for result in results]),
        share([result.covered for result in picked]),
        f"{fmean(result.plain_bias for result in picked):+.3f}" if picked else "-",
        f"{fmean(result.corrected_bias for result in picked):+.3f}" if picked else "-",
        f"{fmean(result.regret for result in better):.3f}" if better else "-",
        f"{100 * fmean(result.saved for result in results):.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def share(hits: Sequence[bool]) -> str:
    if not hits:
        return "-"
    found = wilson(sum(hits), len(hits))
    return f"{100 * fmean(hits):.1f} ({100 * found.low:.1f}-{100 * found.high:.1f})"


def identical(repetitions: int) -> str:
    """What the best of 20 identical prompts seems to gain on 20 items if only the evaluator errs, by 0.5."""
    verdicts = [
        run(3 + np.random.default_rng(seed).normal(0, NOISE, (20, 21)), [1] * 21, AT_ONCE)
        for seed in range(repetitions)
    ]
    gains = [verdict.gain for verdict in verdicts if verdict.gain is not None]
    corrected = [verdict.corrected for verdict in verdicts if verdict.corrected is not None]
    better = share([verdict.better for verdict in verdicts])
    return (
        f"\n20 identical prompts, 20 items, noise 0.5: the best one seems to gain {fmean(gains):.2f} points; "
        f"corrected {fmean(corrected):+.3f}; called better in {better} % of {repetitions}."
    )


if __name__ == "__main__":
    main()
