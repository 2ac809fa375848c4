"""Who plays which role, which key goes where, and where a run lives."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from drpo.choices import choose_models
from drpo.config import ExamplesConfig, OptimizeConfig
from drpo.errors import InputError
from drpo.llm.base import SEARCH_ROLES, Completion, Request, Role
from drpo.llm.catalog import strong_model
from drpo.plan import Plan, default_name, examples_plan, optimize_plan, run_path
from drpo.settings import resolve
from drpo.testing import ScriptedLLM

KEY = {"OPENAI_API_KEY": "sk-secret"}
STRONG = f"openai/{strong_model().name}"
LOCAL, PROXY = "http://127.0.0.1:8000/v1", "https://proxy.example/v1"


def config(**given: Any) -> OptimizeConfig:
    return resolve(OptimizeConfig, {"model": "demo", **given}, {})


def plan(**given: Any) -> Plan:
    return optimize_plan(config(**given), {}) if given else default_plan()


@functools.cache
def default_plan() -> Plan:
    return optimize_plan(config(), {})


def identities(environment: Mapping[str, str], custom: Any = None, **given: Any) -> dict[str, str]:
    models = choose_models(config(**given), environment, custom or {})
    return {role: choice.identity for role, choice in models.items()}


def keys(role: Role, environment: Mapping[str, str], **given: Any) -> tuple[str, ...]:
    return choose_models(config(**given), environment, {})[role].key_variables


def test_demo_plays_every_role_and_needs_nothing() -> None:
    models = choose_models(config(), {}, {})
    assert {choice.identity for choice in models.values()} == {"demo/seed=0,noise=0.5"}
    assert tuple(models) == SEARCH_ROLES
    assert plan().simulated
    assert plan().embedder == "lexical"


def test_demo_stays_demo_where_a_key_is_set() -> None:
    assert set(identities(KEY).values()) == {"demo/seed=0,noise=0.5"}


def test_a_real_base_model_gets_the_strong_one_where_a_key_is_set() -> None:
    found = identities(KEY, model="openai/x")
    assert found == {"base": "openai/x", "optimizer": STRONG, "evaluator": STRONG, "selector": STRONG}


def test_without_any_choice_it_is_said_how_to_choose() -> None:
    with pytest.raises(
        InputError, match=r"--optimizer and --evaluator.*OPENAI_API_KEY.*--model demo"
    ) as caught:
        identities({}, model=f"vllm/x@{LOCAL}")
    assert caught.value.exit_code == 2


def test_evaluator_and_selector_follow_who_stands_before_them() -> None:
    assert identities(KEY, model="openai/x", optimizer="openai/o") == {
        "base": "openai/x",
        "optimizer": "openai/o",
        "evaluator": "openai/o",
        "selector": "openai/o",
    }
    found = identities({}, model="openai/x", optimizer="openai/o", evaluator="openai/e")
    assert (found["optimizer"], found["evaluator"], found["selector"]) == ("openai/o", "openai/e", "openai/e")
    assert identities({}, optimizer="openai/o", selector="openai/s")["selector"] == "openai/s"


def test_one_model_stands_for_every_role_of_the_examples() -> None:
    given = resolve(ExamplesConfig, {"model": "openai/x", "evaluator": "openai/e"}, {})
    found = {role: choice.identity for role, choice in examples_plan(given, {}).models.items()}
    assert found == {"optimizer": "openai/x", "evaluator": "openai/e", "selector": "openai/e"}
    with pytest.raises(InputError, match="no optimizer is chosen"):
        examples_plan(resolve(ExamplesConfig, {}, {}), {})


def test_an_object_of_the_users_own_plays_its_role_and_those_that_follow() -> None:
    own = ScriptedLLM([], name="mine")
    found = choose_models(config(model="openai/x"), {}, {"optimizer": own})
    assert [found[role].identity for role in SEARCH_ROLES] == ["openai/x", *["custom/mine"] * 3]
    assert found["evaluator"].custom is own
    found = choose_models(config(optimizer="demo", evaluator="openai/e"), {}, {"evaluator": own, "base": own})
    assert (found["evaluator"].custom, found["base"].custom) == (own, own)
    assert found["selector"].identity == "custom/mine"


def test_an_object_without_a_name_is_known_by_its_class() -> None:
    class Mine:
        async def complete(self, request: Request) -> Completion:
            raise NotImplementedError

    identity = identities({}, {"optimizer": Mine()}, model="openai/x")["optimizer"]
    assert identity.startswith("custom/")
    assert identity.endswith("Mine")
    assert "0x" not in identity


def test_an_object_that_is_no_model() -> None:
    with pytest.raises(InputError, match="async complete"):
        identities({}, {"optimizer": 5})


def test_an_own_reward_needs_no_evaluator() -> None:
    found = choose_models(config(model="openai/x", optimizer="openai/o"), {}, {}, "my.reward")
    assert (found["evaluator"].identity, found["selector"].identity) == ("reward/my.reward",) * 2
    assert found["evaluator"].key_variables == ()


NAMES = [
    *("gpt-4o", "openai/x", "openai/x@https://api.openai.com/v1", f"openai/x@{LOCAL}", f"openai/x@{PROXY}/"),
    *(f"vllm/x@{LOCAL}", f"vllm/x@{PROXY}", f"mistral-7b@{LOCAL}", "vllm/x@https://api.openai.com/v1"),
]
BASE_URLS = (None, PROXY, f"{PROXY}/", "HTTPS://Proxy.example:443/v1", "https://api.openai.com/v1/", LOCAL)


@pytest.mark.parametrize(("name", "base_url"), [*itertools.product(NAMES, BASE_URLS)])
@pytest.mark.parametrize("role", SEARCH_ROLES)
def test_openais_key_goes_to_openai_or_openai_base_url_alone(
    role: Role, name: str, base_url: str | None
) -> None:
    environment = {**KEY, **({"OPENAI_BASE_URL": base_url} if base_url else {})}
    choice = choose_models(config(**{"model" if role == "base" else role: name}), environment, {})[role]
    own = {"https://api.openai.com/v1"} | ({PROXY} if "roxy" in (base_url or "") else set())
    own |= {LOCAL} if base_url == LOCAL else set()
    if choice.provider == "openai" and choice.urls and set(choice.urls) <= own:
        assert choice.key_variables == ("OPENAI_API_KEY",)
    else:
        assert "OPENAI_API_KEY" not in choice.key_variables
        assert choice.key_variables[0] == f"DRPO_{role.upper()}_API_KEY"
        assert ("VLLM_API_KEY" in choice.key_variables) == (choice.provider == "vllm")


def test_who_follows_another_role_has_its_key_after_its_own() -> None:
    given = {"model": "openai/x", "optimizer": f"vllm/o@{LOCAL}"}
    assert keys("optimizer", KEY, **given) == ("DRPO_OPTIMIZER_API_KEY", "VLLM_API_KEY")
    assert keys("evaluator", KEY, **given) == (
        "DRPO_EVALUATOR_API_KEY",
        "DRPO_OPTIMIZER_API_KEY",
        "VLLM_API_KEY",
    )
    assert keys("evaluator", KEY, evaluator=f"vllm/o@{LOCAL}", **given) == (
        "DRPO_EVALUATOR_API_KEY",
        "VLLM_API_KEY",
    )
    assert keys("selector", KEY, model="openai/x", optimizer="openai/o") == ("OPENAI_API_KEY",)


def test_a_file_may_name_the_variable_of_a_role() -> None:
    roles = {"optimizer": {"api_key_env": "MY_KEY"}, "selector": {"api_key_env": "OTHER"}}
    given = {"model": "openai/x", "optimizer": f"openai/o@{LOCAL}", "roles": roles}
    assert keys("optimizer", KEY, **given) == ("MY_KEY",)
    assert keys("evaluator", KEY, **given) == ("DRPO_EVALUATOR_API_KEY", "MY_KEY")
    assert keys("selector", KEY, **given) == ("OTHER",)
    assert keys("base", KEY, **given) == ("OPENAI_API_KEY",)


def test_one_model_at_one_endpoint_is_one_identity() -> None:
    def identity(name: str, base_url: str = "") -> str:
        return identities({"OPENAI_BASE_URL": base_url}, model=name, optimizer="demo")["base"]

    assert identity("openai/x") == "openai/x"
    assert identity("openai/x@https://API.openai.com:443/v1/") == "openai/x"
    assert identity("openai/x", "https://api.openai.com/v1/") == "openai/x"
    assert identity("openai/x", f"{PROXY}/") == identity(f"openai/x@{PROXY}") == f"openai/x@{PROXY}"
    assert identity("openai/x@https://api.openai.com/v1", PROXY) == "openai/x"


def test_a_wrong_base_url_is_told_by_its_name() -> None:
    for wrong in ("localhost:8000", "https://user:pw@host/v1"):
        with pytest.raises(InputError, match="OPENAI_BASE_URL") as caught:
            identities({**KEY, "OPENAI_BASE_URL": wrong}, model="openai/x")
        assert "pw" not in str(caught.value)


def test_a_vllm_model_without_an_address_is_served_by_drpo() -> None:
    choice = choose_models(config(model="mistral-7b"), KEY, {})["base"]
    assert choice.identity == "vllm/mistralai/Mistral-7B-v0.1"
    assert choice.server is not None and choice.server.weights_gb == 14.5
    assert not choice.urls and not choice.key_variables


def test_flags_for_a_server_that_drpo_does_not_start_are_refused() -> None:
    given = {"model": "vllm/a/b@http://127.0.0.1:8000/v1", "vllm_arg": ("dtype=half",)}
    with pytest.raises(InputError, match=r"--vllm-arg.*vllm/a/b"):
        choose_models(config(**given), KEY, {})


def test_more_shots_than_examples(tmp_path: Path) -> None:
    file = tmp_path / "examples.jsonl"
    file.write_text('{"query": "a", "response": "b"}\n', encoding="utf-8")
    assert plan(shots=1, examples=file).inputs.examples.examples[0].query == "a"
    with pytest.raises(InputError, match=r"--shots 2: .*examples\.jsonl has 1 example"):
        plan(shots=2, examples=file)


def test_where_a_run_lives() -> None:
    assert run_path(plan(run_dir="a/b")) == Path("a/b")
    with pytest.raises(InputError, match="give one of them"):
        run_path(plan(run_dir="a/b", name="n"))
    assert run_path(plan(name="n", runs_dir="r")) == Path("r/n")
    assert run_path(plan()) == Path("runs") / default_name(plan())


@pytest.mark.parametrize("order", ["given", "shuffled"])
def test_the_order_of_queries_is_the_settings(order: str) -> None:
    def texts(order: str) -> list[str]:
        inputs = plan(order=order).inputs
        return [query.text for query in (*inputs.queries, *inputs.kept)]

    queries, given = texts(order), texts("given")
    assert queries == texts(order)
    assert (queries == given) == (order == "given")
    assert sorted(queries) == sorted(given)
