"""How many GPUs a server would see, and how many of them a model needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from drpo.llm.vllm.gpus import gpus_needed, visible_gpus_gb


@pytest.mark.parametrize(
    ("script", "chosen", "cards"),
    [
        ("echo 24576; echo 24576", None, (25.8, 25.8)),
        ("echo 24576; echo 24576; echo 24576", "0,2", (25.8, 25.8)),
        ("echo 24576; echo 8192", "1", (8.6,)),
        ("echo 24576; echo 8192", "GPU-8a", (25.8,)),
        ("echo 24576; echo 24576", "0,-1,1", (25.8,)),
        ("echo 24576", "", ()),
        ("echo 24576", "-1", ()),
        ("echo 24576", "7", ()),
        ("echo '[N/A]'", None, ()),
        ("echo No devices were found", None, ()),
        ("printf '\\377\\376'", None, ()),
        ("", None, ()),
        ("echo 24576; exit 9", None, ()),
    ],
)
def test_the_gpus_that_a_server_would_see(
    tmp_path: Path, script: str, chosen: str | None, cards: tuple[float, ...]
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    env = {"PATH": str(tmp_path), **({} if chosen is None else {"CUDA_VISIBLE_DEVICES": chosen})}
    assert visible_gpus_gb(env) == pytest.approx(cards, abs=0.05)


def test_a_machine_without_gpus_has_none(tmp_path: Path) -> None:
    assert visible_gpus_gb({"PATH": str(tmp_path)}) == ()


@pytest.mark.parametrize(
    ("weights_gb", "gpus_gb", "needed"),
    [
        (14.5, (24.0,) * 8, 1),
        (40.0, (24.0,) * 8, 4),
        (36.6, (24.0, 24.0), 2),
        (500.0, (24.0,) * 6, 4),
        (40.0, (80.0, 24.0), 2),
        (None, (24.0,) * 8, 1),
        (40.0, (), 1),
    ],
)
def test_as_many_gpus_as_the_weights_need(
    weights_gb: float | None, gpus_gb: tuple[float, ...], needed: int
) -> None:
    assert gpus_needed(weights_gb, gpus_gb) == needed
