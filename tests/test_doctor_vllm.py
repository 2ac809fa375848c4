"""What the doctor says of vLLM servers that drpo would start: installation, GPUs, weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from drpo.doctor import hub
from tests.support.command import content_of
from tests.support.doctor import amiss, cached, examined, in_folder, local_model, machine, told
from tests.support.managed import FAKE

VLLM = {"vllm_command": FAKE}
TENSOR_2, PIPELINE_2 = {"tensor_parallel_size": 2}, {"pipeline_parallel_size": 2}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    in_folder(tmp_path, monkeypatch)
    return tmp_path


async def test_a_vllm_that_is_not_there_is_a_problem_and_the_rest_is_looked_at(folder: Path) -> None:
    findings = await examined(machine(folder, 24576), model="vllm/org/m")
    (check,) = told(findings, "vllm")
    assert (check.status, check.exit_code) == ("problem", 2) and "pip install 'drpo[vllm]'" in check.remedy
    assert told(findings, "weights") and told(findings, "gpus")


async def test_the_command_of_a_vllm_is_named_and_not_run(folder: Path) -> None:
    env = machine(folder, 24576, FAKE_VLLM_STATE=str(folder / "state"))
    findings = await examined(env, model=f"vllm/{local_model(folder)}", **VLLM)
    (check,) = told(findings, "vllm")
    assert check.status == "ok" and FAKE in check.said and "not now" in check.said
    assert not (folder / "state").exists() and findings.exit_code == 0
    assert told(findings, "endpoint")[0].said.startswith("optimizer, evaluator, selector: simulated")


async def test_the_version_is_read_beside_the_command_without_running_it(folder: Path) -> None:
    packages = folder / "venv" / "lib" / "python3.12" / "site-packages" / "vllm-0.32.0.dist-info"
    packages.mkdir(parents=True)
    (packages / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0\n")
    program = folder / "venv" / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\ntouch was-run\n")
    program.chmod(0o755)
    env = machine(folder, 24576)
    findings = await examined(env, model="vllm/org/m", vllm_command=f"{program} serve")
    assert told(findings, "vllm")[0].said.startswith("org/m: vLLM 0.32.0, by ")
    assert "was-run" not in content_of(folder)


@pytest.mark.parametrize(
    ("model", "gpus", "settings", "status", "said"),
    [
        ("mistral-7b", (24576,), {}, "ok", "weights of 14.5 GB over 1 of these GPUs: 1 of 26 GB"),
        ("mistral-7b", (16384,), {}, "warning", "leaves little for the context"),
        ("mistral-7b", (12288,), {}, "problem", "cannot hold them"),
        ("llama-2-70b", (24576,) * 4, {}, "ok", "over 2 of these GPUs: 4 of 26 GB"),
        (
            "llama-2-70b",
            (24576,) * 2,
            {"pipeline_parallel_size": 2},
            "problem",
            "4 GPUs are asked for, 2 can",
        ),
        (
            "vllm/org/m",
            (24576,),
            {"tensor_parallel_size": 2},
            "problem",
            "2 GPUs are asked for, 1 can be seen",
        ),
        ("vllm/org/m", (24576,), {}, "ok", "how much the model needs is not known here"),
        ("vllm/org/m", (), {}, "warning", "no GPU can be seen"),
    ],
)
async def test_the_gpus_are_held_against_what_the_weights_need(
    folder: Path, model: str, gpus: tuple[int, ...], settings: dict[str, int], status: str, said: str
) -> None:
    findings = await examined(machine(folder, *gpus), model=model, **VLLM, **settings)
    (check,) = told(findings, "gpus")
    assert check.status == status and said in check.said, check
    assert check.exit_code == (5 if status == "problem" else 0)


async def test_gpus_that_are_hidden_from_the_server_do_not_count(folder: Path) -> None:
    env = machine(folder, 24576, 24576, CUDA_VISIBLE_DEVICES="1")
    findings = await examined(env, model="vllm/org/m", tensor_parallel_size=2, **VLLM)
    assert "2 GPUs are asked for, 1 can be seen" in told(findings, "gpus")[0].said


async def test_heads_that_cannot_be_split_are_a_problem(folder: Path) -> None:
    cached(folder, "org/m")
    env = machine(folder, *(24576,) * 8)
    findings = await examined(env, model="vllm/org/m", tensor_parallel_size=8, **VLLM)
    assert "12 attention heads cannot be split" in amiss(findings)[0].said and findings.exit_code == 2
    assert amiss(await examined(env, model="vllm/org/m", tensor_parallel_size=4, **VLLM)) == []


@pytest.mark.parametrize(
    ("laid", "model", "status", "said"),
    [
        ({"parts": 2, "there": 2}, "vllm/org/m", "ok", "org/m: 2 MB in "),
        ({"parts": 2, "there": 1}, "vllm/org/m", "warning", "to be fetched, of unknown size"),
        ({"revision": "v2"}, "vllm/org/m@v2", "ok", "1 MB in "),
        ({}, "vllm/org/m@0123abc", "ok", "1 MB in "),
        ({"revision": "v2"}, "vllm/org/m", "warning", "to be fetched"),
        (None, "mistral-7b", "warning", "to be fetched, about 14.5 GB"),
    ],
)
async def test_weights_are_at_hand_or_to_be_fetched(
    folder: Path, laid: dict[str, Any] | None, model: str, status: str, said: str
) -> None:
    if laid is not None:
        cached(folder, "org/m", **laid)
    findings = await examined(machine(folder, 24576), model=model, **VLLM)
    (check,) = told(findings, "weights")
    assert check.status == status and said in check.said, check


async def test_weights_are_looked_for_where_the_server_would(folder: Path) -> None:
    cached(folder, "org/m")
    env = machine(folder, 24576, HF_HOME=str(folder / "elsewhere"))
    flag = (f"download-dir={folder / 'hf' / 'hub'}",)
    assert told(await examined(env, model="vllm/org/m", **VLLM), "weights")[0].status == "warning"
    found = told(await examined(env, model="vllm/org/m", vllm_arg=flag, **VLLM), "weights")
    assert found[0].status == "ok"


async def test_a_disk_that_cannot_hold_the_weights_is_a_problem(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drpo.doctor.vllm.free_gb", lambda path: 3.0)
    findings = await examined(machine(folder, 24576), model="mistral-7b", **VLLM)
    (check,) = amiss(findings)
    assert "about 14.5 GB, but 3.0 GB are free" in check.said and check.exit_code == 5


async def test_a_hub_that_must_not_be_asked_and_a_licence_without_a_token_are_problems(folder: Path) -> None:
    findings = await examined(machine(folder, 24576, HF_HUB_OFFLINE="1"), model="mistral-7b", **VLLM)
    assert "hf download mistralai/Mistral-7B-v0.1" in amiss(findings)[0].remedy and findings.exit_code == 2
    env = {name: value for name, value in machine(folder, 24576).items() if name != "HF_TOKEN"}
    findings = await examined(env, model="llama-2-7b", **VLLM)
    assert findings.exit_code == 3 and "HF_TOKEN" in amiss(findings)[-1].remedy
    (folder / "hf").mkdir()
    (folder / "hf" / "token").write_text("hf_nothing_real")
    assert (await examined(env, model="llama-2-7b", **VLLM)).exit_code == 0


async def test_a_folder_without_weights_is_no_model(folder: Path) -> None:
    findings = await examined(machine(folder, 24576), model=f"vllm/{local_model(folder, '')}", **VLLM)
    assert "my-model: no weights in" in amiss(findings)[0].said and findings.exit_code == 2


def test_the_hubs_cache_is_where_its_library_looks() -> None:
    places: list[tuple[Mapping[str, str], str]] = [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/a"}, "/a"),
        ({"HF_HOME": "/b", "XDG_CACHE_HOME": "/c"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({}, str(Path.home() / ".cache/huggingface/hub")),
    ]
    assert [str(hub.cache_of(env)) for env, _ in places] == [place for _, place in places]


def test_of_weights_in_several_forms_those_count_that_vllm_loads(folder: Path) -> None:
    snapshot = cached(folder, "org/m", parts=2, there=2)
    (snapshot / "consolidated.safetensors").write_bytes(b"\0" * 2_000_000)
    (snapshot / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "pytorch_model-1.bin"}}')
    found = hub.read_weights(snapshot)
    assert (found.gb, found.missing, found.complete) == (0.002, 0, True)
    (snapshot / "model-0.safetensors").unlink()
    (snapshot / "model-0.safetensors").symlink_to("../../blobs/0.incomplete")
    assert (hub.read_weights(snapshot).missing, hub.read_weights(snapshot).complete) == (1, False)
