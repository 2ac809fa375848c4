"""The forecast of a measurement covers what comes of it, also of one that is half recorded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from drpo.commands.dry_run_facts import DryRun
from drpo.commands.dry_run_measuring import look_ahead_measuring
from drpo.config_judging import AuditConfig, CompareConfig, EvaluateConfig
from drpo.errors import BudgetSpent
from drpo.estimate.ranges import Range
from drpo.estimate.roles import Recorded, RoleForecast, read_recorded
from drpo.judging.audit import questions
from drpo.judging.cases import read_cases, shipped_judge_cases
from drpo.llm.ledger import LEDGER_NAME, read_ledger
from drpo.measuring.auditing import run_audit
from drpo.measuring.comparing import run_compare
from drpo.measuring.evaluating import run_evaluate
from drpo.measuring.forecasting import MeasuringForecast
from drpo.measuring.plan import MeasuringPlan, audit_plan, compare_plan, evaluate_plan
from drpo.run import Hooks
from drpo.settings import resolve
from drpo.testing import closed_sockets

PRICES = ("base=0.5/1.5", "judge=2/8")
FAR = "openai/far@http://127.0.0.1:1/v1"
FEW = 12
COMMANDS: Mapping[str, Any] = {
    "evaluate": (EvaluateConfig, evaluate_plan, run_evaluate),
    "compare": (CompareConfig, compare_plan, run_compare),
    "audit-judge": (AuditConfig, audit_plan, run_audit),
}
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "the plain prompt": ("evaluate", {"alignment": "none"}),
    "fixed shots, another world": ("evaluate", {"alignment": "urial", "demo_seed": 3}),
    "shots of a search": ("evaluate", {"alignment": "found"}),
    "fewer shots": ("evaluate", {"alignment": "found", "shots": 1}),
    "equal queries": ("evaluate", {"alignment": "none", "data": "twice.txt", "limit": None}),
    "replies cut, two repairs": ("evaluate", {"alignment": "none", "max_tokens": 40, "repairs": 2}),
    "responses cut, no repairs": ("evaluate", {"alignment": "none", "base_max_tokens": 5, "repairs": 0}),
    "two prompts": ("compare", {"alignment": "urial", "against": "none"}),
    "pairs, replies cut": ("compare", {"alignment": "found", "against": "urial", "max_tokens": 16}),
    "an audit": ("audit-judge", {}),
    "an audit, replies cut": ("audit-judge", {"max_tokens": 30, "demo_judge": "first"}),
}
HALFWAY = ("the plain prompt", "two prompts", "an audit, replies cut")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the result of a search, queries of which some are equal, and a few cases."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        from drpo import optimize

        optimize(
            model="demo", depth=2, width=1, samples=1, max_extra_depth=0, validate=0, run_dir=folder / "found"
        )
    (folder / "twice.txt").write_text("\n".join([f"What is {n % 9}?" for n in range(14)]), encoding="utf-8")
    cases = shipped_judge_cases().read_text("utf-8").splitlines()
    (folder / "cases.jsonl").write_text("\n".join([cases[0], cases[40], cases[-1]]), encoding="utf-8")
    return folder


def planned(command: str, world: Path, run: Path, **given: Any) -> MeasuringPlan:
    config, plan, _ = COMMANDS[command]
    settings: dict[str, Any] = {"judge": "demo", "price": PRICES, "run_dir": run, **given}
    if command == "audit-judge":
        settings = {"cases": world / "cases.jsonl", **settings}
    else:
        settings = {"model": "demo", "limit": FEW, **settings}
    for name in ("alignment", "against", "data"):
        if (world / str(settings.get(name))).exists():
            settings[name] = str(world / settings[name])
    found: MeasuringPlan = plan(resolve(config, settings, {}), {})
    return found


def ahead(plan: MeasuringPlan) -> DryRun:
    with closed_sockets():
        return look_ahead_measuring(plan, {}, {}, None)


def do(command: str, plan: MeasuringPlan) -> None:
    asyncio.run(COMMANDS[command][2](plan, {}, Hooks()))


def covers(said: Range, real: float) -> bool:
    return said.least - 1e-9 <= real and (said.most is None or real <= said.most + 1e-9)


def outside(roles: tuple[RoleForecast, ...], real: Recorded, usd: Mapping[str, float]) -> list[str]:
    """The figures that a forecast of whole runs does not cover."""
    found = []
    for role in roles:
        assert role.usd is not None
        usage = real.usage.get(role.role)
        figures = {
            "calls": (role.calls, real.calls.get(role.role, 0)),
            "read": (role.prompt_tokens, usage.prompt_tokens if usage else 0),
            "written": (role.completion_tokens, usage.completion_tokens if usage else 0),
            "usd": (role.usd, usd.get(role.role, 0.0)),
        }
        found += [
            f"{role.role} {name} {came}, said {said}"
            for name, (said, came) in figures.items()
            if not covers(said, came)
        ]
    return found


def spent(run: Path) -> dict[str, float]:
    return {role: one.usd for role, one in read_ledger(run / LEDGER_NAME).items()}


# The forecast against what comes


@pytest.mark.parametrize("name", [name for name in SETTINGS if name not in HALFWAY])
def test_the_range_covers_calls_tokens_and_cost_of_a_measurement(
    name: str, world: Path, tmp_path: Path
) -> None:
    command, given = SETTINGS[name]
    plan = planned(command, world, tmp_path / "run", **given)
    before = ahead(plan)
    do(command, plan)
    real = read_recorded(tmp_path / "run" / "calls.jsonl")
    assert sum(real.calls.values()) > 10
    assert outside(before.forecast.roles, real, spent(tmp_path / "run")) == []
    after = ahead(plan)
    assert after.state == "finished" and after.forecast.left == Range()
    assert {role.role: role.done for role in after.forecast.roles} == {
        role.role: real.calls.get(role.role, 0) for role in after.forecast.roles
    }


@pytest.mark.parametrize("name", HALFWAY)
def test_what_a_half_recorded_run_has_yet_to_ask_is_known_by_the_request(
    name: str, world: Path, tmp_path: Path
) -> None:
    command, given = SETTINGS[name]
    run = tmp_path / "run"
    first = ahead(planned(command, world, run, **given)).forecast.roles
    with pytest.raises(BudgetSpent):
        do(command, planned(command, world, run, **given, max_calls=18))
    plan = planned(command, world, run, **given)
    had, paid = read_recorded(run / "calls.jsonl"), spent(run)
    halfway = ahead(plan)
    assert halfway.state == "resume"
    roles = {role.role: role for role in halfway.forecast.roles}
    assert {role: one.done for role, one in roles.items()} == {role: had.calls.get(role, 0) for role in roles}
    do(command, plan)
    real = read_recorded(run / "calls.jsonl")
    assert outside(first, real, spent(run)) == []
    assert outside(halfway.forecast.roles, real, spent(run)) == []
    for name_of, role in roles.items():
        assert role.left_usd is not None
        assert covers(role.left, real.calls[name_of] - had.calls.get(name_of, 0))
        assert covers(role.left_usd, spent(run)[name_of] - paid.get(name_of, 0.0))
    if "base" in roles:
        left = real.calls["base"] - had.calls["base"]
        assert (roles["base"].left.least, roles["base"].left.most) == (left, left)


def test_a_lost_judgement_alone_is_to_come_again_with_what_is_known_of_it(
    world: Path, tmp_path: Path
) -> None:
    """Only the repair of an unreadable reply is missing."""
    run, given = tmp_path / "run", {"alignment": "none", "max_tokens": 40}
    do("evaluate", planned("evaluate", world, run, **given))
    (run / "summary.json").unlink()
    lines = (run / "calls.jsonl").read_bytes().splitlines(keepends=True)
    repairs = [line for line in lines if b'"judge"' in line and b'["assistant"' in line]
    (run / "calls.jsonl").write_bytes(b"".join(line for line in lines if line != repairs[0]))
    (role,) = [r for r in ahead(planned("evaluate", world, run, **given)).forecast.roles if r.role == "judge"]
    assert role.left == Range(1, 1, 1)
    usage = json.loads(repairs[0])
    paid = read_recorded(run / "calls.jsonl").usage["judge"]
    assert covers(role.prompt_tokens, paid.prompt_tokens + usage["usage"][0])


def test_equal_requests_count_once(world: Path, tmp_path: Path) -> None:
    said = ahead(
        planned("evaluate", world, tmp_path, alignment="none", data="twice.txt", limit=None)
    ).forecast
    assert [(role.role, role.calls.least) for role in said.roles] == [("base", 9), ("judge", 9)]


def test_the_shipped_cases_are_480_questions_and_equal_ones_are_asked_once(
    world: Path, tmp_path: Path
) -> None:
    shipped = read_cases(shipped_judge_cases())
    said = ahead(planned("audit-judge", world, tmp_path, cases=None)).forecast
    assert isinstance(said, MeasuringForecast)
    assert said.items == len(questions(shipped)) == 480
    assert said.calls.least == 480 and said.calls.most == 960
    row = (world / "cases.jsonl").read_text("utf-8").splitlines()[0]
    one, two = json.loads(row), {**json.loads(row), "bad": "Nobody knows."}
    (tmp_path / "own.jsonl").write_text(f"{json.dumps(one)}\n{json.dumps(two)}\n", encoding="utf-8")
    own = ahead(planned("audit-judge", world, tmp_path / "run", cases=tmp_path / "own.jsonl")).forecast
    assert own.calls.least == len(questions(read_cases(tmp_path / "own.jsonl"))) - 1  # the score of `good`


def test_both_sides_of_a_comparison_are_counted_with_whom_they_ask(world: Path, tmp_path: Path) -> None:
    given = {"alignment": "none", "against": "none", "against_model": FAR}
    plan = planned("compare", world, tmp_path, **given, price=(*PRICES, "against=1/1"))
    roles = {role.role: role for role in ahead(plan).forecast.roles}
    assert {name: role.calls.most for name, role in roles.items()} == {
        "base": FEW,
        "against": FEW,
        "judge": 2 * 2 * FEW,
    }
    assert roles["judge"].calls.least == 0


def test_where_only_a_model_could_find_the_shots_the_range_covers_any(world: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"alignment": "found"}
    known = ahead(planned("evaluate", world, tmp_path / "a", **given)).forecast.roles[0].prompt_tokens
    given["embedder"] = "openai/small@http://127.0.0.1:1/v1"
    plan = planned("evaluate", world, tmp_path / "b", **given, model="gpt-4o")
    base, *_, embedder = ahead(plan).forecast.roles
    assert base.prompt_tokens.least < known.least and base.prompt_tokens.most is not None
    assert known.most is not None and base.prompt_tokens.most > known.most
    assert embedder.role == "embedder" and embedder.calls.most == 2 and embedder.usd is None


def test_a_prompt_may_lose_its_shots_at_a_vllm_server(world: Path, tmp_path: Path) -> None:
    at = {"alignment": "urial", "model": "vllm/m@http://127.0.0.1:1/v1"}
    kept = ahead(planned("evaluate", world, tmp_path, **at, long_prompts="as-is")).forecast.roles[0]
    lost = ahead(planned("evaluate", world, tmp_path, **at)).forecast.roles[0]
    assert lost.prompt_tokens.least < kept.prompt_tokens.least / 5
    assert lost.prompt_tokens.most == kept.prompt_tokens.most
    assert (lost.calls.least, lost.calls.most) == (FEW, FEW + 1)  # a chat may be tried
