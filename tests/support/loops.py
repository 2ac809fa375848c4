"""The event loops that a server may have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

Run = Callable[[Coroutine[Any, Any, None]], None]
_WITHIN_S = 20


def runner_of(name: str) -> Run:
    """Runs a test on asyncio's own loop, or on uvloop's; in 20 s or not at all."""
    factory = None if name == "asyncio" else pytest.importorskip("uvloop").new_event_loop

    def run(main: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(asyncio.wait_for(main, _WITHIN_S))

    return run
