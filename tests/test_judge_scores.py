"""Means and counts come out as just-eval publishes them, from files of its shape, with either N/A policy."""

from __future__ import annotations

import json
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drpo.errors import InputError
from drpo.judging.scores import (
    AspectMean,
    Judged,
    by_task,
    by_topic,
    item_mean,
    read_just_eval,
    summarise,
)
from drpo.types import AspectScore

GENERAL = ("helpfulness", "clarity", "factuality", "depth", "engagement")


def result_file(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Items as just-eval writes them: scores as texts or numbers, some "N/A", some never parsed."""
    rng = random.Random(seed)
    items: list[dict[str, Any]] = []
    for number in range(count):
        parsed = {
            name: {"reason": "because", "score": rng.choice(["1", "2", "3", 4, "4", "5", 5, 5.0, "N/A"])}
            for name in GENERAL
        }
        item = {
            "id": number,
            "input": "why?",
            "output_cand": "word " * rng.randint(0, 300),
            "generator_cand": "model",
            "eval_config": {"mode": "score_multi", "gpt": "judge", "max_words": -1},
            "prompt": "Please judge",
            "result": json.dumps(parsed),
            "parsed_result": parsed,
        }
        if rng.random() < 0.05:
            item["result"] = "N/A"
            del item["parsed_result"]
        items.append(item)
    return items


def written(folder: Path, items: object, name: str = "results.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(items), encoding="utf-8")
    return path


def just_evals_report(items: list[dict[str, Any]]) -> dict[str, float]:
    """The figures of its report (floats, numpy's mean, "N/A" as 5), written again from its description."""
    scores: dict[str, list[float]] = {}
    lengths = []
    for item in items:
        if "parsed_result" in item:
            lengths.append(len(item["output_cand"].split()))
            for aspect, result in item["parsed_result"].items():
                told = 5.0 if result["score"] == "N/A" else float(result["score"])
                scores.setdefault(aspect, []).append(told)
    means = {aspect: float(np.mean(own)) for aspect, own in scores.items()}
    return {**means, "total": len(lengths), "length": float(np.mean(lengths))}


@pytest.mark.parametrize("count", [1, 7, 800])
def test_with_the_policy_five_the_published_figures_come_out_to_the_last_bit(
    tmp_path: Path, count: int
) -> None:
    items = result_file(count)
    read = read_just_eval(written(tmp_path, items))
    summary = summarise(read, "five")
    published = just_evals_report(items)
    assert [entry.aspect for entry in summary.aspects] == list(GENERAL)
    for aspect in GENERAL:
        assert summary.mean(aspect) == published[aspect]
    assert summary.scored == published["total"]
    assert summary.items == count and summary.failed == count - summary.scored
    assert summarise([item for item in read if item.scores]).mean_words == published["length"]
    assert f"{summary.overall():.2f}" == f"{sum(published[a] for a in GENERAL) / 5:.2f}"


def test_with_the_default_policy_not_applicable_is_in_no_mean_and_counted(tmp_path: Path) -> None:
    items = result_file(300, seed=1)
    summary = summarise(read_just_eval(written(tmp_path, items)))
    for entry in summary.aspects:
        told = [i["parsed_result"][entry.aspect]["score"] for i in items if "parsed_result" in i]
        numbers = [float(score) for score in told if score != "N/A"]
        assert entry.mean == float(np.mean(numbers))
        assert (entry.counted, entry.not_applicable) == (len(numbers), len(told) - len(numbers))
    assert summary.not_applicable == sum(entry.not_applicable for entry in summary.aspects) > 0


def judged(name: str, *scores: float | None, **labels: Any) -> Judged:
    own = tuple(AspectScore(aspect, score, "") for aspect, score in zip(GENERAL, scores, strict=False))
    return Judged(name, "scored", own, **labels)


def test_the_overall_mean_is_the_mean_of_the_unrounded_aspect_means() -> None:
    safety = Judged("s", "scored", (AspectScore("safety", 1, ""),))
    items = [judged("a", 5, 1), judged("b", 5, 2), judged("c", 4, 2), safety]
    summary = summarise(items)
    assert summary.overall() == float((Fraction(14, 3) + Fraction(5, 3) + 1) / 3)
    assert summary.overall(GENERAL) == float((Fraction(14, 3) + Fraction(5, 3)) / 2)
    assert summary.overall(["depth"]) is None and summary.mean("depth") is None


def test_the_overall_mean_of_the_published_table_comes_out() -> None:
    # DRPO, Table 1, Mistral 7b: five aspect means and their average, as printed.
    for means, average in (
        ((4.23, 4.56, 3.97, 3.68, 3.84), "4.06"),
        ((2.20, 2.51, 2.29, 1.69, 1.80), "2.10"),
    ):
        assert f"{summarise([judged('x', *means)]).overall():.2f}" == average


def test_an_aspect_on_which_nothing_applied_has_no_mean_and_is_not_in_the_overall_one() -> None:
    items = [judged("a", 4, None), judged("b", 2, None)]
    assert summarise(items).aspects[1] == AspectMean("clarity", Fraction(0), 0, 2)
    assert summarise(items).mean("clarity") is None
    assert summarise(items).overall() == 3.0
    assert summarise(items, "five").overall() == 4.0
    assert summarise([judged("a", None)]).overall() is None
    assert summarise([]).overall() is None and summarise([]).missing_share == 0.0


def test_unreadable_and_failed_items_are_counted_and_never_zero() -> None:
    items = [judged("a", 4), Judged("b", "unreadable"), Judged("c", "failed"), Judged("d", "failed")]
    summary = summarise(items)
    assert (summary.items, summary.scored, summary.unreadable, summary.failed) == (4, 1, 1, 2)
    assert summary.mean("helpfulness") == 4.0 and summary.missing_share == 0.75
    assert summary.mean_words is None


def test_sums_do_not_depend_on_the_order_of_the_items() -> None:
    items = [judged(str(i), s) for i, s in enumerate((1.1, 1e-9 + 2, 4.7, 3.3, 1.0000001))]
    total = summarise(items).aspects[0].total
    for seed in range(5):
        random.Random(seed).shuffle(items)
        assert summarise(items).aspects[0].total == total


def test_topics_and_tasks_have_summaries_of_their_own_and_an_item_counts_in_each_of_its_own() -> None:
    items = [
        judged("a", 5, topics=("STEM",), tasks=("Math", "Coding")),
        judged("b", 2, topics=("Ethics",), tasks=("Math",)),
        judged("c", None, topics=("STEM", "STEM")),
        Judged("d", "failed", topics=("STEM",)),
    ]
    topics, tasks = by_topic(items), by_task(items)
    assert list(topics) == ["Ethics", "STEM"] and list(tasks) == ["Coding", "Math"]
    assert tasks["Math"].overall() == 3.5 and tasks["Coding"].overall() == 5.0
    assert (topics["STEM"].items, topics["STEM"].failed, topics["STEM"].not_applicable) == (3, 1, 1)
    assert by_topic(items, "five")["STEM"].overall() == 5.0


def test_the_mean_of_one_response_follows_the_policy() -> None:
    item = judged("a", 4, 3, None)
    assert item_mean(item) == Fraction(7, 2) and item_mean(item, "five") == 4
    assert item_mean(item, aspects=["clarity"]) == 3 and item_mean(item, aspects=["factuality"]) is None
    assert item_mean(Judged("b", "failed")) is None


def test_what_a_result_file_says_of_its_items_is_kept(tmp_path: Path) -> None:
    score = {"safety": {"reason": "declines \ud800", "score": "n/a"}}
    items = [
        {"id": "x", "output_cand": "two  words", "parsed_result": score, "topic": ["a", "b"], "task": "c"},
        {"parsed_result": score},
        {"result": "no JSON"},
        {"result": "N/A", "parsed_result": None},
    ]
    first, second, third, fourth = read_just_eval(written(tmp_path, items))
    said = (AspectScore("safety", None, "declines ?"),)
    assert first == Judged("x", "scored", said, ("a", "b"), ("c",), 2)
    assert second == Judged("1", "scored", said)
    assert (third.outcome, fourth.outcome) == ("unreadable", "failed")
    lines = tmp_path / "results.jsonl"
    lines.write_text("\n".join(map(json.dumps, items)), encoding="utf-8")
    assert read_just_eval(lines)[1:] == (second, third, fourth)


GOOD: dict[str, Any] = {"id": 1, "parsed_result": {"depth": {"reason": "r", "score": "3"}}}


def scored(score: object) -> dict[str, Any]:
    return {"parsed_result": {"depth": {"reason": "r", "score": score}}}


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (3, "expected an object with a parsed_result, came 3"),
        ({"id": 1}, "expected a parsed_result, came only 'id'"),
        ({}, "came only an empty object"),
        ({"parsed_result": "N/A"}, "expected a parsed_result with aspects, came 'N/A'"),
        ({"parsed_result": {}}, "expected a parsed_result with aspects"),
        ({"parsed_result": {"depth": "3"}}, 'aspect "depth": expected an object with a "score"'),
        ({"parsed_result": {"de\npth": {}}}, 'aspect "de\\npth": expected'),
        (scored("6"), 'has the score "6"; a whole number from 1 to 5'),
        (scored(0), "has the score 0"),
        (scored(None), "has the score null"),
        (scored(True), "has the score true"),
        (scored(float("nan")), "has the score NaN"),
        ({**GOOD, "id": None}, "expected an id"),
        ({**GOOD, "output_cand": 3}, "expected a text in output_cand"),
        ({**GOOD, "topic": [3]}, "expected a text or a list of texts in topic"),
    ],
)
def test_a_wrong_shape_is_told_with_file_and_item(tmp_path: Path, item: object, said: str) -> None:
    path = written(tmp_path, [GOOD, item])
    with pytest.raises(InputError) as caught:
        read_just_eval(path)
    assert str(caught.value).startswith(f"{path}, item 2") and said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("value", "said"), [([], "at least one item"), ({"a": 1}, "expected a JSON list")])
def test_a_file_without_items_is_told(tmp_path: Path, value: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_just_eval(written(tmp_path, value))
