"""`drpo models serve`: the exact commands, and a server in the foreground that leaves nothing behind."""

from __future__ import annotations

import http.client
import importlib.util
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.command import Shell, ended, killed_at_the_end, process, the_error
from tests.support.managed import FAKE, LEFT_AFTER_S, Managed
from tests.support.processes import free_port, until
from tests.support.served import Served

KEY_LINE = "# VLLM_API_KEY, where it is set, is the key that the server asks for\n"
ALWAYS = (
    "--generation-config vllm --enable-prefix-caching --enable-prompt-tokens-details "
    "--disable-uvicorn-access-log"
)


@pytest.fixture
def shell(managed: Managed) -> Shell:
    """On a machine with a `vllm` command, without GPUs."""
    programs = managed.shell.folder / "programs"
    programs.mkdir()
    program(programs / "vllm", "")
    managed.shell.env.setenv("PATH", str(programs))
    managed.shell.env.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return managed.shell


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


def gpus(shell: Shell, count: int) -> None:
    """So many cards of 24 GB in this machine."""
    program(shell.folder / "programs" / "nvidia-smi", "echo 24576\n" * count)


def dry(shell: Shell, *arguments: object) -> str:
    return shell.done("models", "serve", *arguments, "--dry-run", "--vllm-command", "vllm serve").out


# The commands


def test_the_command_for_one_gpu(shell: Shell) -> None:
    gpus(shell, 1)
    assert dry(shell, "vllm/org/m") == (
        f"{KEY_LINE}vllm serve org/m --served-model-name org/m --host 127.0.0.1 --port 8000 {ALWAYS}\n"
    )


def test_an_alias_takes_as_many_gpus_as_it_needs(shell: Shell) -> None:
    gpus(shell, 4)
    repo = "mistralai/Mistral-Small-3.2-24B-Instruct-2506"
    assert dry(shell, "mistral-small", "--port", 9000, "--vllm-arg", "max_model_len=8192") == (
        f"{KEY_LINE}vllm serve {repo} --served-model-name {repo} --host 127.0.0.1 --port 9000 "
        f"--tensor-parallel-size 4 {ALWAYS} --max-model-len 8192\n"
    )
    assert "--tensor-parallel-size 2 " in dry(shell, "mistral-small", "--tensor-parallel-size", 2)
    assert "--tensor" not in dry(shell, "mistral-7b")


def test_where_no_gpu_is_seen_an_alias_is_sized_for_common_cards(shell: Shell) -> None:
    said = dry(shell, "mistral-small")
    assert said.startswith("# no GPU to be seen here: sized for cards of 24 GB\n# VLLM_API_KEY")
    assert "--tensor-parallel-size 4 " in said


def test_the_commands_for_two_machines(shell: Shell) -> None:
    gpus(shell, 2)
    assert dry(shell, "vllm/org/m@abc", "--nodes", 2, "--tensor-parallel-size", 2) == (
        f"{KEY_LINE}"
        "# on each machine\n"
        "pip install 'ray[cgraph]'\n"
        "# on the first machine\n"
        "ray start --head --port=6379\n"
        "# on the other machine, FIRST being the first one's address\n"
        "ray start --address=FIRST:6379\n"
        "# then, on the first machine\n"
        "vllm serve org/m --served-model-name org/m --host 127.0.0.1 --port 8000 --revision abc "
        f"--tensor-parallel-size 2 --pipeline-parallel-size 2 --distributed-executor-backend ray {ALWAYS}\n"
    )


def test_a_local_model_is_served_by_its_folders_name(shell: Shell) -> None:
    folder = shell.folder / "models" / "tiny"
    folder.mkdir(parents=True)
    line = dry(shell, "vllm/./models/tiny").splitlines()[-1]
    assert shlex.split(line)[2:5] == [str(folder), "--served-model-name", "tiny"]
    assert "there is none" in shell.refused(2, "models", "serve", "vllm/./nowhere", "--dry-run")


def test_the_command_is_printed_where_vllm_is_not_installed(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec

    def none_of_it(name: str, package: str | None = None) -> Any:
        return None if name == "vllm" else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", none_of_it)
    (shell.folder / "programs" / "vllm").unlink()
    said = shell.done("models", "serve", "vllm/org/m", "--dry-run").out
    assert said.startswith("# vLLM is not installed here\n") and "\nvllm serve org/m --served" in said
    assert "pip install 'drpo[vllm]'" in shell.refused(2, "models", "serve", "vllm/org/m")
    assert "--vllm-command" in shell.refused(
        2, "models", "serve", "vllm/org/m", "--dry-run", "--vllm-command", "nowhere"
    )


def test_settings_come_from_variables_as_for_a_search(shell: Shell) -> None:
    shell.env.setenv("DRPO_VLLM_COMMAND", "vllm serve")
    shell.env.setenv("DRPO_VLLM_ARG", "max-model-len=9 dtype=half")
    shell.env.setenv("DRPO_PRESET", "published")  # which is none of its business
    said = shell.done("models", "serve", "vllm/org/m", "--dry-run").out
    assert said.startswith(KEY_LINE) and said.endswith("--max-model-len 9 --dtype half\n")


def test_layers_are_split_over_machines_unless_told_otherwise(shell: Shell) -> None:
    assert "--pipeline-parallel-size 3" in dry(shell, "vllm/org/m", "--nodes", 3)
    told = dry(shell, "vllm/org/m", "--nodes", 2, "--pipeline-parallel-size", 1, "--data-parallel-size", 2)
    assert "--pipeline" not in told and "--data-parallel-size 2" in told


@pytest.mark.parametrize("flag", ["--tensor-parallel-size", "--vllm-ready-s", "--data-parallel-size"])
def test_a_size_that_makes_no_sense_is_refused(shell: Shell, flag: str) -> None:
    assert flag in shell.refused(2, "models", "serve", "vllm/org/m", "--dry-run", flag, 0)


@pytest.mark.parametrize("model", ["demo", "gpt-4o", "openai/x", "vllm/org/m@http://127.0.0.1:8000/v1"])
def test_only_what_vllm_serves_can_be_served(shell: Shell, model: str) -> None:
    assert "expected a model that vLLM serves" in shell.refused(2, "models", "serve", model, "--dry-run")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_an_address_for_other_machines_needs_a_key(shell: Shell, host: str) -> None:
    said = shell.refused(2, "models", "serve", "vllm/org/m", "--host", host, "--vllm-command", "vllm serve")
    assert "VLLM_API_KEY" in said and host in said


# In the foreground


def serving(port: int, *more: object) -> list[object]:
    command = ("models", "serve", "vllm/org/m", "--port", port, "--vllm-command", FAKE)
    return [*command, "--vllm-ready-s", 60, *more]


@contextmanager
def ready(*arguments: object, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in the foreground that is ready, and the name that it says runs know it by."""
    with killed_at_the_end(process(*arguments, **variables)) as running:
        lines = []
        for line in running.stderr:
            lines.append(line)
            if "runs use this server as " in line:
                break
        assert lines and "runs use this server as " in lines[-1], "".join(lines)
        yield running, lines[-1].partition(" as ")[2].partition(";")[0]


def status(port: int, path: str, **headers: str) -> int:
    """The status of the answer, 0 where nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def test_it_says_how_runs_name_it_and_asks_them_for_the_key(managed: Managed) -> None:
    port = free_port()
    managed.shell.env.setenv("VLLM_API_KEY", "a-key-of-the-users")
    with ready(*serving(port)) as (running, name):
        assert name == f"vllm/org/m@http://127.0.0.1:{port}/v1"
        assert status(port, "/v1/models") == 401
        assert status(port, "/v1/models", Authorization="Bearer a-key-of-the-users") == 200
        lines = [" ".join(psutil.Process(pid).cmdline()) for pid in managed.pids()]
        assert not any("a-key-of-the-users" in line for line in lines)
        small = ("--depth", "2", "--width", "1", "--samples", "1", "--max-extra-depth", "0")
        roles = ("--model", name, "--optimizer", name, "--evaluator", name, "--embedder", "lexical")
        managed.shell.done("optimize", *roles, *small, "--base-max-tokens", 256, "--run-dir", "run")
        running.send_signal(signal.SIGINT)
        ran = ended(running)
    assert ran.code == 0 and ran.err.splitlines()[-1] == "drpo: the server was ended"
    assert managed.starts == ["org/m"] and managed.left() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_it_starts_it_can_be_ended_too(managed: Managed, number: int) -> None:
    managed.shell.env.setenv("FAKE_VLLM", "slow=60")
    with killed_at_the_end(process(*serving(free_port()))) as running:
        until(lambda: len(managed.pids()) == 2)
        running.send_signal(number)
        ran = ended(running)
    assert ran.code == 0 and ran.err.splitlines()[-1] == "drpo: the server was ended"
    assert managed.left() == []


def test_a_server_that_dies_is_started_again_at_the_same_address(managed: Managed) -> None:
    port = free_port()
    with ready(*serving(port)) as (running, _):
        os.kill(managed.pids()[0], signal.SIGKILL)
        until(lambda: len(managed.starts) == 2 and status(port, "/health") == 200)
        running.send_signal(signal.SIGTERM)
        assert ended(running).code == 0
    assert managed.left() == []


def test_a_server_that_dies_too_often_is_given_up(managed: Managed) -> None:
    with ready(*serving(free_port(), "--vllm-restarts", 0)) as (running, _):
        os.kill(managed.pids()[0], signal.SIGKILL)
        ran = ended(running)
    assert "--vllm-restarts allows no more" in the_error(ran, 5)
    until(lambda: not managed.left(), LEFT_AFTER_S)


def test_a_port_that_is_taken_is_named_before_anything_starts(managed: Managed) -> None:
    with Served() as other:
        port = other.url.split(":")[2].partition("/")[0]
        said = managed.shell.refused(5, *serving(int(port)))
    assert port in said and "taken" in said and "--port" in said
    assert managed.starts == []


@pytest.mark.parametrize(
    ("faults", "code", "words"),
    [
        ("gated", 3, "HF_TOKEN"),
        ("bad-flag=--fast", 2, "--fast"),
        ("oom-weights", 5, "--tensor-parallel-size"),
    ],
)
def test_a_start_that_fails_says_why_as_in_a_search(
    managed: Managed, faults: str, code: int, words: str
) -> None:
    managed.shell.env.setenv("FAKE_VLLM", faults)
    ran = managed.shell.run(*serving(free_port()))
    *log, said = ran.err.splitlines()
    assert ran.code == code and said.startswith("drpo: ") and words in said
    assert any("vLLM" in line for line in log)  # what the server says is shown
    assert managed.left() == []
