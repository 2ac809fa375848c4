"""run.log has what its own run says: not what another run of the process says, nor what is between them."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path

from drpo.config import OptimizeConfig
from drpo.plan import optimize_plan
from drpo.run_dir import RunDirectory
from drpo.run_log import between_runs
from drpo.settings import resolve

LOG = logging.getLogger("drpo")
PLAN = optimize_plan(resolve(OptimizeConfig, {"model": "demo", "validate": 0}, {}), {})


def opened(path: Path) -> RunDirectory:
    return RunDirectory(path, PLAN)


def lines(path: Path) -> list[str]:
    file = path / "run.log"
    return [line.split()[-1] for line in file.read_text("utf-8").splitlines()] if file.exists() else []


def from_a_thread(said: str) -> None:
    thread = threading.Thread(target=LOG.info, args=(said,))
    thread.start()
    thread.join()


async def test_two_runs_at_once_have_only_their_own_lines(tmp_path: Path) -> None:
    both_open, said = asyncio.Barrier(2), asyncio.Barrier(2)

    async def run(name: str) -> None:
        directory = opened(tmp_path / name)
        await both_open.wait()
        LOG.info("run-%s", name)
        await asyncio.create_task(child(name))
        await asyncio.to_thread(LOG.info, f"worker-{name}")
        await said.wait()
        directory.close()

    async def child(name: str) -> None:
        LOG.info("task-%s", name)

    with between_runs():
        async with asyncio.TaskGroup() as group:
            for name in "ab":
                group.create_task(run(name))
        LOG.info("after")
    assert lines(tmp_path / "a") == ["run-a", "task-a", "worker-a"]
    assert lines(tmp_path / "b") == ["run-b", "task-b", "worker-b"]


def test_what_no_run_says_stands_in_no_log(tmp_path: Path) -> None:
    with between_runs():
        directory = opened(tmp_path / "a")
        LOG.info("own")
        with between_runs():
            LOG.info("between")
        LOG.info("own-again")
        directory.close()
        LOG.info("closed")
    assert lines(tmp_path / "a") == ["own", "own-again"]


def test_a_thread_of_nobody_is_told_by_the_only_run_there_is(tmp_path: Path) -> None:
    one = opened(tmp_path / "a")
    from_a_thread("alone")
    two = opened(tmp_path / "b")
    from_a_thread("of-either")
    two.close()
    LOG.info("back")
    one.close()
    assert lines(tmp_path / "a") == ["alone", "back"] and lines(tmp_path / "b") == []
