"""A flag for a vLLM server that drpo starts is refused where no role has such a server, and only there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from drpo.config import ExamplesConfig
from drpo.errors import InputError
from drpo.plan import Plan, examples_plan
from drpo.settings import resolve

RUNNING = "vllm/own/judge@http://127.0.0.1:1/v1"
SPLIT = {"tensor_parallel_size": 2}


def planned(folder: Path, **settings: Any) -> Plan:
    given = {"evaluator": RUNNING, "optimizer": RUNNING, "validate": 8, "run_dir": folder / "run", **settings}
    return examples_plan(resolve(ExamplesConfig, given, {}), {})


def test_a_flag_for_the_server_of_the_base_model_alone_is_taken(tmp_path: Path) -> None:
    plan = planned(tmp_path, model=RUNNING, base_model="mistral-7b", embedder="lexical", **SPLIT)
    server = plan.models["base"].server
    assert server is not None and server.parallel.tensor == 2
    assert [role for role, choice in plan.models.items() if choice.server] == ["base"]


@pytest.mark.parametrize(
    "settings",
    [
        {"base_model": RUNNING},
        {"base_model": "demo"},
        {"base_model": "mistral-7b", "validate": 0},  # nobody asks it then
    ],
)
def test_a_flag_that_no_server_gets_is_refused_by_its_name(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--tensor-parallel-size: .* is a server that runs already"):
        planned(tmp_path, **settings, **SPLIT)


def test_a_running_base_model_beside_simulated_ones_gets_no_flag_either(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"own/judge@.* is a server that runs already"):
        planned(tmp_path, evaluator="demo", optimizer="demo", base_model=RUNNING, **SPLIT)
