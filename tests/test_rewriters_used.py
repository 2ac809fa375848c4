"""A rewriter before a base model: the model answers the rewrite, shots are found for it, the judge sees the
user's own words; measured, used, resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import openai
import pytest

import drpo
from drpo.config_judging import EvaluateConfig
from drpo.errors import InputError
from drpo.llm.base import LLM, Role
from drpo.measuring.plan import evaluate_plan
from drpo.resources import resource_folder
from drpo.settings import resolve
from drpo.testing import closed_sockets
from tests.support.alignments import written_alignment
from tests.support.command import Shell
from tests.support.judges import Ruled, scores, verdict
from tests.support.mock_openai import MockServer
from tests.support.serving import at, serving

QUERIES = [f"question about number {n} plz" for n in range(8)]


def better(query: str) -> str:
    return f"{query.removesuffix(' plz')}: please explain."


def rewriting(texts: dict[str, str]) -> str:
    return json.dumps({"analysis": "unclear", "rewritten_query": better(texts["query"])})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "queries.txt").write_text("\n".join(QUERIES), encoding="utf-8")
    return tmp_path


def models() -> dict[str, Ruled]:
    return {
        "base": Ruled(lambda texts: f"re {texts['user']}", "base"),
        "judge": Ruled(lambda texts: scores(4), "judge"),
        "rewriter": Ruled(rewriting, "rewriter"),
    }


def as_llms(found: dict[str, Ruled]) -> dict[Role, LLM]:
    return cast("dict[Role, LLM]", found)


def measured(folder: Path, found: dict[str, Ruled], **settings: Any) -> drpo.Evaluation:
    wanted = {"data": str(folder / "queries.txt"), "run_dir": folder / "run", "rewriter": "bpo-prompt/demo"}
    return drpo.evaluate(models=as_llms(found), **{**wanted, **settings})


def test_the_model_answers_the_rewrite_and_the_judge_sees_the_users_own_words(folder: Path) -> None:
    found = models()
    measured(folder, found)
    assert sorted(r.messages[-1].content for r in found["base"].asked) == sorted(map(better, QUERIES))
    for request in found["judge"].asked:
        query = next(query for query in QUERIES if f"\n{query}\n" in request.messages[0].content)
        assert f"re {better(query)}" in request.messages[0].content


def test_the_result_says_what_was_rewritten_and_what_was_not(folder: Path) -> None:
    found = models()
    spoilt = iter(["Sure, it is seven.", "Tell me a joke."])

    def sometimes(texts: dict[str, str]) -> str:
        if texts["query"] in QUERIES[:2]:
            return json.dumps({"rewritten_query": next(spoilt)})
        return rewriting(texts)

    result = measured(folder, {**found, "rewriter": Ruled(sometimes, "rewriter")})
    facts = result.as_dict()["rewriter"]
    assert (facts["queries"], facts["changed"]) == (8, 6) and sum(facts["kept"].values()) == 2
    lines = [json.loads(line) for line in (folder / "run" / "items.jsonl").read_text("utf-8").splitlines()]
    assert [line["rewritten"] for line in lines[2:]] == [better(query) for query in QUERIES[2:]]
    assert {line["kept"] for line in lines[:2]} == {"answered", "lost"}
    assert [line["instruction"] for line in lines] == QUERIES


def test_the_same_measurement_again_asks_nobody(folder: Path) -> None:
    measured(folder, models())
    nobody = {role: Ruled(lambda texts: pytest.fail("asked again"), role) for role in models()}
    with closed_sockets():
        again = measured(folder, nobody)
    assert again.sent == {}


def test_shots_are_found_for_the_rewrite(folder: Path) -> None:
    alignment = written_alignment(folder / "a.json")
    examples = json.loads(alignment.read_text("utf-8"))["examples"]
    wanted = examples[-1]["query"]
    found = models()
    found["rewriter"] = Ruled(
        lambda texts: json.dumps({"rewritten_query": f"{texts['query']}: {wanted}"}), "r"
    )
    measured(folder, found, alignment=str(alignment), shots=1, model=None)
    shown = {request.messages[-3].content for request in found["base"].asked}
    assert shown == {wanted}


def test_a_comparison_rewrites_the_first_side_only(folder: Path) -> None:
    found = models()
    found["judge"] = Ruled(lambda texts: verdict("A" if "explain" in texts["response-a"] else "B"), "judge")
    result = drpo.compare(
        models=as_llms(found),
        rewriter="bpo-prompt/demo",
        against="none",
        data=str(folder / "queries.txt"),
        run_dir=folder / "run",
    )
    assert result.counts.wins == 8
    asked = {request.messages[-1].content for request in found["base"].asked}
    assert asked == {*QUERIES, *map(better, QUERIES)}


def test_without_a_rewriter_a_run_is_what_it_was_before_there_were_any(folder: Path) -> None:
    given = {"alignment": "none", "judge": "demo", "model": "demo", "data": str(folder / "queries.txt")}
    plain = evaluate_plan(resolve(EvaluateConfig, given, {}), {}).identity
    assert not {"rewriter", "rounds", "samples", "lambda_", "pick"} & plain["settings"].keys()
    assert "random_seed" not in plain["settings"] and set(plain["models"]) == {"base", "judge"}
    other = evaluate_plan(resolve(EvaluateConfig, {**given, "rewriter": "bpo-prompt/demo"}, {}), {}).identity
    assert other["models"]["rewriter"] and other["digests"]["rewrite/improve.j2"] and other != plain


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rounds": 3}, "--rounds: nothing is rewritten"),
        ({"rewriter": "bpo-prompt/demo", "samples": 4}, "--samples 4: bpo-prompt draws one rewrite"),
        ({"rewriter": "align-pro/demo", "rounds": 2}, "--rounds 2: align-pro rewrites once"),
        ({"rewriter": "align-pro/openai/x@http://127.0.0.1:9/v1", "samples": 2}, "--rewriter-reward"),
        ({"alignment": None}, "--alignment is missing"),
    ],
)
def test_settings_of_a_rewriter_that_mean_nothing_are_refused(settings: dict[str, Any], said: str) -> None:
    given = {"alignment": "none", "judge": "demo", "model": "demo", **settings}
    with pytest.raises(InputError) as refused:
        evaluate_plan(resolve(EvaluateConfig, given, {}), {})
    assert said in str(refused.value)


# Used


async def test_a_server_rewrites_the_first_query_of_a_conversation_once(tmp_path: Path) -> None:
    alignment = written_alignment(tmp_path / "bees.json")

    def handler(model: str, body: dict[str, Any]) -> str:
        last = body["messages"][-1]["content"]
        query = next((query for query in QUERIES if f"\n{query}\n" in last), None)
        return rewriting({"query": query}) if model == "writer" and query else "An answer."

    async with MockServer(handler) as upstream:
        wanted = at(upstream.url, alignment, rewriter=f"bpo-prompt/openai/writer@{upstream.url}")
        async with (
            serving(**wanted) as running,
            openai.AsyncOpenAI(base_url=running.url, api_key="k", max_retries=0) as client,
        ):
            first: list[Any] = [{"role": "user", "content": QUERIES[0]}]
            turns = [{"role": "assistant", "content": "An answer."}, {"role": "user", "content": "And why?"}]
            for messages in (first, [*first, *turns]):
                await client.chat.completions.create(model="bees", messages=messages)
            bodies = upstream.bodies()
    asked = [body for body in bodies if body["model"] == "m"]
    assert len(bodies) - len(asked) == 1
    assert [m["content"] for m in asked[0]["messages"]][-1] == better(QUERIES[0])
    assert [m["content"] for m in asked[1]["messages"]][-3:] == [better(QUERIES[0]), "An answer.", "And why?"]
    assert asked[1]["messages"][: len(asked[0]["messages"])] == asked[0]["messages"]


def test_generate_writes_down_what_the_model_read(shell: Shell) -> None:
    shell.write("queries.txt", "\n".join(QUERIES))
    flags = ("--model", "demo", "--rewriter", "bpo-prompt/demo", "--run-dir", "g", "--quiet")
    shell.done("generate", "none", "--in", "queries.txt", *flags)
    lines = [json.loads(line) for line in (shell.folder / "g" / "answers.jsonl").read_text().splitlines()]
    assert [line["query"] for line in lines] == QUERIES
    assert sum(line["rewritten"] != line["query"] for line in lines) >= 4


def test_rewriting_in_the_simulated_world_makes_better_answers(shell: Shell) -> None:
    data = resource_folder("seeds") / "rewriting_heldout.jsonl"
    means = {}
    for name in ("none", "bpo-prompt/demo"):
        flags = ("--model", "demo", "--judge", "demo", "--data", data, "--limit", "60", "--json", "--quiet")
        ran = shell.done("evaluate", "--alignment", "none", "--rewriter", name, *flags)
        means[name] = json.loads(ran.out)["general"]["overall"]["mean"]
    assert means["bpo-prompt/demo"] > means["none"] + 0.2


# drpo rewrite


def test_a_few_queries_leave_no_run_behind(shell: Shell) -> None:
    ran = shell.done("rewrite", "tell me stuff about bees plz", "--rewriter", "bpo-prompt/demo", "--quiet")
    assert ran.out.strip() and not (shell.folder / "runs").exists()


def test_a_file_of_queries_is_a_run_that_resumes(shell: Shell) -> None:
    shell.write("queries.txt", "\n".join(QUERIES))
    flags = ("--in", "queries.txt", "--rewriter", "bpo-prompt/demo", "--out", "o.jsonl", "--run-dir", "r")
    shell.done("rewrite", *flags)
    first = (shell.folder / "o.jsonl").read_bytes()
    again = shell.done("rewrite", *flags)
    assert "nothing was sent" in again.err and (shell.folder / "o.jsonl").read_bytes() == first
    assert [json.loads(line)["query"] for line in first.splitlines()] == QUERIES


def test_weighed_rewrites_are_told_with_their_weights(shell: Shell) -> None:
    wanted = ("--rewriter", "align-pro/demo", "--samples", "8", "--lambda", "0.3", "--json", "--quiet")
    ran = shell.done("rewrite", "how do i bake a bread plz", *wanted)
    line = json.loads(ran.out)
    assert line["rewritten"] == line["weighed"][0]["text"]
    assert sum(one["weight"] for one in line["weighed"]) == pytest.approx(1.0)
    by_reward = sorted(line["weighed"], key=lambda one: -one["reward"])
    assert by_reward[0]["reward"] > by_reward[-1]["reward"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rewrite", "x"), "--rewriter is missing"),
        (("rewrite", "--rewriter", "bpo-prompt/demo"), "expected a query"),
        (("rewrite", " ", "--rewriter", "bpo-prompt/demo"), "expected a query"),
        (("rewrite", "x", "--in", "y", "--rewriter", "bpo-prompt/demo"), "came both"),
        (("rewrite", "x", "--rewriter", "bpo/demo"), "demo was not trained"),
    ],
)
def test_what_cannot_be_rewritten_is_one_line_and_exit_2(
    shell: Shell, arguments: tuple[str, ...], said: str
) -> None:
    ran = shell.run(*arguments)
    assert ran.code == 2 and said in ran.err and ran.err.count("\n") == 1


def test_a_set_for_fine_tuning_has_the_words_that_were_answered_or_the_users_own(shell: Shell) -> None:
    shell.write("queries.txt", "\n".join(QUERIES))
    flags = ("--model", "demo", "--rewriter", "bpo-prompt/demo", "--run-dir", "g", "--quiet")
    prompts = {}
    for which in ("rewritten", "query"):
        sft = ("--sft", f"{which}.jsonl", "--sft-prompt", which)
        shell.done("generate", "none", "--in", "queries.txt", *flags, *sft)
        lines = [json.loads(line) for line in (shell.folder / f"{which}.jsonl").read_text().splitlines()]
        assert all(line["completion"][0]["role"] == "assistant" for line in lines)
        prompts[which] = [line["prompt"][0]["content"] for line in lines]
    answers = [json.loads(line) for line in (shell.folder / "g" / "answers.jsonl").read_text().splitlines()]
    assert prompts["query"] == QUERIES
    assert prompts["rewritten"] == [answer["rewritten"] for answer in answers] != QUERIES


def test_a_file_of_queries_needs_no_name_for_its_run(shell: Shell) -> None:
    shell.write("queries.txt", QUERIES[0])
    shell.done("rewrite", "--in", "queries.txt", "--rewriter", "bpo-prompt/demo", "--quiet")
    (run,) = (shell.folder / "runs").iterdir()
    assert run.name.startswith("rewrite-demo-")
    assert "demo/seed=0" in shell.done("runs", "--json").out


async def test_a_rewrite_that_was_cut_is_none(tmp_path: Path) -> None:
    from drpo.ask import Asker
    from drpo.llm.base import Choice, Completion, Message, Request
    from drpo.templates import Templates
    from drpo.testing import ScriptedLLM
    from drpo.types import Failed

    cut = Completion((Choice("tell me about bees and also the", "length"),))
    request = Request("m", messages=(Message("user", "x"),))
    assert isinstance(await Asker(ScriptedLLM([cut]), Templates(), 0, whole=True).ask(request, str), Failed)
    assert (
        await Asker(ScriptedLLM([cut]), Templates(), 0).ask(request, str) == "tell me about bees and also the"
    )
