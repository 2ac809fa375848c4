"""An in-memory problem for searches: a tree given as a function, and control over when each step is done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from drpo.search.problem import Draw, Keep, Proposals
from drpo.search.tree import Node
from drpo.types import Failed, Scored, Unscored

Value = float | None | str | BaseException
"""How a state turns out: its reward, None (unscored), why it could not be made, or an error."""

Children = Sequence[Value] | Keep | Failed | BaseException


@dataclass(frozen=True)
class Way:
    """A proposal of the scripted tree."""

    state: str
    value: Value


async def at_once(_: str) -> None:
    """No latency."""


async def idle() -> None:
    """Until everything that can go on without another event has done so."""
    for _ in range(60):
        await asyncio.sleep(0)


@dataclass
class Turns:
    """Lets things go on in an order that the test decides; `waiting` are those that have begun."""

    waiting: dict[str, asyncio.Future[None]] = field(default_factory=dict)

    async def __call__(self, name: str) -> None:
        future = self.waiting[name] = asyncio.get_running_loop().create_future()
        try:
            await future
        finally:
            del self.waiting[name]

    async def let(self, *names: str) -> None:
        """Let these end, and all that follows from it happen."""
        for name in names:
            self.waiting[name].set_result(None)
            await idle()


class ScriptedTree:
    """A tree whose states are named by their way from the root: "r", "r.0", "r.0k" (kept), "r.0k.2".

    children: state and depth -> how its proposals turn out, or `Keep`, `Failed`, an error. kept: state and
    query -> how it turns out when it is tried once more. `latency` is awaited in every expansion
    ("expand r.0") and every step (the name of what it makes).
    """

    def __init__(
        self,
        children: Mapping[str, Children] | Callable[[str, int], Children],
        *,
        root: float | None = 3.0,
        kept: Callable[[str, int], Value] = lambda state, trial: 3.0,
        latency: Callable[[str], Awaitable[None]] = at_once,
    ) -> None:
        self._children: Callable[[str, int], Children] = (
            children if callable(children) else lambda state, depth: children[state]
        )
        self._root, self._kept, self._latency = root, kept, latency
        self.tried: list[tuple[str, int]] = []
        self.draws: list[Draw] = []

    async def root(self) -> Scored[str] | Unscored[str]:
        self.tried.append(("r", 0))
        result = _outcome("r", self._root)
        assert not isinstance(result, Failed)
        return result

    async def expand(self, node: Node[str], draw: Draw) -> Proposals[Way] | Keep | Failed:
        self.draws.append(draw)
        await self._latency(f"expand {node.state}")
        found = self._children(node.state, node.depth)
        if isinstance(found, BaseException):
            raise found
        if isinstance(found, (Keep, Failed)):
            return found
        first = len(draw.trials) * int(draw.place.rsplit("/", 1)[1])
        return Proposals(tuple(Way(f"{node.state}.{first + i}", value) for i, value in enumerate(found)))

    async def step(
        self, node: Node[str], action: Way | Keep, trial: int
    ) -> Scored[str] | Unscored[str] | Failed:
        if isinstance(action, Keep):
            state, value = f"{node.state}k", self._kept(node.state, trial)
        else:
            state, value = action.state, action.value
        self.tried.append((state, trial))
        await self._latency(state)
        return _outcome(state, value)


def _outcome(state: str, value: Value) -> Scored[str] | Unscored[str] | Failed:
    if isinstance(value, BaseException):
        raise value
    if isinstance(value, str):
        return Failed(value, raw=f"raw {state}")
    return Unscored(state, Failed("no evaluation")) if value is None else Scored(state, value)
