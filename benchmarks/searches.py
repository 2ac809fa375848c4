"""Which search finds the better prompt in the simulated world, and does it matter how rewards are chosen.

    python -m benchmarks.searches [--seeds 20]

For each seed a world, an order of the seed queries and the sampling change together. Every arm may make
about as many evaluations as every other: no prompt is kept (--keep-above 5), greedy search draws six
proposals a level where beam search draws twice three, Monte Carlo draws 2 x 3 x 19. What is compared is the
true reward (1 to 5, without noise) of the prompt that was found, on the 120 held-out queries, which no search
sees. Nothing here says anything about real models.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drpo.config import INITIAL_PROMPT, OptimizeConfig
from drpo.data import read_examples, read_queries, shipped_examples, shipped_heldout
from drpo.llm.simulated import World, best_known_prompt, true_reward
from drpo.plan import optimize_plan
from drpo.retrieve import LexicalRetriever
from drpo.run import Hooks, run_optimize
from drpo.settings import resolve
from drpo.templates import Templates
from drpo.types import Example, Query

NEVER_KEEP: dict[str, Any] = {"keep_above": 5.0, "max_extra_depth": 0}
ARMS: dict[str, dict[str, Any]] = {
    "beam": NEVER_KEEP,
    "greedy": {**NEVER_KEEP, "search": "greedy", "samples": 6},
    "monte-carlo": {**NEVER_KEEP, "search": "monte-carlo", "depth": 19},
    "beam, static rewards": {**NEVER_KEEP, "reward": "static"},
    "beam as published (keeps above 4.5)": {"preset": "published"},
}
# Student's t at 97.5 % by degrees of freedom; between the listed ones the next lower is taken.
_T = {4: 2.776, 9: 2.262, 14: 2.145, 19: 2.093, 29: 2.045, 49: 2.010, 99: 1.984}


@dataclass(frozen=True)
class Outcome:
    """What one arm found in one world: true rewards on the held-out queries, and evaluations made."""

    chosen_aspects: float
    fixed_aspects: float
    evaluations: int


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    seeds = range(parser.parse_args().seeds)
    with ProcessPoolExecutor(max_workers=2) as pool:
        worlds = list(pool.map(one_world, seeds))
    print(f"{len(seeds)} worlds; true reward on 120 held-out queries, mean and 95 % interval over worlds")
    print(f"{'prompt':<38}{'aspects per query':>24}{'six fixed aspects':>24}{'evaluations':>13}")
    for arm in ("initial", *ARMS, "best known"):
        rows = [world[arm] for world in worlds]
        evaluations = f"{statistics.mean(r.evaluations for r in rows):.0f}" if rows[0].evaluations else ""
        cells = "".join(f"{interval([get(r) for r in rows]):>24}" for get in SCALES)
        print(f"{arm:<38}{cells}{evaluations:>13}")
    print("\ndifference to beam, world by world")
    for arm in ("initial", "greedy", "monte-carlo", "beam, static rewards"):
        cells = "".join(f"{interval([get(w[arm]) - get(w['beam']) for w in worlds]):>24}" for get in SCALES)
        print(f"{arm:<38}{cells}")


SCALES: tuple[Callable[[Outcome], float], ...] = (lambda r: r.chosen_aspects, lambda r: r.fixed_aspects)


def one_world(seed: int) -> dict[str, Outcome]:
    """All arms in one world."""
    world = World(seed=seed)
    heldout = read_queries(shipped_heldout()).queries
    shots = retrieved(heldout)
    static = Templates().book.static

    def judge(prompt: str, evaluations: int = 0) -> Outcome:
        chosen = true_reward(world, prompt, heldout, shots)
        return Outcome(chosen, true_reward(world, prompt, heldout, shots, static), evaluations)

    found = {"initial": judge(INITIAL_PROMPT)}
    for arm, settings in ARMS.items():
        with tempfile.TemporaryDirectory() as folder:
            given = {"model": "demo", "demo_seed": seed, "random_seed": seed, "reuse": False, "validate": 0}
            config = resolve(OptimizeConfig, {**given, **settings, "run_dir": Path(folder) / "run"}, {})
            result = asyncio.run(run_optimize(optimize_plan(config, {}), {}, Hooks()))
        found[arm] = judge(result.alignment.system_prompt, result.alignment.found.nodes)
    found["best known"] = judge(best_known_prompt(world, heldout, shots)[0])
    return found


def retrieved(queries: Sequence[Query]) -> Callable[[Query], tuple[Example, ...]]:
    """The two shots of each query, as a search would retrieve them."""
    examples = read_examples(shipped_examples()).examples
    indices = asyncio.run(LexicalRetriever(examples).top_k([query.text for query in queries], 2))
    by_text = {q.text: tuple(examples[i] for i in found) for q, found in zip(queries, indices, strict=True)}
    return lambda query: by_text[query.text]


def interval(values: Sequence[float]) -> str:
    """`mean [low, high]`: Student's interval at 95 %."""
    mean = statistics.mean(values)
    if len(values) < 5:
        return f"{mean:.3f}"
    t = _t(len(values) - 1)
    half = t * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.3f} [{mean - half:.3f}, {mean + half:.3f}]"


def _t(degrees: int) -> float:
    return _T[max(known for known in _T if known <= degrees)]


if __name__ == "__main__":
    main()
