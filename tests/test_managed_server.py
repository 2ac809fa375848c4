"""A vLLM server that drpo runs: it is there when it is needed, replaced when it dies, gone when drpo is."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from tests.support.command import ended, killed_at_the_end, process, the_error
from tests.support.managed import FAKE, LEFT_AFTER_S, Managed, calls
from tests.support.processes import until

EXAMPLES = """{"query": "Why is the sky blue?", "response": "Air scatters blue light most."}
{"query": "How much is 2+2?", "response": "Four."}
"""


def result(managed: Managed, run: str) -> tuple[bytes, bytes]:
    folder = managed.shell.folder / run
    return (folder / "alignment.json").read_bytes(), (folder / "events.jsonl").read_bytes()


def test_one_server_plays_all_roles_and_nothing_of_it_is_left(managed: Managed) -> None:
    ran = managed.run()
    assert ran.code == 0, ran.err
    assert managed.starts == ["org/m"]
    assert len(managed.pids()) == 2 and managed.left() == []
    assert "starting vLLM for org/m" in ran.err and "ready after" in ran.err
    assert "startup complete" in (managed.shell.folder / "run" / "vllm.log").read_text()


def test_what_is_recorded_needs_no_server(managed: Managed) -> None:
    managed.run()
    before = result(managed, "run")
    (managed.shell.folder / "run" / "alignment.json").unlink()
    assert managed.run("never-ready").code == 0
    assert managed.starts == ["org/m"]
    assert result(managed, "run") == before


@pytest.mark.parametrize(
    "faults", ["die-after=6", "die-after=6,orphan", "engine-dies=5", "unhealthy-after=6,orphan,stubborn"]
)
def test_a_server_that_dies_is_replaced_and_the_result_is_the_same(managed: Managed, faults: str) -> None:
    managed.run(run="whole")
    managed.state.joinpath("starts").unlink()
    ran = managed.run(faults, run="broken")
    assert ran.code == 0, ran.err
    assert "starting it again" in ran.err
    assert len(managed.starts) >= 2 and managed.left() == []
    assert result(managed, "broken") == result(managed, "whole")
    keys = [call["key"] for call in calls(managed.shell.folder / "broken")]
    assert len(keys) == len(set(keys)) == len(calls(managed.shell.folder / "whole"))


def test_a_server_is_replaced_a_bounded_number_of_times_and_the_run_resumes(managed: Managed) -> None:
    said = the_error(managed.run("die-always=4", "--vllm-restarts", 2), 5)
    assert "started again 2 times" in said and "vllm.log" in said and "resumes" in said
    assert len(managed.starts) == 3 and managed.left() == []
    recorded = len(calls(managed.shell.folder / "run"))
    assert recorded > 0
    assert managed.run().code == 0
    assert managed.run(run="whole").code == 0
    assert result(managed, "run") == result(managed, "whole")


@pytest.mark.parametrize(
    ("faults", "flag"),
    [
        ("oom-weights", "--tensor-parallel-size"),
        ("oom-kv", "max-model-len"),
        ("oom-later=3", "gpu-memory-utilization"),
    ],
)
def test_too_little_memory_is_a_sentence_with_the_flag_and_no_loop(
    managed: Managed, faults: str, flag: str
) -> None:
    said = the_error(managed.run(faults), 5)
    assert flag in said and "vllm.log" in said
    assert len(managed.starts) == 1 and managed.left() == []


@pytest.mark.parametrize(
    ("faults", "code", "words"),
    [
        ("gated", 3, "HF_TOKEN"),
        ("bad-flag=--fast", 2, "--fast"),
        ("other-model", 5, "another server answers"),
    ],
)
def test_a_start_that_fails_says_why(managed: Managed, faults: str, code: int, words: str) -> None:
    said = the_error(managed.run(faults), code)
    assert words in said and "org/m" in said
    assert managed.left() == []


def test_a_server_that_is_never_ready_is_given_up_at_the_deadline(managed: Managed) -> None:
    said = the_error(managed.run("never-ready", "--vllm-ready-s", 1.5), 5)
    assert "not ready in time" in said and "--vllm-ready-s" in said
    assert managed.left() == []


def test_another_port_is_taken_when_somebody_was_quicker(managed: Managed) -> None:
    assert managed.run("port-in-use").code == 0
    assert len(managed.starts) == 2


def test_each_model_has_a_server_of_its_own(managed: Managed) -> None:
    ran = managed.run("", "--evaluator", "vllm/org/judge")
    assert ran.code == 0, ran.err
    assert sorted(managed.starts) == ["org/judge", "org/m"]
    assert (managed.shell.folder / "run" / "vllm-2.log").exists()


def test_examples_are_improved_over_a_server_that_dies(managed: Managed) -> None:
    managed.shell.write("examples.jsonl", EXAMPLES)
    managed.shell.env.setenv("FAKE_VLLM", "die-after=3")
    model = ("--model", "vllm/org/m", "--vllm-command", FAKE)
    improve = ("optimize-examples", *model, "--examples", "examples.jsonl", "--depth", 2, "--run-dir", "run")
    ran = managed.shell.done(*improve)
    assert "starting vLLM for org/m" in ran.err and "starting it again" in ran.err
    assert managed.starts == ["org/m"] * 2 and managed.left() == []
    assert len((managed.shell.folder / "run" / "examples.jsonl").read_text().splitlines()) == 2
    assert {call["role"] for call in calls(managed.shell.folder / "run")} == {
        "optimizer",
        "evaluator",
        "selector",
    }
    assert managed.shell.done("replay", "run").out.startswith("identical")
    assert len(managed.starts) == 2


def test_the_key_stands_in_no_file_and_on_no_command_line(managed: Managed) -> None:
    managed.shell.env.setenv("FAKE_VLLM", "slow=0.5")
    running = process(*managed.arguments())
    with killed_at_the_end(running):
        until(lambda: len(managed.pids()) == 2)
        keys = {psutil.Process(pid).environ().get("VLLM_API_KEY") for pid in managed.pids()} - {None}
        lines = [" ".join(psutil.Process(pid).cmdline()) for pid in managed.pids()]
        ran = ended(running)
    assert ran.code == 0, ran.err
    (key,) = keys
    assert key is not None and len(key) >= 24
    texts = [p.read_text("utf-8", "replace") for p in managed.shell.folder.rglob("*") if p.is_file()]
    assert not any(key in text for text in [*lines, *texts, ran.err, ran.out])


def test_the_keys_of_other_endpoints_stay_with_drpo(managed: Managed) -> None:
    managed.shell.env.setenv("OPENAI_API_KEY", "sk-other")
    managed.shell.env.setenv("DRPO_EVALUATOR_API_KEY", "another")
    managed.shell.env.setenv("FAKE_VLLM", "slow=0.5")
    running = process(*managed.arguments())
    with killed_at_the_end(running):
        until(lambda: len(managed.pids()) == 2)
        seen = [psutil.Process(pid).environ() for pid in managed.pids()]
        assert ended(running).code == 0
    assert not any({"OPENAI_API_KEY", "DRPO_EVALUATOR_API_KEY"} & set(variables) for variables in seen)


@pytest.mark.parametrize("faults", ["slow=60", "orphan,stubborn"])
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 130), (signal.SIGINT, 130)]
)
def test_however_drpo_ends_its_server_ends_too(managed: Managed, faults: str, number: int, code: int) -> None:
    managed.shell.env.setenv("FAKE_VLLM", faults)
    running = process(*managed.arguments("--depth", 30, "--concurrency", 1))
    with killed_at_the_end(running):
        until(lambda: len(managed.pids()) >= 2)
        running.send_signal(number)
        assert running.wait(timeout=60) == code
    until(lambda: not managed.left(), LEFT_AFTER_S)


def test_a_server_whose_guard_was_killed_ends_too(managed: Managed) -> None:
    managed.shell.env.setenv("FAKE_VLLM", "orphan,stubborn")
    running = process(*managed.arguments("--depth", 40, "--concurrency", 1))
    with killed_at_the_end(running):
        log = managed.shell.folder / "run" / "run.log"
        until(lambda: log.exists() and "level 1 done" in log.read_text())
        guard = psutil.Process(managed.pids()[0]).parent()
        assert guard is not None and "guard.py" in " ".join(guard.cmdline())
        os.kill(guard.pid, signal.SIGKILL)
        ran = ended(running)
    assert ran.code == 0, ran.err
    assert "starting it again" in ran.err
    until(lambda: not [pid for pid in managed.left() if os.getpgid(pid) == managed.pids()[0]], LEFT_AFTER_S)
