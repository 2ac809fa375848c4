"""Settings of a rewriter: what is idle is refused, what decides a rewrite decides which run it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from drpo.bpo.building import build_plan
from drpo.config_bpo import BuildConfig
from drpo.config_judging import EvaluateConfig
from drpo.config_use import GenerateConfig, RewriteConfig
from drpo.errors import InputError
from drpo.measuring.plan import evaluate_plan
from drpo.rewriting.naming import read_rewriter_name
from drpo.rewriting.plan import meaning_embedder
from drpo.rewriting.templates import RewriteTemplates
from drpo.settings import resolve
from drpo.use.plan import use_plan
from drpo.use.rewording import rewrite_plan
from tests.support.command import Shell

MEASURED: dict[str, Any] = {"alignment": "none", "judge": "demo", "model": "demo"}
ENDPOINT = "openai/e@http://127.0.0.1:9/v1"


@pytest.fixture
def queries(tmp_path: Path) -> str:
    (tmp_path / "queries.txt").write_text("\n".join(f"question {n}" for n in range(8)), encoding="utf-8")
    return str(tmp_path / "queries.txt")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rewriter_temperature": 0.3}, "--rewriter-temperature: nothing is rewritten"),
        ({"rewriter_top_p": 0.3}, "--rewriter-top-p: nothing is rewritten"),
        ({"rewriter_mode": "aggressive"}, "--rewriter-mode: nothing is rewritten"),
        ({"rewriter": "none", "lambda_": 2.0}, "--lambda: nothing is rewritten"),
        ({"rewriter": "align-pro/demo", "lambda_": 2.0}, "--lambda: one rewrite is not weighed"),
        ({"rewriter": "align-pro/demo", "pick": "best"}, "--pick: one rewrite is not weighed"),
        ({"rewriter": "bpo-prompt/demo", "rewriter_reward": "dynamic/demo"}, "--rewriter-reward: one"),
        ({"rewriter": "align-pro/demo", "rewriter_mode": "aggressive"}, "--rewriter-mode: only bpo"),
    ],
)
def test_a_setting_of_a_rewriter_without_effect_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as refused:
        evaluate_plan(resolve(EvaluateConfig, {**MEASURED, **settings}, {}), {})
    assert str(refused.value).startswith(said)


def test_what_is_said_as_it_is_by_default_is_no_idle_setting() -> None:
    given = {**MEASURED, "rewriter_mode": "stable", "samples": 1, "pick": "resample", "lambda_": 0.3}
    assert evaluate_plan(resolve(EvaluateConfig, given, {}), {}).rewriting is None


@pytest.mark.parametrize("value", ["inf", "nan", "0", "-1", "1e301", "much"])
def test_a_lambda_that_weighs_nothing_is_refused_by_its_name_everywhere(shell: Shell, value: str) -> None:
    wanted = ("rewrite", "x", "--rewriter", "align-pro/demo", "--samples", "2")
    said = shell.refused(2, *wanted, "--lambda", value)
    assert said.startswith("--lambda (or DRPO_LAMBDA):") or "'--lambda'" in said
    shell.env.setenv("DRPO_LAMBDA", value)
    assert "--lambda" in shell.refused(2, *wanted)


def test_lambda_comes_from_a_variable_or_a_file_under_its_own_name(shell: Shell) -> None:
    shell.write("c.toml", 'lambda = 7.5\nsamples = 2\n[roles.rewriter]\nmodel = "align-pro/demo"\n')
    from_file = resolve(RewriteConfig, {}, {}, shell.folder / "c.toml")
    assert (from_file.lambda_, from_file.samples, from_file.rewriter) == (7.5, 2, "align-pro/demo")
    assert resolve(RewriteConfig, {}, {"DRPO_LAMBDA": "2.5"}, shell.folder / "c.toml").lambda_ == 2.5
    with pytest.raises(InputError, match="did you mean DRPO_LAMBDA"):
        resolve(RewriteConfig, {}, {"DRPO_LAMBDA_": "2.5"})
    shell.write("d.toml", "lamda = 1\n")
    with pytest.raises(InputError, match="did you mean 'lambda"):
        resolve(RewriteConfig, {}, {}, shell.folder / "d.toml")


@pytest.mark.parametrize(
    "changed",
    [
        {"rounds": 2},
        {"rewriter_mode": "aggressive"},
        {"rewriter_temperature": 0.1},
        {"rewriter_top_p": 0.5},
        {"random_seed": 3},
        {"embedder": ENDPOINT},
        {"rewriter": "align-pro/demo"},
        {"rewriter": f"bpo-prompt/{ENDPOINT}"},
    ],
)
def test_what_decides_a_rewrite_decides_which_run_it_is(queries: str, changed: dict[str, Any]) -> None:
    def identities(settings: dict[str, Any]) -> list[dict[str, Any]]:
        rewriter = {"rewriter": "bpo-prompt/demo", **settings}
        measured = resolve(EvaluateConfig, {**MEASURED, "data": queries, **rewriter}, {})
        used = resolve(GenerateConfig, {"model": "demo", "queries": queries, **rewriter}, {})
        alone = resolve(RewriteConfig, {"queries": queries, **rewriter}, {})
        return [
            evaluate_plan(measured, {}).identity,
            use_plan("generate", "none", used, {}).identity,
            rewrite_plan(alone, (), {}).identity,
        ]

    for plain, other in zip(identities({}), identities(changed), strict=True):
        assert plain != other


def test_weighing_has_its_part_in_the_identity(queries: str) -> None:
    def identity(**changed: Any) -> dict[str, Any]:
        given = {"queries": queries, "rewriter": "align-pro/demo", "samples": 3, **changed}
        return rewrite_plan(resolve(RewriteConfig, given, {}), (), {}).identity

    plain = identity()
    changes: list[dict[str, Any]] = [{"samples": 4}, {"lambda_": 1.0}, {"pick": "best"}]
    assert all(identity(**change) != plain for change in changes)
    assert {"rewriter", "evaluator", "selector", "base"} <= plain["models"].keys()


def test_another_template_is_another_run_and_only_of_who_reads_it(queries: str, tmp_path: Path) -> None:
    own = tmp_path / "prompts" / "rewrite"
    own.mkdir(parents=True)
    (own / "improve.j2").write_text("Better: {{ query }} ({{ mode }})", encoding="utf-8")

    def identity(rewriter: str, **changed: Any) -> dict[str, Any]:
        given = {"queries": queries, "rewriter": rewriter, **changed}
        digests: dict[str, Any] = rewrite_plan(resolve(RewriteConfig, given, {}), (), {}).identity["digests"]
        return digests

    for rewriter, is_another in (("bpo-prompt/demo", True), ("align-pro/demo", False)):
        changed = identity(rewriter, prompts=tmp_path / "prompts")
        assert (changed != identity(rewriter)) is is_another


def test_an_embedder_that_holds_rewrites_against_queries_is_the_embedder_of_the_run(queries: str) -> None:
    given = {**MEASURED, "data": queries, "rewriter": "bpo-prompt/demo"}
    for embedder, expected in ((None, ""), ("lexical", ""), (ENDPOINT, ENDPOINT)):
        config = resolve(EvaluateConfig, {**given, "embedder": embedder}, {})
        assert meaning_embedder(config) == expected == evaluate_plan(config, {}).embedder
    without = resolve(EvaluateConfig, {**MEASURED, "data": queries, "embedder": ENDPOINT}, {})
    assert evaluate_plan(without, {}).embedder == ""


def test_a_build_is_told_apart_by_what_it_asks_and_not_by_where_its_file_lies(tmp_path: Path) -> None:
    row = '{"prompt": "Write a note.", "good_res": "A good note.", "bad_res": "A bad one."}\n'
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text(row, encoding="utf-8")

    def identity(**changed: Any) -> dict[str, Any]:
        given = {"pairs": str(tmp_path / "a.jsonl"), "optimizer": "demo", **changed}
        return build_plan(resolve(BuildConfig, given, {}), {}).identity

    plain = identity()
    assert identity(pairs=str(tmp_path / "b.jsonl")) == plain
    sampled = identity(optimizer_temperature=0.7)
    assert plain != sampled != identity(optimizer_temperature=0.7, random_seed=5)
    assert identity(protect=("note",)) != plain
    with pytest.raises(InputError, match="--protect"):
        identity(protect=(" ",))


# Names


def test_a_home_that_nobody_knows_is_a_folder_without_facts() -> None:
    found = read_rewriter_name("bpo/~nobody-of-this-name/my-bpo", RewriteTemplates())
    assert (found.kind, found.format) == ("bpo", "apply")


def test_rewriters_sample_as_published_unless_told_otherwise(
    tmp_path: Path, queries: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def sampling(rewriter: str, **changed: Any) -> tuple[float | None, float | None]:
        given = {"queries": queries, "rewriter": rewriter, **changed}
        found = rewrite_plan(resolve(RewriteConfig, given, {}), (), {}).rewriting.sampling
        return found.temperature, found.top_p

    assert sampling("bpo-prompt/demo") == (0.6, 0.9)
    assert sampling("align-pro/demo") == (1.5, 0.6)
    assert sampling("align-pro/demo", rewriter_temperature=0.0, rewriter_top_p=1.0) == (0.0, 1.0)
