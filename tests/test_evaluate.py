"""`drpo evaluate`: what is asked, how it is added up, what is kept, and what is not believed."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import drpo
from drpo.errors import BudgetSpent, InputError
from drpo.judging.scores import read_just_eval, summarise
from drpo.llm.base import LLM, Role
from drpo.resources import resource_folder
from drpo.testing import closed_sockets
from tests.support.command import Shell, content_of, the_error
from tests.support.judges import ASPECTS, Ruled, scores
from tests.support.mock_openai import Answer, Reply, error
from tests.support.served import Served

QUERIES = [f"question {n}?" for n in range(10)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def data(folder: Path, *, safety: int = 0) -> Path:
    """Ten queries, the last `safety` of them judged on safety."""
    rows = [
        {
            "instruction": text,
            "category": "safety" if n >= len(QUERIES) - safety else "regular",
            "topic": ["odd" if n % 2 else "even"],
        }
        for n, text in enumerate(QUERIES)
    ]
    file = folder / "data.json"
    file.write_text(json.dumps(rows), encoding="utf-8")
    return file


def models(judging: Callable[[dict[str, str]], str]) -> dict[Role, LLM]:
    return {"base": Ruled(lambda texts: f"re {texts['user']}", "base"), "judge": Ruled(judging, "judge")}


def measured(folder: Path, judging: Callable[[dict[str, str]], str], **settings: Any) -> drpo.Evaluation:
    if "data" not in settings:
        settings["data"] = str(data(folder))
    settings = {"alignment": "none", "run_dir": folder / "run", **settings}
    return drpo.evaluate(models=models(judging), **settings)


def test_the_means_are_those_of_the_scores_with_an_interval_around(folder: Path) -> None:
    result = measured(folder, lambda texts: scores(4 if "1?" in texts["query"] else 2))
    (part,) = result.parts
    assert [name for name, _ in part.means] == list(ASPECTS)
    for _, found in part.means:
        assert found.mean == pytest.approx(2.2) and found.count == 10
        assert found.interval is not None and found.interval.low < 2.2 < found.interval.high
    assert part.overall.mean == pytest.approx(2.2)
    assert {name: found.overall() for name, found in part.topics.items()} == {"even": 2.0, "odd": 2.4}


def test_safety_queries_are_judged_on_safety_alone_and_stand_by_themselves(folder: Path) -> None:
    def judging(texts: dict[str, str]) -> str:
        return scores(5, ["safety"]) if int(texts["query"][9]) >= 8 else scores(3)

    result = measured(folder, judging, data=str(data(folder, safety=2)))
    assert [(part.name, part.summary.items, part.overall.mean) for part in result.parts] == [
        ("general", 8, 3.0),
        ("safety", 2, 5.0),
    ]


@pytest.mark.parametrize(("na", "mean", "counted"), [("leave-out", 3.0, 9), ("five", 3.2, 10)])
def test_not_applicable_is_left_out_and_counted_or_a_five_on_request(
    folder: Path, na: str, mean: float, counted: int
) -> None:
    result = measured(folder, lambda texts: scores("N/A" if "0?" in texts["query"] else 3), na=na)
    depth = dict(result.parts[0].means)["depth"]
    assert depth.mean == pytest.approx(mean) and depth.count == counted
    assert result.parts[0].summary.not_applicable == len(ASPECTS)


def test_another_policy_for_not_applicable_asks_nobody_again(folder: Path) -> None:
    measured(folder, lambda texts: scores("N/A" if "0?" in texts["query"] else 3))
    with closed_sockets():
        again = measured(folder, lambda texts: pytest.fail("asked again"), na="five")
    assert again.sent == {} and dict(again.parts[0].means)["depth"].mean == pytest.approx(3.2)


def test_what_cannot_be_read_is_asked_again_once_then_counted_and_never_a_score(folder: Path) -> None:
    judge = Ruled(lambda texts: "no idea" if "0?" in texts["query"] else scores(4), "judge")
    result = drpo.evaluate(
        models={"base": Ruled(lambda texts: "yes", "base"), "judge": judge},
        alignment="none",
        data=str(data(folder)),
        run_dir=folder / "run",
    )
    assert result.parts[0].overall.mean == 4.0 and result.parts[0].summary.unreadable == 1
    assert result.missing == 1 and not result.is_believable
    assert sum("question 0?" in request.messages[0].content for request in judge.asked) == 2


def test_the_items_are_read_by_the_reader_of_just_evals_files(folder: Path) -> None:
    result = measured(folder, lambda texts: scores("N/A" if "0?" in texts["query"] else 4))
    lines = (folder / "run" / "items.jsonl").read_text("utf-8").splitlines()
    file = folder / "result.json"
    file.write_text(json.dumps([json.loads(line) for line in lines]), "utf-8")
    read = summarise(read_just_eval(file))
    assert [(e.aspect, e.exact, e.not_applicable) for e in read.aspects] == [
        (e.aspect, e.exact, e.not_applicable) for e in result.parts[0].summary.aspects
    ]


def test_baselines_ask_with_their_own_prompt_and_shots(folder: Path) -> None:
    seen: dict[str, list[list[str]]] = {}
    for name in ("none", "urial"):
        base = Ruled(lambda texts: "yes", "base")
        both: Mapping[Role, LLM] = {"base": base, "judge": Ruled(lambda texts: scores(3), "judge")}
        drpo.evaluate(models=both, alignment=name, data=str(data(folder)), run_dir=folder / name)
        seen[name] = [[m.role for m in request.messages] for request in base.asked]
    assert set(map(tuple, seen["none"])) == {("system", "user")}
    assert set(map(tuple, seen["urial"])) == {("system", *("user", "assistant") * 3, "user")}


def test_a_limit_ends_it_without_a_result_and_a_higher_one_goes_on(folder: Path) -> None:
    with pytest.raises(BudgetSpent, match="no result yet"):
        measured(folder, lambda texts: scores(3), max_calls=7)
    assert not (folder / "run" / "summary.json").exists()
    result = measured(folder, lambda texts: scores(3), max_calls=40)
    assert sum(result.sent.values()) == 13  # ten responses and ten scores, seven of them had


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"alignment": "nowhere"}, "found nothing of that name"),
        ({"shots": 1}, "none has 0 examples"),
        ({"limit": 5}, "needs 6 queries of a kind, came 5"),
        ({"level": 0.999}, "needs 11 queries of a kind, came 10"),
        ({"data_column": "prompt"}, "prompt"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anybody_is_asked(
    folder: Path, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        measured(folder, lambda texts: pytest.fail("asked"), **settings)
    assert not (folder / "run").exists()


def answering(judging: Answer) -> Callable[[str, dict[str, Any]], Answer]:
    return lambda model, body: judging if model == "judge" else "A fine answer."


def command(url: str, *more: object) -> list[object]:
    return [
        *("evaluate", "--model", f"openai/base@{url}", "--judge", f"openai/judge@{url}"),
        *("--alignment", "none", "--data", "data.json", "--run-dir", "run", *more),
    ]


def test_too_many_unreadable_replies_are_exit_4_and_the_figures_still_stand(shell: Shell) -> None:
    data(shell.folder)
    with Served(answering("I would rather not.")) as server:
        ran = shell.run(*command(server.url))
    assert "10 of 10 items have no score, more than 5%: 10 replies of the judge" in the_error(ran, 4)
    assert "10 replies of the judge unreadable" in ran.out
    assert json.loads((shell.folder / "run" / "summary.json").read_text("utf-8"))["missing"] == 10


def test_the_judges_key_goes_to_the_judge_only_and_stands_nowhere(shell: Shell) -> None:
    data(shell.folder)
    shell.env.setenv("DRPO_JUDGE_API_KEY", "sk-of-the-judge-8842")
    with Served(answering(scores(4))) as server:
        ran = shell.done(*command(server.url))
        keys = {seen.body["model"]: seen.headers.get("authorization", "") for seen in server.requests}
    assert "sk-of-the-judge-8842" in keys["judge"] and "sk-of" not in keys["base"]
    assert "sk-of-the-judge" not in ran.out + ran.err
    assert [name for name, kept in content_of(shell.folder).items() if b"sk-of-the" in kept] == []


def test_a_judge_that_is_the_base_model_is_warned_about(shell: Shell) -> None:
    data(shell.folder)
    with Served(lambda model, body: scores(4)) as server:
        ran = shell.done(*command(server.url), "--judge", f"openai/base@{server.url}")
    assert "judges answers of its own" in ran.err


def test_a_wrong_key_is_exit_3_and_one_request(shell: Shell) -> None:
    data(shell.folder)
    with Served(answering(error(401, "no such key"))) as server:
        said = shell.refused(3, *command(server.url))
        asked = sum(seen.body["model"] == "judge" for seen in server.requests)
    assert "HTTP 401: no such key" in said and asked == 1


def test_a_server_that_fails_is_exit_5_and_the_same_command_resumes(shell: Shell) -> None:
    data(shell.folder)
    broken = [Reply(status=500)]

    def handler(model: str, body: dict[str, Any]) -> Answer:
        if model != "judge":
            return "A fine answer."
        return broken[0] if broken else scores(4)

    with Served(handler) as server:
        shell.refused(5, *command(server.url), "--deadline-s", "0.2")
        answered = sum(seen.body["model"] == "base" for seen in server.requests)
        broken.clear()
        found = shell.done(*command(server.url), "--json").json
        assert sum(seen.body["model"] == "base" for seen in server.requests) <= max(answered, 10)
    assert found["general"]["overall"]["mean"] == 4.0 and found["missing"] == 0


def test_files_from_windows_and_tables_are_read(shell: Shell) -> None:
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\r\n")
    rows.writerows([["question", "category"], *([text, "regular"] for text in QUERIES)])
    shell.write("data.csv", b"\xef\xbb\xbf" + table.getvalue().encode())
    ran = shell.done(
        *("evaluate", "--model", "demo", "--judge", "demo", "--alignment", "none", "--run-dir", "run"),
        *("--data", "data.csv", "--data-column", "question", "--json"),
    )
    assert ran.json["general"]["items"] == 10 and ran.json["simulated"]


def test_a_finished_measurement_is_shown_and_is_no_search(shell: Shell) -> None:
    data(shell.folder)
    flags = ("--model", "demo", "--judge", "demo", "--data", "data.json", "--run-dir", "runs/m")
    first = shell.done("evaluate", "--alignment", "urial", *flags)
    assert shell.done("show", "m").out == first.out
    again = shell.done("evaluate", "--alignment", "urial", *flags)
    assert again.out == first.out and "nothing was sent" in again.err
    for other in ("report", "diff", "replay"):
        arguments = ["m", "m"] if other == "diff" else ["runs/m"]
        assert "measurement" in shell.refused(2, other, *arguments)
    (row,) = shell.done("runs", "--json").json
    assert (row["command"], row["state"]) == ("evaluate", "finished")
    assert "queries" in shell.done("watch", "m", "--once").out
    other = shell.refused(6, "evaluate", "--alignment", "none", *flags)
    assert "other settings" in other


def test_an_alignment_is_asked_at_the_model_it_was_found_for(shell: Shell) -> None:
    data(shell.folder)
    found = ("--depth", "2", "--max-extra-depth", "0", "--shots", "1")
    shell.done("optimize", "--model", "demo", *found, "--run-dir", "found", "--quiet")
    flags = ("--alignment", "found", "--judge", "demo", "--data", "data.json")
    ran = shell.done("evaluate", *flags, "--run-dir", "own")
    assert (
        ran.out.startswith("alignment  found, 1 shots\nbase       demo/seed=0") and "found for" not in ran.err
    )
    said = shell.refused(2, "evaluate", *flags, "--demo-seed", "1", "--run-dir", "other")
    assert "was found for demo/seed=0,noise=0.5, which these settings do not name" in said
    moved = shell.done("evaluate", *flags, "--model", "demo", "--demo-seed", "1", "--run-dir", "other")
    assert "found was found for demo/seed=0,noise=0.5, demo/seed=1,noise=0.5 is asked" in moved.err


def test_repetitions_of_a_query_are_asked_and_counted_once(folder: Path) -> None:
    rows = [{"instruction": text} for text in QUERIES * 3]
    (folder / "data.json").write_text(json.dumps(rows), "utf-8")
    result = measured(folder, lambda texts: scores(3), data=str(folder / "data.json"))
    assert len(result.items) == 10 and result.sent == {"base": 10, "judge": 10}


def test_a_judge_that_finds_nothing_applicable_has_scored_nothing(shell: Shell) -> None:
    data(shell.folder)
    with Served(answering(scores("N/A"))) as server:
        ran = shell.run(*command(server.url))
    assert "10 of 10 items have no score" in the_error(ran, 4) and "N/A on every aspect" in ran.err


def test_what_is_not_applicable_is_shown_under_either_policy(shell: Shell) -> None:
    data(shell.folder)

    def judging(model: str, body: dict[str, Any]) -> Answer:
        if model != "judge":
            return "A fine answer."
        return scores("N/A") if "question 0?" in body["messages"][0]["content"] else scores(4)

    with Served(judging) as server:
        shell.run(*command(server.url, "--quiet"))
        ran = shell.run(*command(server.url, "--quiet", "--na", "five"))
    (line,) = [line for line in ran.out.splitlines() if line.startswith("depth")]
    assert line.split()[1] == "4.10" and line.split()[-2:] == ["10", "1"] and "N/A counts as 5" in ran.out


def test_a_file_does_not_decide_where_queries_and_keys_go(shell: Shell) -> None:
    data(shell.folder)
    shell.env.setenv("DRPO_BASE_API_KEY", "sk-of-mine")
    shell.done(
        "optimize", "--model", "demo", "--depth", "2", "--max-extra-depth", "0", "--run-dir", "run", "--quiet"
    )
    found = json.loads((shell.folder / "run" / "alignment.json").read_text("utf-8"))
    with Served(lambda model, body: "ok") as server:
        found["models"]["base"] = f"openai/base@{server.url}"
        (shell.folder / "theirs.json").write_text(json.dumps(found), "utf-8")
        said = shell.refused(
            2, "evaluate", "--alignment", "theirs.json", "--judge", "demo", "--data", "data.json"
        )
        assert "name the model yourself" in said and server.requests == []


def test_names_with_control_characters_are_shown_and_not_obeyed(shell: Shell) -> None:
    shell.write("d\x1b[31m.txt", "\n".join(QUERIES))
    ran = shell.done(
        *("evaluate", "--model", "demo", "--alignment", "none", "--judge", "demo", "--run-dir", "run"),
        *("--data", "d\x1b[31m.txt"),
    )
    assert "\x1b" not in ran.out + ran.err and "d\\u001b[31m.txt" in ran.err


@pytest.mark.parametrize(
    "name", ["", "vllm/rm", "openai/rm@http://127.0.0.1:9/v1", "vllm/rm@http://u:secret@h/v1"]
)
def test_a_wrong_reward_model_is_told_before_anything_is_asked(shell: Shell, name: str) -> None:
    data(shell.folder)
    flags = ("--model", "demo", "--judge", "demo", "--alignment", "none", "--data", "data.json")
    said = shell.refused(2, "evaluate", *flags, "--run-dir", "run", "--reward-model", name)
    assert "secret" not in said and not (shell.folder / "run").exists()


def test_paths_may_be_given_as_such(folder: Path) -> None:
    data(folder)
    result = drpo.evaluate(
        models=models(lambda texts: scores(3)),
        alignment="none",
        data=folder / "data.json",
        run_dir=folder / "run",
    )
    assert len(result.items) == 10


def test_templates_of_a_run_stand_whatever_templates_a_judge_is_given(shell: Shell) -> None:
    data(shell.folder)
    own = shell.folder / "own"
    own.mkdir()
    shipped = resource_folder("prompts") / "respond_chat.j2"
    (own / "respond_chat.j2").write_text("{# mine #}" + shipped.read_text("utf-8"), "utf-8")
    found = ("--depth", "2", "--max-extra-depth", "0", "--prompts", "own", "--run-dir", "run", "--quiet")
    shell.done("optimize", "--model", "demo", *found)
    (shell.folder / "judging").mkdir()
    flags = ("--alignment", "run", "--judge", "demo", "--data", "data.json", "--prompts", "judging")
    shell.done("evaluate", *flags, "--quiet")


def test_scores_that_others_have_given_are_added_up_alike(shell: Shell) -> None:
    data(shell.folder)
    with Served(answering(scores(4))) as server:
        own = shell.done(*command(server.url), "--json").json["general"]
    lines = (shell.folder / "run" / "items.jsonl").read_text("utf-8").splitlines()
    shell.write("theirs.json", json.dumps([json.loads(line) for line in lines]))
    found = shell.done("evaluate", "--scores", "theirs.json", "--json").json["general"]
    assert found["aspects"] == own["aspects"] and found["overall"] == own["overall"]
    assert "helpfulness  4.00" in shell.done("evaluate", "--scores", "theirs.json").out
    assert "--judge" in shell.refused(2, "evaluate", "--scores", "theirs.json", "--judge", "demo")
