"""What `--dry-run` says beforehand, against what simulated runs came to.

    python -m benchmarks.estimates [--random 100]

Each row is a whole run on the simulated models with a price for each role; calls are counted by its record,
money by its books. `covered` is whether at least <= real <= at most, for the calls, the tokens read and the
tokens written of each role and for the whole cost. With --random as many settings are drawn besides, of which
only what is not covered and the totals are shown.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drpo.config import ExamplesConfig, OptimizeConfig
from drpo.data import read_examples, read_queries, shipped_examples, shipped_seeds, write_examples
from drpo.estimate.forecast import Forecast, Recorded, forecast, read_recorded
from drpo.estimate.ranges import Range
from drpo.llm.ledger import LEDGER_NAME, Spent, read_ledger
from drpo.plan import examples_plan, optimize_plan, run_path
from drpo.run import Hooks, run_examples, run_optimize
from drpo.settings import resolve

PRICES = ("base=0.5/1.5", "optimizer=2/10", "evaluator=2.5/15", "selector=1/4")
EXAMPLES = "examples"
SETTINGS: dict[str, dict[str, Any]] = {
    "the defaults": {},
    "world 7": {"demo_seed": 7, "random_seed": 7},
    "width 1, one sample": {"width": 1, "samples": 1, "depth": 8, "max_extra_depth": 3},
    "width 1, five samples": {"width": 1, "samples": 5, "depth": 8, "max_extra_depth": 2},
    "width 3, two samples": {"width": 3, "samples": 2, "depth": 10},
    "width 4, five samples": {"width": 4, "samples": 5, "depth": 12, "max_extra_depth": 5},
    "two levels": {"depth": 2, "max_extra_depth": 0},
    "depth 25, no extra": {"depth": 25, "max_extra_depth": 0},
    "patience 2": {"patience": 2},
    "patience 4, last reward": {"patience": 4, "path_score": "last", "demo_seed": 3},
    "three evaluations": {"evaluations": 3, "depth": 4, "max_extra_depth": 2},
    "no repairs": {"repairs": 0, "demo_seed": 5},
    "two repairs": {"repairs": 2, "depth": 12, "demo_seed": 8},
    "greedy": {"search": "greedy", "samples": 4, "depth": 15},
    "monte carlo": {"search": "monte-carlo", "depth": 6},
    "monte carlo, five queries": {"search": "monte-carlo", "depth": 8, "few_queries": 5},
    "static rewards": {"reward": "static", "depth": 12},
    "six queries": {"few_queries": 6},
    "everything kept": {"keep_above": 0.5, "depth": 10},
    "nothing kept": {"keep_above": 5.0, "depth": 12},
    "much noise": {"demo_noise": 3.0, "depth": 12},
    "no noise": {"demo_noise": 0.0, "depth": 12},
    "replies cut at 64 tokens": {"max_tokens": 64, "depth": 10},
    "replies cut at 200 tokens": {"max_tokens": 200, "repairs": 0, "depth": 10},
    "answers cut at 16 tokens": {"base_max_tokens": 16, "depth": 6},
    "a long prompt to start from": {"initial_prompt": "Answer kindly. " * 200, "depth": 6},
    "no shots": {"shots": 0, "depth": 6},
    "as published": {"preset": "published"},
    "examples: the defaults": {"command": EXAMPLES},
    "examples: width 2, three samples": {"command": EXAMPLES, "width": 2, "samples": 3, "few_examples": 4},
    "examples: three evaluations": {"command": EXAMPLES, "evaluations": 3, "few_examples": 3, "depth": 3},
    "examples: patience 1, static": {"command": EXAMPLES, "patience": 1, "reward": "static"},
    "examples: cut at 64 tokens": {"command": EXAMPLES, "max_tokens": 64, "few_examples": 5},
}


@dataclass(frozen=True)
class Compared:
    """A forecast beside its run: what the record and the books of the run say."""

    name: str
    said: Forecast
    real: Recorded
    spent: Mapping[str, Spent]

    @property
    def usd(self) -> float:
        return sum(spent.usd for spent in self.spent.values())

    def outside(self) -> list[str]:
        """The figures that the forecast does not cover."""
        found = [] if _covers(self.said.usd, self.usd) else [f"cost {self.usd:.4f}"]
        for role in self.said.roles:
            usage = self.real.usage.get(role.role)
            figures = {
                "calls": (role.calls, self.real.calls.get(role.role, 0)),
                "tokens read": (role.prompt_tokens, usage.prompt_tokens if usage else 0),
                "tokens written": (role.completion_tokens, usage.completion_tokens if usage else 0),
            }
            found += [
                f"{role.role}: {figure} {real:,}"
                for figure, (said, real) in figures.items()
                if not _covers(said, real)
            ]
        return found


def compare(name: str, settings: Mapping[str, Any], folder: Path) -> Compared:
    """Forecast a run on the simulated models, run it in `folder`, and hold one against the other."""
    given = {"model": "demo", "price": PRICES, "report": False, "run_dir": folder / "run", **settings}
    command = given.pop("command", "optimize")
    if (few := given.pop("few_queries", None)) is not None:
        queries = [query.text for query in read_queries(shipped_seeds()).queries[:few]]
        given["seeds"] = str(folder / "seeds.txt")
        (folder / "seeds.txt").write_text("\n".join(" ".join(q.split()) for q in queries), encoding="utf-8")
    if (few := given.pop("few_examples", None)) is not None:
        given["examples"] = folder / "few.jsonl"
        write_examples(folder / "few.jsonl", read_examples(shipped_examples()).examples[:few])
    if command == EXAMPLES:
        plan = examples_plan(resolve(ExamplesConfig, given, {}), {})
        said = forecast(plan)
        asyncio.run(run_examples(plan, {}, Hooks()))
    else:
        plan = optimize_plan(resolve(OptimizeConfig, given, {}), {})
        said = forecast(plan)
        asyncio.run(run_optimize(plan, {}, Hooks()))
    path = run_path(plan)
    return Compared(name, said, read_recorded(path / "calls.jsonl"), read_ledger(path / LEDGER_NAME))


def drawn(dice: random.Random) -> dict[str, Any]:
    """Settings as nobody would choose them."""
    settings: dict[str, Any] = {
        "width": dice.randint(1, 4),
        "samples": dice.randint(1, 5),
        "depth": dice.choice([2, 3, 4, 6, 9, 14]),
        "max_extra_depth": dice.choice([0, 1, 3, 8]),
        "patience": dice.choice([None, None, 1, 2, 3]),
        "evaluations": dice.choice([1, 1, 2, 3]),
        "repairs": dice.randint(0, 2),
        "search": dice.choice(["beam", "beam", "greedy", "monte-carlo"]),
        "reward": dice.choice(["dynamic", "dynamic", "static"]),
        "unreadable": dice.choice(["drop", "drop", "zero"]),
        "path_score": dice.choice(["mean", "last"]),
        "keep_above": dice.choice([0.0, 2.0, 3.5, 4.5, 5.0]),
        "shots": dice.choice([0, 1, 2, 4]),
        "max_tokens": dice.choice([16, 64, 150, 300, 2048, 2048, 2048]),
        "base_max_tokens": dice.choice([8, 100, 2048]),
        "optimizer_temperature": dice.choice([0.0, 0.2]),
        "demo_noise": dice.choice([0.0, 0.5, 3.0]),
        "demo_seed": dice.randint(0, 999),
        "random_seed": dice.randint(0, 999),
    }
    if settings["search"] == "monte-carlo":
        settings["unreadable"] = "drop"  # a start that cannot be read would be tried without end
    if dice.random() < 0.3:
        settings["few_queries"] = dice.randint(2, 8)
    if dice.random() < 0.25:
        settings |= {"command": EXAMPLES, "few_examples": dice.randint(1, 6)}
        for name in ("max_extra_depth", "search", "path_score", "keep_above", "shots", "base_max_tokens"):
            del settings[name]
        settings.pop("few_queries", None)
    return settings


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--random", type=int, default=0, metavar="N")
    number = parser.parse_args().random
    print(f"{'settings':<34}{'role':<11}{'at least':>9}{'real':>8}{'expected':>9}{'at most':>9}")
    compared = []
    for name, settings in SETTINGS.items():
        with tempfile.TemporaryDirectory() as folder:
            one = compare(name, settings, Path(folder))
        print_rows(one)
        compared.append(one)
    summarise(compared)
    if number:
        print(f"\n{number} settings drawn at random")
        dice = random.Random(0)
        compared = []
        for _ in range(number):
            settings = drawn(dice)
            with tempfile.TemporaryDirectory() as folder:
                one = compare("drawn", settings, Path(folder))
            if one.outside():
                print("NOT COVERED:", "; ".join(one.outside()), settings)
            compared.append(one)
        summarise(compared)


def print_rows(one: Compared) -> None:
    """One row per role and one for the cost."""
    for number, role in enumerate(one.said.roles):
        real = one.real.calls.get(role.role, 0)
        print(f"{one.name if number == 0 else '':<34}{role.role:<11}{_cells(role.calls, real, '.0f')}")
    covered = "covered" if not one.outside() else "NOT COVERED: " + "; ".join(one.outside())
    print(f"{'':<34}{'cost, $':<11}{_cells(one.said.usd, one.usd, '.3f')}  {covered}")


def summarise(compared: list[Compared]) -> None:
    """How many are covered, and how far the expected figures are from the real ones."""
    covered = sum(not one.outside() for one in compared)
    print(f"{covered} of {len(compared)} covered: calls, tokens and cost")
    calls = [one.said.calls.expected / sum(one.real.calls.values()) for one in compared]
    cost = [one.said.usd.expected / one.usd for one in compared]
    most = [(one.said.usd.most or 0.0) / one.usd for one in compared]
    for what, ratios in (("calls, expected / real", calls), ("cost, expected / real", cost)):
        print(f"{what}: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")
    print(f"cost, at most / real: median {statistics.median(most):.0f}, {min(most):.0f} to {max(most):.0f}")


def _cells(said: Range, real: float, form: str) -> str:
    most = "no limit" if said.most is None else format(said.most, form)
    return f"{said.least:>9{form}}{real:>8{form}}{said.expected:>9{form}}{most:>9}"


def _covers(said: Range, real: float) -> bool:
    return said.least <= real and (said.most is None or real <= said.most)


if __name__ == "__main__":
    main()
