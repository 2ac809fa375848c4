"""How many first replies of one real model can be read, asked freely and asked by JSON schema.

    python -m benchmarks.structured --url URL --model NAME [--prompts DIR] [--queries FILE]

For each query the model answers it, chooses aspects for it, scores the answer on the fixed aspects and
rewrites the initial system prompt, by the requests and at the temperatures of a search. The last three are
asked twice, with and without a schema, one call at a time and taking turns at being first, so that neither
way gains by the server's cache. No reply is repaired. A key is taken from OPENAI_API_KEY.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from drpo.ask import Asker
from drpo.compose import Composer, Sampling
from drpo.config import INITIAL_PROMPT
from drpo.data import read_queries, shipped_seeds
from drpo.errors import DrpoError
from drpo.llm.base import LLM, Completion, Request, Role
from drpo.llm.catalog import normalise_url
from drpo.llm.client import OpenAIClient
from drpo.llm.connections import Connections, Endpoint
from drpo.reward import DynamicAspects, EvaluatorReward, StaticAspects
from drpo.templates import Templates
from drpo.transition import OPTIMIZER_SAMPLING, Optimizer
from drpo.types import AspectScore, Evaluation, Failed, Query, Selection

MEASURED: tuple[Role, ...] = ("selector", "evaluator", "optimizer")
WAYS = {False: "without schema", True: "with schema"}


@dataclass
class Tally:
    """What came of the calls of one role in one way."""

    asked: int = 0
    seconds: list[float] = field(default_factory=list)
    problems: Counter[str] = field(default_factory=Counter)

    @property
    def readable(self) -> int:
        """Replies that were read at once."""
        return self.asked - self.problems.total()


class Timed:
    """The model, with a stopwatch at it."""

    def __init__(self, inner: LLM, tallies: dict[tuple[Role, bool], Tally]) -> None:
        self._inner, self._tallies = inner, tallies

    async def complete(self, request: Request) -> Completion:
        began_s = time.perf_counter()
        completion = await self._inner.complete(request)
        if request.role in MEASURED:
            tally = self._tallies[request.role, request.reply_schema is not None]
            tally.asked += 1
            tally.seconds.append(time.perf_counter() - began_s)
        return completion


@dataclass(frozen=True)
class Bench:
    """One model and all that is asked of it."""

    llm: LLM
    model: str
    templates: Templates
    tallies: dict[tuple[Role, bool], Tally]
    max_tokens: int
    temperature: float

    async def one_query(self, number: int, query: Query) -> None:
        """All questions about one query, every other query with the schema first."""
        greedy = Sampling(temperature=0.0, max_tokens=self.max_tokens)
        composer = Composer(self.templates, "chat")
        answered = await self.llm.complete(
            composer.request(self.model, greedy, INITIAL_PROMPT, (), query.text)
        )
        response = answered.choices[0].text
        ways = (False, True) if number % 2 else (True, False)
        askers = {way: Asker(self.llm, self.templates, 0, structured=way) for way in ways}
        static = StaticAspects(Selection(self.templates.book.static))
        evaluation = stand_in(self.templates)
        for way, asker in askers.items():
            self._note("selector", way, await DynamicAspects(asker, self.model, greedy).choose(query))
            judge = EvaluatorReward(asker, self.model, greedy, static)
            found = await judge.evaluate(query, response, "")
            self._note("evaluator", way, found)
            evaluation = found if isinstance(found, Evaluation) else evaluation
        sampling = Sampling(self.temperature, OPTIMIZER_SAMPLING.top_p, self.max_tokens)
        for way, asker in askers.items():
            optimizer = Optimizer(asker, self.model, sampling)
            (sample,) = optimizer.improve_system_prompt(
                [INITIAL_PROMPT], query.text, response, evaluation, f"query {number}", 1
            )
            self._note("optimizer", way, await sample.value())

    def _note(self, role: Role, way: bool, result: object) -> None:
        if isinstance(result, Failed):
            self.tallies[role, way].problems[result.reason] += 1


def stand_in(templates: Templates) -> Evaluation:
    """What the optimizer is shown where no evaluation could be read."""
    return Evaluation(tuple(AspectScore(a.name, 2, "It could be better.") for a in templates.book.static))


async def measure(bench: Bench, queries: Sequence[Query]) -> None:
    """All queries, after one that does not count: a server compiles each schema when it first sees it."""
    await bench.one_query(0, queries[0])
    for tally in bench.tallies.values():
        tally.asked = 0
        tally.seconds.clear()
        tally.problems.clear()
    for number, query in enumerate(queries):
        await bench.one_query(number, query)


def report(tallies: dict[tuple[Role, bool], Tally]) -> None:
    """Print the table, and what was most often wrong."""
    heads = f"{'role':<12}{'asked':>7}{'readable without':>20}{'with schema':>15}"
    print(f"{heads}{'seconds per call':>20}{'ratio':>8}")
    for role in MEASURED:
        free, held = tallies[role, False], tallies[role, True]
        shares = [f"{tally.readable} ({tally.readable / tally.asked:.0%})" for tally in (free, held)]
        medians = [statistics.median(tally.seconds) for tally in (free, held)]
        seconds = f"{medians[0]:.3f} -> {medians[1]:.3f}"
        ratio = medians[1] / medians[0]
        print(f"{role:<12}{free.asked:>7}{shares[0]:>20}{shares[1]:>15}{seconds:>20}{ratio:>8.2f}")
    for (role, way), tally in tallies.items():
        for problem, count in tally.problems.most_common(2):
            print(f"{role}, {WAYS[way]}, {count} times: {problem[:150]}")


async def run(given: argparse.Namespace) -> None:
    """Ask, then report."""
    tallies = {(role, way): Tally() for role in MEASURED for way in WAYS}
    connections = Connections()
    endpoint = Endpoint(normalise_url(given.url), os.environ.get("OPENAI_API_KEY"))
    client = OpenAIClient(connections, endpoint, given.model, timeout_s=300.0)
    queries = read_queries(given.queries or shipped_seeds()).queries[: given.most]
    templates = Templates(given.prompts)
    bench = Bench(
        Timed(client, tallies), given.model, templates, tallies, given.max_tokens, given.temperature
    )
    try:
        await measure(bench, queries)
    finally:
        await connections.aclose()
    print(f"{given.model}, {len(queries)} queries, optimizer at temperature {given.temperature:g}")
    report(tallies)


def main() -> None:
    """Print the table for one server."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", type=Path)
    parser.add_argument("--queries")
    parser.add_argument("--most", type=int, default=20, help="how many of the queries (20)")
    parser.add_argument("--max-tokens", type=int, default=OPTIMIZER_SAMPLING.max_tokens)
    parser.add_argument("--temperature", type=float, default=OPTIMIZER_SAMPLING.temperature)
    try:
        asyncio.run(run(parser.parse_args()))
    except DrpoError as error:
        sys.exit(f"benchmarks.structured: {error}")


if __name__ == "__main__":
    main()
