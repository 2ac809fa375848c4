"""How often a validated search says "better", where it should and where it should not.

    python -m benchmarks.conscience [--null 200] [--helped 100] [--depth 8] [--request 1]

Each search is a whole one with simulated models of its own world (evaluation noise 0.5), validated on 40 kept
queries at a nominal one-sided 2.5 %. In the worlds of the first arm no system prompt has any effect, so every
"better" is wrong. In those of the second a prompt is known that helps by 0.5 points, and the optimizer
proposes it once, among its other proposals: as the first one of the request that `--request` names. The true
gain of the best candidate is what the evaluator's scores come to on average over its noise, on 300 queries.
Rates stand with their Wilson interval at 95 %.
Nothing here says anything about real models.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.searches import retrieved
from drpo.api import optimize
from drpo.config import INITIAL_PROMPT
from drpo.data import read_queries, shipped_heldout, shipped_seeds
from drpo.llm.base import Choice, Completion, Request
from drpo.llm.simulated import SimulatedLLM, World, best_known_prompt, expected_reward
from drpo.statistics import wilson

HELPS = 0.5


@dataclass(frozen=True)
class Outcome:
    """One search. gain, low, high: as reported of the best candidate; true: of the same prompt, in truth."""

    better: bool
    refused: bool
    gain: float | None
    low: float | None
    high: float | None
    true: float | None
    own: float | None
    asked: int


class Planting:
    """An optimizer whose first proposal at the request of this number, from 1, is the known prompt."""

    def __init__(self, model: SimulatedLLM, prompt: str, number: int) -> None:
        self._model, self._prompt, self._left = model, prompt, number

    async def complete(self, request: Request) -> Completion:
        """As the model has it, but for one choice."""
        completion = await self._model.complete(request)
        self._left -= 1
        if self._left != 0:
            return completion
        text = json.dumps({"analysis": "", "thought": "", "new_system_prompt": self._prompt})
        return replace(completion, choices=(Choice(text, "stop"), *completion.choices[1:]))


def main() -> None:
    """Print the rates of both arms."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, count in (("null", 200), ("helped", 100), ("depth", 8), ("request", 1)):
        parser.add_argument(f"--{name}", type=int, default=count)
    given = parser.parse_args()
    with ProcessPoolExecutor(max_workers=2) as pool:
        null = list(pool.map(partial(null_world, depth=given.depth), range(given.null)))
        planted = partial(helped_world, depth=given.depth, request=given.request)
        helped = list(pool.map(planted, range(given.helped)))
    print(f"{'':<34}{'no prompt helps':>28}{f'one helps by {HELPS}':>28}")
    for name, said in (
        ("said to be better", [rate([o.better for o in arm]) for arm in (null, helped)]),
        ("true gain within the interval", [rate(covered(arm)) for arm in (null, helped)]),
        ("refused by a safety floor", [rate([o.refused for o in arm]) for arm in (null, helped)]),
        ("reported less true gain, mean", [off(arm) for arm in (null, helped)]),
        ("search's own reward, mean", [own(arm) for arm in (null, helped)]),
        (
            "rewards on kept queries, mean",
            [f"{statistics.mean(o.asked for o in arm):.0f}" for arm in (null, helped)],
        ),
    ):
        print(f"{name:<34}{said[0]:>28}{said[1]:>28}")


def null_world(seed: int, depth: int) -> Outcome:
    """A search in a world in which no prompt has any effect."""
    return search(World(seed=seed, helpable=False), depth)


def helped_world(seed: int, depth: int, request: int = 1) -> Outcome:
    """A search in a world weakened until the best known prompt helps by `HELPS`, which is proposed once."""
    heldout = read_queries(shipped_heldout()).queries
    shots = retrieved(heldout)
    prompt, _ = best_known_prompt(World(seed=seed), heldout, shots)
    low, high = 0.0, 1.0
    for _ in range(6):
        middle = (low + high) / 2
        world = World(seed=seed, strength=middle)
        gain = expected_reward(world, prompt, heldout, shots) - expected_reward(
            world, INITIAL_PROMPT, heldout, shots
        )
        low, high = (middle, high) if gain < HELPS else (low, middle)
    return search(World(seed=seed, strength=(low + high) / 2), depth, prompt, request)


def search(world: World, depth: int, planted: str | None = None, request: int = 1) -> Outcome:
    """One validated search in `world`."""
    model = SimulatedLLM(world)
    optimizer = model if planted is None else Planting(model, planted, request)
    with tempfile.TemporaryDirectory() as folder:
        result = optimize(
            models={"base": model, "optimizer": optimizer, "evaluator": model, "selector": model},
            depth=depth,
            max_extra_depth=0,
            random_seed=world.seed,
            embedder="lexical",
            validate=40,
            reuse=False,
            report=False,
            run_dir=Path(folder) / "run",
        )
    validation = result.alignment.validation
    assert validation is not None
    told = [item for item in validation.prompts[1:] if item.gain is not None and item.low is not None]
    best = next((item for item in told if item.node == validation.chosen), None)
    best = best or max(told, key=lambda item: item.gain or 0.0, default=None)
    found = result.alignment.found
    rewards = found.path_rewards
    return Outcome(
        validation.better,
        any(check.refused for check in validation.floors),
        validation.gain if best else None,
        best.low if best else None,
        best.high if best else None,
        true_gain(world, best.system_prompt) if best else None,
        statistics.mean(rewards) if rewards else None,
        validation.asked,
    )


def true_gain(world: World, prompt: str) -> float:
    """What the prompt changes in the expected reward, over all shipped queries."""
    queries = [*read_queries(shipped_heldout()).queries, *read_queries(shipped_seeds()).queries]
    shots = retrieved(queries)
    return expected_reward(world, prompt, queries, shots) - expected_reward(
        world, INITIAL_PROMPT, queries, shots
    )


def covered(arm: Sequence[Outcome]) -> list[bool]:
    """Whether each interval holds the true gain."""
    return [o.low <= o.true <= o.high for o in arm if None not in (o.low, o.high, o.true)]  # type: ignore[operator]


def off(arm: Sequence[Outcome]) -> str:
    """How far what was reported is above the truth."""
    return (
        f"{statistics.mean(o.gain - o.true for o in arm if o.gain is not None and o.true is not None):+.3f}"
    )


def own(arm: Sequence[Outcome]) -> str:
    """The path score that the search itself reports."""
    return f"{statistics.mean(o.own for o in arm if o.own is not None):.3f}"


def rate(said: Sequence[bool]) -> str:
    """`9 of 200, 4.5 % [2.4, 8.3]`."""
    interval = wilson(sum(said), len(said))
    share = 100 * sum(said) / max(1, len(said))
    return f"{sum(said)} of {len(said)}: {share:.0f} % [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


if __name__ == "__main__":
    main()
