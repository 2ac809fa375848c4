"""The doctor in this event loop: what it finds, and which of that is amiss."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from drpo.doctor.check import Check
from drpo.doctor.examine import Findings, examine
from drpo.doctor.prepare import Sources
from drpo.templates import Templates
from tests.support.mock_openai import Answer, drpo_answers, error

KEY = "sk-test-4f0b7c2e91d85a36"
NOBODY = "http://127.0.0.1:9/v1"  # where nobody listens
ROLES = {"model": "base", "optimizer": "optimizer", "evaluator": "evaluator", "selector": "selector"}
SHIPPED = Templates()

Handler = Callable[[str, dict[str, Any]], Answer]


def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work there from now on; the shipped templates, most of a plan's time, are compiled once for all, and
    a disk that others keep busy is not amiss."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("drpo.doctor.disk.SLOW_FSYNC_S", float("inf"))
    monkeypatch.setattr(
        "drpo.plan.Templates", lambda folder: SHIPPED if folder is None else Templates(folder)
    )


async def examined(env: Mapping[str, str] | None = None, /, **settings: Any) -> Findings:
    """What is found with these settings; roles that are not named are simulated."""
    given = {"optimizer": "demo", "embedder": "lexical", **settings}
    return await examine(Sources(given, {"DRPO_CACHE_DIR": "cache", **(env or {})}))


def told(findings: Findings, *names: str) -> list[Check]:
    """The checks of these names."""
    return [check for check in findings.checks if check.name in names]


def amiss(findings: Findings) -> list[Check]:
    """The warnings and problems."""
    return [check for check in findings.checks if check.status != "ok"]


def only(answer: Answer) -> Handler:
    """A server that always answers so."""
    return lambda model, body: answer


def refusing(*parameters: str) -> Handler:
    """A server that takes none of these parameters, and names the first that it sees."""

    def handler(model: str, body: dict[str, Any]) -> Answer:
        for name in parameters:
            if name in body:
                said = f"Unsupported parameter: {name!r}"
                return error(400, said, code="unsupported_parameter", param=name)
        return drpo_answers(model, body)

    return handler


def machine(folder: Path, *gpus_mib: int, **env: str) -> dict[str, str]:
    """The environment of a machine with these GPUs and an empty cache of the hub."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    if gpus_mib:
        smi = programs / "nvidia-smi"
        smi.write_text("#!/bin/sh\n" + "".join(f"echo {size}\n" for size in gpus_mib))
        smi.chmod(0o755)
    return {"PATH": str(programs), "HF_HOME": str(folder / "hf"), "HF_TOKEN": "hf_nothing_real", **env}


def cached(folder: Path, repository: str, *, revision: str = "main", parts: int = 1, there: int = 1) -> Path:
    """A snapshot as huggingface_hub lays it out, of whose parts some are there; 1 MB each."""
    root = folder / "hf" / "hub" / f"models--{repository.replace('/', '--')}"
    snapshot = root / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / revision).write_text("0123abc")
    names = [f"model-{number}.safetensors" for number in range(parts)]
    for name in names[:there]:
        (snapshot / name).write_bytes(b"\0" * 1_000_000)
    index = {"weight_map": {f"layer.{number}": name for number, name in enumerate(names)}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    (snapshot / "config.json").write_text(json.dumps({"num_attention_heads": 12}))
    return snapshot


def local_model(folder: Path, weights: str = "model.safetensors") -> Path:
    """A model in a folder, of 2 MB; without weights where their file has no name."""
    model = folder / "my-model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    if weights:
        (model / weights).write_bytes(b"\0" * 2_000_000)
    return model
