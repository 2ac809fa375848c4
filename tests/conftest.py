"""What holds for every test: no network but loopback, no keys or settings from outside, caches of its own."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.support.command import Shell
    from tests.support.loops import Run
    from tests.support.managed import Managed

settings.register_profile(
    "ci", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("ci")


# A small search takes a part of the time that these take; the tests of them ask for them.
ASKED_FOR = {"DRPO_VALIDATE": "0", "DRPO_REPORT": "false"}


def pytest_configure() -> None:
    """What fixtures of modules see too, which are made outside of any test's own environment."""
    os.environ.update(ASKED_FOR)


def pytest_collection_finish() -> None:
    """What was imported stays: no collection of garbage looks through it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither a developer's keys nor their cache decide what a test sees.

    The working directory stays: tests that run commands without `--run-dir` choose a folder themselves.
    """
    for name in list(os.environ):
        if name.startswith(("DRPO_", "OPENAI_")) or name == "VLLM_API_KEY":
            monkeypatch.delenv(name)
    monkeypatch.setenv("DRPO_CACHE_DIR", str(tmp_path / "drpo-cache"))
    for name, value in ASKED_FOR.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def no_network() -> Iterator[None]:
    """A connection to anywhere but this machine fails the test."""
    try:
        from drpo.testing import closed_sockets
    except ImportError:  # a room that cannot be imported fails its own tests, not those of every other room
        closing: AbstractContextManager[None] = nullcontext()
    else:
        closing = closed_sockets(loopback=True)
    with closing:
        yield


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on the standard loop, and in another test on the one that the server has."""
    from tests.support.loops import runner_of

    return runner_of(request.param)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """A folder to work in, and drpo at hand."""
    from tests.support.command import Shell  # here: it brings the whole command line with it

    return Shell(tmp_path, monkeypatch, capsys)


@pytest.fixture
def managed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Managed]:
    """A folder in which drpo runs stand-ins for vLLM, none of which outlives the test."""
    from tests.support.command import Shell
    from tests.support.managed import Managed

    servers = Managed(Shell(tmp_path, monkeypatch, capsys))
    yield servers
    servers.end_all()
