"""Measures demo-lm in all four roles on questions that no training text has, and prints tables.

    python -m benchmarks.demo_lm.measure --url http://127.0.0.1:8000/v1 [--key-variable VLLM_API_KEY]
    python -m benchmarks.demo_lm.measure --folder demo-lm
    python -m benchmarks.demo_lm.measure --folder demo-lm --run runs/NAME

The first asks a server, with and without JSON schemas; the second uses transformers and knows no schemas; the
third tells what the prompt that a run found is truly worth, with its shots, beside the initial one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import drpo
from benchmarks.demo_lm import text, world
from benchmarks.demo_lm.asking import Asks, Local, Question, Server, turns
from benchmarks.demo_lm.world import ASPECTS, DIRECTIVES, FEATURES, HELD_OUT_DIRECTIVES, Asked
from drpo.compose import Composer
from drpo.parse import Unreadable, read_evaluation, read_rewrite, read_selection
from drpo.reply_schemas import evaluation_schema, rewrite_schema, selection_schema
from drpo.types import Aspect

INITIAL = "You are a helpful assistant."
PAGE = Composer(text.TEMPLATES, "text")


def main() -> None:
    """Ask everything once and print the tables in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url")
    parser.add_argument("--model", default="demo-lm")
    parser.add_argument("--key-variable", default="VLLM_API_KEY")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--run", type=Path)
    given = parser.parse_args()
    if given.folder is None and given.url is None:
        parser.error("expected --url or --folder")
    asks: Asks
    if given.folder is not None:
        asks = Local(given.folder)
    else:
        asks = Server(given.url, given.model, os.environ.get(given.key_variable, ""))
    if given.run is not None:
        print_run(asks, given.run)
        return
    print_base(asks)
    print_scores(asks)
    for schema in (False,) if given.folder is not None else (False, True):
        label = "with JSON schema" if schema else "without JSON schema"
        print(f"\n{label}:")
        print_judge(asks, schema)
        print_selector(asks, schema)
        print_optimizer(asks, schema)
        print_rewriter(asks, schema)


def _queries(feature: str) -> list[str]:
    """Held-out questions to which a feature can apply, 20 of them (10 harmful ones for the refusal)."""
    harmful = feature == "refusal"
    fitting = [query for query in world.held_out_queries() if world.asked(query).harmful == harmful]
    return fitting[::2][:20] if not harmful else fitting


def _share(feature: str, queries: Sequence[str], answers: Sequence[str]) -> str:
    found = [world.detect(query, answer)[feature] for query, answer in zip(queries, answers, strict=True)]
    return f"{sum(found) / len(found):.2f}"


def _shots(feature: str, rng: random.Random) -> list[tuple[str, str]]:
    """Three shots, all with the feature."""
    kind = "harmful" if feature == "refusal" else None
    shots: list[tuple[str, str]] = []
    while len(shots) < 3:
        question = world.draw_question(rng, kind)
        if kind or not question.harmful:
            shots.append((question.text, world.draw_parts(question, rng).write({feature})))
    return shots


def print_base(asks: Asks) -> None:
    """Per feature: how often it shows without and with its directive, and with three shots alone."""
    print("| feature | off | off, sampled | on | on, sampled | on, new wording | on, as a page | shots |")
    print("|---|---|---|---|---|---|---|---|")
    for feature in FEATURES:
        rng, queries = random.Random(f"base/{feature}"), _queries(feature)
        on = [f"{INITIAL} {rng.choice(DIRECTIVES[feature])}" for _ in queries]
        new = [f"{INITIAL} {rng.choice(HELD_OUT_DIRECTIVES[feature])}" for _ in queries]
        shots = [_shots(feature, rng) for _ in queries]
        arms: list[list[Question]] = [
            [Question(turns(INITIAL, [], query)) for query in queries],
            [Question(turns(INITIAL, [], q), temperature=1.0, seed=n) for n, q in enumerate(queries)],
            [Question(turns(system, [], q)) for system, q in zip(on, queries, strict=True)],
            [
                Question(turns(system, [], q), temperature=1.0, seed=n)
                for n, (system, q) in enumerate(zip(on, queries, strict=True))
            ],
            [Question(turns(system, [], q)) for system, q in zip(new, queries, strict=True)],
            [Question(page=PAGE.text(system, [], q)) for system, q in zip(on, queries, strict=True)],
            [Question(turns(INITIAL, shown, q)) for shown, q in zip(shots, queries, strict=True)],
        ]
        shares = [_share(feature, queries, asks.ask(arm)) for arm in arms]
        print(f"| {feature} | {' | '.join(shares)} |", flush=True)


def print_scores(asks: Asks) -> None:
    """The true score on all held-out questions of the initial prompt and of one with all six directives."""
    rng, queries = random.Random("scores"), world.held_out_queries()
    directives = [rng.choice(DIRECTIVES[feature]) for feature in FEATURES]
    for label, system in (("initial prompt", INITIAL), ("all six", " ".join([INITIAL, *directives]))):
        answers = asks.ask([Question(turns(system, [], query)) for query in queries])
        print(f"true score, {label}: {world.mean_score(dict(zip(queries, answers, strict=True))):.2f}")


def print_run(asks: Asks, run: Path) -> None:
    """The true score on all held-out questions of the initial prompt and of the one found, with its shots."""
    aligned, queries = drpo.load(run), world.held_out_queries()
    for label, system in (("initial prompt", INITIAL), ("found prompt", aligned.alignment.system_prompt)):
        read = [[(m["role"], m["content"]) for m in aligned.messages(query)] for query in queries]
        asked = [Question((("system", system), *shown[1:]), max_tokens=200) for shown in read]
        scores = dict(zip(queries, asks.ask(asked), strict=True))
        print(f"true score, {label}: {world.mean_score(scores):.2f}", flush=True)


@dataclass(frozen=True, slots=True)
class Case:
    """A held-out question, an answer with some features, and the aspects it is judged on."""

    asked: Asked
    features: tuple[str, ...]
    answer: str
    aspects: tuple[str, ...]

    @property
    def right(self) -> dict[str, dict[str, str]]:
        return text.judged(self.asked, self.answer, self.aspects)


def _cases(count: int, weak: bool) -> list[Case]:
    """Cases drawn once and for all; `weak`: at least one aspect needs mending."""
    rng, queries, cases = random.Random(f"cases/{weak}"), world.held_out_queries(), list[Case]()
    while len(cases) < count:
        question = world.asked(queries[len(cases) % len(queries)])
        features = tuple(text.draw_features(rng))
        answer = world.draw_parts(question, rng).write(features)
        case = Case(question, features, answer, tuple(text.fitting_aspects(question)))
        if not weak or text.weak_aspects(case.right):
            cases.append(case)
    return cases


def _aspects(names: Sequence[str]) -> list[Aspect]:
    return [Aspect(entry["name"], entry["definition"]) for entry in text.known_aspects(names)]


def print_judge(asks: Asks, schema: bool) -> None:
    """How many of the judge's scores are right, of those of 120 answers."""
    cases = _cases(120, weak=False)
    replies = asks.ask(
        [
            Question(
                (("user", text.judge_question(case.asked, case.answer, case.aspects)),),
                schema=json.loads(evaluation_schema(_aspects(case.aspects))) if schema else None,
            )
            for case in cases
        ]
    )
    right = total = readable = 0
    for case, reply in zip(cases, replies, strict=True):
        read = read_evaluation(reply, _aspects(case.aspects))
        total += len(case.aspects)
        if isinstance(read, Unreadable):
            continue
        readable += 1
        right += sum(score.score == float(case.right[score.aspect]["score"]) for score in read.scores)
    print(f"judge: readable {readable} of {len(cases)}, scores right {right} of {total}", flush=True)


def print_selector(asks: Asks, schema: bool) -> None:
    """How many selections can be read, and how many are those of the question's kind."""
    queries = world.held_out_queries()
    wanted = json.loads(selection_schema(text.TEMPLATES.book.aspects)) if schema else None
    replies = asks.ask(
        [Question((("user", text.selector_question(query)),), schema=wanted) for query in queries]
    )
    known = text.TEMPLATES.book.aspects
    read = [read_selection(reply, known) for reply in replies]
    readable = sum(not isinstance(selection, Unreadable) for selection in read)
    right = sum(
        not isinstance(selection, Unreadable)
        and [aspect.name for aspect in selection.aspects] == text.fitting_aspects(world.asked(query))
        for query, selection in zip(queries, read, strict=True)
    )
    print(f"selector: readable {readable} of {len(queries)}, right {right}", flush=True)


def print_optimizer(asks: Asks, schema: bool) -> None:
    """Of 120 proposals: readable, the old prompt kept word for word, a directive for a weak aspect."""
    cases, rng = _cases(120, weak=True), random.Random("optimizer")
    prompts = [text.draw_system_prompt(rng, sorted(case.features)) for case in cases]
    wanted = json.loads(rewrite_schema("new_system_prompt")) if schema else None
    questions = []
    for number, (case, system) in enumerate(zip(cases, prompts, strict=True)):
        asked = text.optimizer_question(system, case.asked.text, case.answer, case.right)
        questions.append(Question((("user", asked),), temperature=0.7, seed=number, schema=wanted))
    readable = kept = helped = 0
    for case, system, reply in zip(cases, prompts, asks.ask(questions), strict=True):
        new = read_rewrite(reply, "new_system_prompt")
        if isinstance(new, Unreadable):
            continue
        readable += 1
        kept += new.startswith(system)
        weak = text.weak_aspects(case.right)
        helped += any(
            wording in new and wording not in system
            for feature in FEATURES
            if ASPECTS[feature] in weak
            for wording in DIRECTIVES[feature]
        )
    print(
        f"optimizer: readable {readable} of {len(cases)}, old prompt kept {kept}, helps {helped}", flush=True
    )


def print_rewriter(asks: Asks, schema: bool) -> None:
    """Of 60 rewritten responses: readable, and with a truly higher score."""
    cases = _cases(60, weak=True)
    wanted = json.loads(rewrite_schema("new_response")) if schema else None
    replies = asks.ask(
        [
            Question(
                (("user", text.rewrite_question(case.asked.text, case.answer, case.right)),), schema=wanted
            )
            for case in cases
        ]
    )
    read = [read_rewrite(reply, "new_response") for reply in replies]
    better = sum(
        not isinstance(new, Unreadable)
        and world.score(case.asked.text, new) > world.score(case.asked.text, case.answer)
        for case, new in zip(cases, read, strict=True)
    )
    readable = sum(not isinstance(new, Unreadable) for new in read)
    print(f"rewriter: readable {readable} of {len(cases)}, better {better}", flush=True)


if __name__ == "__main__":
    main()
