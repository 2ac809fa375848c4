"""What the doctor says of this machine: embedding models, disks, caches, proxies, the clock."""

from __future__ import annotations

import errno
import importlib.util
import os
import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from drpo.doctor import disk
from drpo.doctor.check import Check
from drpo.doctor.machine import machine_checks
from tests.support.command import content_of
from tests.support.doctor import amiss, cached, examined, in_folder, local_model, machine, told


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    in_folder(tmp_path, monkeypatch)
    return tmp_path


def with_library(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    """sentence-transformers installed, or not; it is not imported."""
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        if name == "sentence_transformers":
            return ModuleSpec(name, None) if there else None
        return real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


@pytest.mark.parametrize(
    ("installed", "laid", "env", "status", "said"),
    [
        (False, True, {}, "problem", "sentence-transformers is not installed"),
        (True, True, {}, "ok", "at hand (1 MB)"),
        (True, False, {}, "warning", "not at hand: the first run fetches it"),
        (True, False, {"HF_HUB_OFFLINE": "1"}, "problem", "the hub must not be asked"),
    ],
)
async def test_a_local_embedding_model_is_looked_for_without_being_loaded(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    installed: bool,
    laid: bool,
    env: dict[str, str],
    status: str,
    said: str,
) -> None:
    with_library(monkeypatch, installed)
    if laid:
        cached(folder, "sentence-transformers/all-mpnet-base-v2")
    settings = {"model": "demo", "embedder": "sentence-transformers/all-mpnet-base-v2"}
    loaded = "torch" in sys.modules
    findings = await examined(machine(folder, **env), **settings)
    (check,) = told(findings, "embedder")
    assert check.status == status and said in check.said and findings.exit_code == (2 * (status == "problem"))
    assert ("torch" in sys.modules, findings.sent) == (loaded, 0)
    assert amiss(await examined(machine(folder, **env), **settings, shots=0)) == []


async def test_a_folder_as_embedding_model_has_to_hold_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_library(monkeypatch, True)
    model = local_model(folder, "")
    findings = await examined(model="demo", embedder=f"sentence-transformers/{model}")
    assert "has saved" in amiss(findings)[0].said and findings.exit_code == 2
    (model / "model.safetensors").write_bytes(b"\0" * 1000)
    assert amiss(await examined(model="demo", embedder=f"sentence-transformers/{model}")) == []


@pytest.mark.parametrize("setting", ["run_dir", "runs_dir"])
async def test_a_file_in_place_of_a_folder_is_a_problem(folder: Path, setting: str) -> None:
    (folder / "file").write_text("mine")
    findings = await examined(model="demo", **{setting: folder / "file" / "below"})
    assert "found a file in its place" in amiss(findings)[0].said and findings.exit_code == 2


@pytest.mark.parametrize(("call", "number"), [("fsync", errno.EIO), ("write", errno.ENOSPC)])
async def test_a_disk_that_refuses_is_a_problem_and_keeps_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refuse)
    findings = await examined(model="demo")
    (check,) = amiss(findings)
    assert os.strerror(number) in check.said and (check.name, findings.exit_code) == ("disk", 8)
    assert content_of(folder) == {}


async def test_a_slow_disk_and_one_on_a_network_are_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "SLOW_FSYNC_S", 0.0)
    findings = await examined(model="demo")
    (check,) = amiss(findings)
    assert "an fsync takes" in check.said and check.status == "warning" and findings.exit_code == 0
    mounts = folder / "mounts"
    mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\nserver:/x {folder}/a\\040b nfs4 rw 0 0\n")
    (folder / "a b" / "runs").mkdir(parents=True)
    assert disk.file_system_of(folder / "a b" / "runs", mounts) == "nfs4"
    assert disk.file_system_of(folder, mounts) == "ext4"
    assert disk.file_system_of(folder, folder / "none") == ""
    monkeypatch.setattr(disk, "file_system_of", lambda folder, mounts: "nfs4")
    assert "network file system (nfs4)" in amiss(await examined(model="demo"))[-1].said


async def test_little_room_is_a_warning_that_says_how_much_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "free_gb", lambda path: 0.01)
    (check,) = amiss(await examined(model="demo"))
    assert (check.name, check.status) == ("room", "warning") and "takes 0.03 GB" in check.said


async def test_a_file_system_whose_locks_do_not_hold_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unlocked:
        def __init__(self, *arguments: object, **named: object) -> None: ...

        def __enter__(self) -> None: ...

        def __exit__(self, *error: object) -> None: ...

    monkeypatch.setattr(disk, "FileLock", Unlocked)
    findings = await examined(model="demo")
    assert "can be locked once more" in amiss(findings)[0].said and findings.exit_code == 8


async def test_a_cache_that_cannot_be_written_is_a_warning(folder: Path) -> None:
    (folder / "cache").write_text("a file")
    findings = await examined(model="demo")
    assert [(check.name, check.status) for check in amiss(findings)] == [("cache", "warning")]
    assert "DRPO_CACHE_DIR" in amiss(findings)[0].remedy


def machine_told(env: Mapping[str, str], *urls: str, now_s: float | None = None) -> dict[str, Check]:
    return {check.name: check for check in machine_checks(env, urls, now_s)}


def test_proxies_are_named_without_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "http://user:password@proxy:3128"
    for name in ("http_proxy", "HTTP_PROXY", "NO_PROXY", "no_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", secret)
    told_of = machine_told({"HTTP_PROXY": secret}, "http://there.example/v1")["proxies"]
    assert told_of == Check("proxies", "ok", "HTTP_PROXY set; requests to there.example go through a proxy")
    local = machine_told({"HTTP_PROXY": secret}, "http://127.0.0.1:8000/v1")["proxies"]
    assert local.status == "warning" and "NO_PROXY" in local.remedy and "password" not in str(local)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    both = {"HTTP_PROXY": secret, "NO_PROXY": "127.0.0.1"}
    assert "no request goes" in machine_told(both, "http://127.0.0.1:8000/v1")["proxies"].said
    assert "proxies" not in machine_told({}, "http://there.example/v1")


def test_a_clock_from_before_the_installation_cannot_be_right() -> None:
    assert machine_told({}, now_s=86_400.0)["clock"].status == "warning"
    assert machine_told({})["clock"].status == "ok"
    assert f"python {'.'.join(map(str, sys.version_info[:3]))}" in machine_told({})["versions"].said
