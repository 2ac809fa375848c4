"""What the roles cost: as given, as listed at OpenAI's own address, nothing, or unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from drpo.config import OptimizeConfig
from drpo.errors import InputError
from drpo.llm.base import Usage
from drpo.plan import Plan, optimize_plan
from drpo.tariffs import FREE, UNKNOWN, RoleTariff, read_prices, refuse_unpriced, tariffs_of

KEY = {"OPENAI_API_KEY": "x"}
ELSEWHERE = {**KEY, "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
EMBEDDER = "openai/text-embedding-3-small"


def planned(environment: dict[str, str], **given: Any) -> Plan:
    config = OptimizeConfig.model_validate(
        {"model": "demo", "optimizer": "demo", "evaluator": "demo", **given}
    )
    return optimize_plan(config, environment)


def test_the_price_list_is_that_of_openais_own_address() -> None:
    given = {"optimizer": "gpt-4o", "evaluator": "openai/gpt-4o@http://127.0.0.1:9/v1", "embedder": EMBEDDER}
    found = tariffs_of(planned(KEY, **given), KEY)
    assert found["base"] == FREE and found["evaluator"] == found["selector"] == UNKNOWN
    assert found["optimizer"].source == found["embedder"].source == "list"
    assert (found["optimizer"].usd(Usage(1_000, 1_000)) or 0) > (found["embedder"].usd(Usage(1_000)) or 0) > 0


def test_what_openai_base_url_serves_has_no_listed_price() -> None:
    given = {"optimizer": "gpt-4o", "embedder": EMBEDDER}
    found = tariffs_of(planned(ELSEWHERE, **given), ELSEWHERE)
    assert found["optimizer"] == found["embedder"] == UNKNOWN


@pytest.mark.parametrize(("environment", "refused"), [(KEY, False), (ELSEWHERE, True)])
def test_a_limit_on_money_needs_the_price_of_the_embedder_where_it_is(
    environment: dict[str, str], refused: bool
) -> None:
    plan = planned(environment, embedder=EMBEDDER, max_usd=1.0)
    if not refused:
        refuse_unpriced(plan, environment)
        return
    with pytest.raises(
        InputError, match=r"no price is known for the embedder\. Give --price embedder=IN/OUT"
    ):
        refuse_unpriced(plan, environment)
    priced = planned(environment, embedder=EMBEDDER, max_usd=1.0, price=("embedder=0.1/0",))
    refuse_unpriced(priced, environment)


@pytest.mark.parametrize("command", ["--dry-run", "doctor"])
def test_dry_run_and_doctor_look_where_the_run_would(shell: Any, command: str, tmp_path: Path) -> None:
    for name, value in ELSEWHERE.items():
        shell.env.setenv(name, value)
    flags = ("--model", "demo", "--embedder", EMBEDDER, "--max-usd", 1)
    if command == "doctor":
        out = shell.run("doctor", "--offline", *flags).out
        assert "price unknown" in out
    else:
        out = shell.done("optimize", "--dry-run", *flags).out
    assert "--price embedder=IN/OUT" in " ".join(out.split())


def test_a_given_price_goes_before_any_other() -> None:
    found = tariffs_of(planned(KEY, optimizer="gpt-4o", price=("optimizer=1/2", "base=3/4")), KEY)
    assert found["optimizer"] == RoleTariff("given", 1.0, 2.0)
    assert found["base"].usd(Usage(1_000_000, 1_000_000)) == 7.0


def test_cached_tokens_have_the_price_of_cached_ones() -> None:
    tariff = RoleTariff("list", 2.0, 8.0, 0.5)
    assert tariff.usd(Usage(1_000_000, 0, 400_000)) == pytest.approx(0.6 * 2 + 0.4 * 0.5)
    assert tariff.usd(Usage(1_000, 0, 9_000)) == pytest.approx(1_000 * 0.5 / 1e6)  # more than there were
    assert UNKNOWN.usd(Usage(1, 1)) is None and FREE.usd(Usage(1, 1)) == 0.0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["base=1"], "expected ROLE=IN/OUT"),
        (["writer=1/2"], "a role of base, optimizer"),
        (["base=1/-2"], "0 or more, came '-2'"),
        (["base=x/2"], "came 'x'"),
        (["base=inf/2"], "came 'inf'"),
        (["base=nan/2"], "came 'nan'"),
        (["base=1/2", "base=1/2"], "has another one already"),
    ],
)
def test_a_price_that_is_none_is_named(given: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_prices(given)
