"""Several servers of one model: who gets which request, and what happens when one is gone."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

from drpo.errors import ProviderRefused
from drpo.llm.base import LLM, Completion, Request
from drpo.llm.prefix import marks, prefix_text
from drpo.llm.retry import Transient, Unconnected

OUT_S = 15.0
"""How long a server is left out at first: about what a restarted one takes to answer again."""
LONGEST_OUT_S = 120.0
REMEMBERED = 16_384
"""Marks kept per server: those of a million tokens (4 million characters), more than a card's cache holds."""
LOAD_FACTOR = 1.25
"""How far above the mean a server's load may be: less balances better and moves more prefixes."""


class Spread:
    """An LLM over several servers of one model, each given as its name (its URL) and its client.

    A request goes to the server that was sent the longest part of its beginning before, whose prefix cache
    has that part; among equals to the one with the fewest requests in the air. A server whose load is above
    the bound stands back, so that one prompt for all leaves no server idle ("Consistent hashing with bounded
    loads", Mirrokni, Thorup and Zadimoghaddam, 2016; departure: the bound is LOAD_FACTOR times the mean + 1,
    and past it goes the next in this order instead of the next on a ring).

    A server that cannot be reached is left out for OUT_S, twice as long each further time, and its request
    goes to another at once. When that time is over, one request tries it before others follow. Where all are
    out, the one whose time is over first is tried and `Unconnected` raised if that fails: `Retry` asks
    again. A server that is there and gives no answer (overload, a gateway before a dead server) stays in, and
    the request goes to another at once, too. `notice` is told when a server is left out and when it answers
    again, once each.
    """

    def __init__(
        self,
        servers: Sequence[tuple[str, LLM]],
        clock: Callable[[], float] = time.monotonic,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        self._servers = [_Server(name, llm) for name, llm in servers]
        self._clock = clock
        self._notice = notice or (lambda message: None)

    @property
    def sent(self) -> dict[str, int]:
        """How many requests each server was sent so far, failed ones included."""
        return {server.name: server.sent for server in self._servers}

    async def complete(self, request: Request) -> Completion:
        path = marks(prefix_text(request)) or (b"",)
        began_s = self._clock()
        tried: list[_Server] = []
        again = replace(request, again=True)
        failure: Transient | None = None
        while (server := self._chosen(path, tried)) is not None:
            tried.append(server)
            outages = server.outages
            try:
                completion = await server.ask(again if len(tried) > 1 else request, path)
            except Unconnected as unconnected:
                failure = unconnected
                if server.outages == outages:  # else it was left out meanwhile, for the same reason
                    self._leave_out(server)
                continue
            except Transient as overloaded:  # by itself, or a gateway before it: another may do better now
                failure = overloaded
                server.forget(path)
                continue
            except ProviderRefused:
                self._answered(server, outages)  # there it is
                raise
            self._answered(server, outages)
            return completion
        assert failure is not None
        failure.took_s = self._clock() - began_s
        raise failure

    def _chosen(self, path: Sequence[bytes], tried: Sequence[_Server]) -> _Server | None:
        """Whom to ask next; None when nobody is left."""
        now_s = self._clock()
        there = [s for s in self._servers if s not in tried and s.is_there(now_s)]
        if there:
            return _nearest(path, there)
        return None if tried else min(self._servers, key=lambda s: (s.out_until_s, s.outages))

    def _leave_out(self, server: _Server) -> None:
        now_s, before = self._clock(), server.failures
        if not before or now_s >= server.out_until_s:  # else all are out, and it was tried before its time
            server.failures += 1
        server.out_until_s = now_s + min(LONGEST_OUT_S, OUT_S * 2.0 ** min(server.failures - 1, 60))
        server.outages += 1
        server.known.clear()  # whoever comes back has an empty cache
        if not before:
            others = sum(other.failures == 0 for other in self._servers)
            on = f"{others} of {len(self._servers)} servers go on" if others else "no other server is left"
            self._notice(f"{server.name} cannot be reached and is left out for now; {on}")

    def _answered(self, server: _Server, outages: int) -> None:
        if server.failures and server.outages == outages:  # sent since it was left out
            server.failures = 0
            self._notice(f"{server.name} answers again")


class _Server:
    """One server: what is in the air there, what it was sent, and whether it can be reached.

    `failures` counts those since its last answer, `outages` all of them.
    """

    def __init__(self, name: str, llm: LLM) -> None:
        self.name = name
        self.sent = 0
        self.in_air = 0
        self.failures = 0
        self.outages = 0
        self.out_until_s = 0.0
        self.known: OrderedDict[bytes, None] = OrderedDict()
        self._llm = llm
        self._trying = 0

    async def ask(self, request: Request, path: Sequence[bytes]) -> Completion:
        trying = self.failures > 0
        self.sent += 1
        self.in_air += 1
        self._trying += trying
        self._remember(path)
        try:
            return await self._llm.complete(request)
        finally:
            self.in_air -= 1
            self._trying -= trying

    def forget(self, path: Sequence[bytes]) -> None:
        """Be no longer the first to be asked for what begins so."""
        for mark in path:
            self.known.pop(mark, None)

    def is_there(self, now_s: float) -> bool:
        """Whether it may be asked: it is not out, and nobody else is trying it after it was."""
        return self.failures == 0 or (now_s >= self.out_until_s and not self._trying)

    def knows(self, path: Sequence[bytes]) -> int:
        """How many marks of `path` it was sent before, from the first one on."""
        return next((count for count, mark in enumerate(path) if mark not in self.known), len(path))

    def _remember(self, path: Sequence[bytes]) -> None:
        for mark in reversed(path):  # the beginnings last, so that they are forgotten last
            self.known[mark] = None
            self.known.move_to_end(mark)
        while len(self.known) > REMEMBERED:
            self.known.popitem(last=False)


def _nearest(path: Sequence[bytes], servers: Sequence[_Server]) -> _Server:
    """Of those that are not too busy, who knows most of `path`, then who has least to do, then by lot.

    The lot is a rendezvous hash of the first mark that is new to them: the same in every run.
    """
    bound = LOAD_FACTOR * sum(server.in_air for server in servers) / len(servers) + 1
    known = {server: server.knows(path) for server in servers if server.in_air < bound}
    most = max(known.values())
    best = [server for server in known if known[server] == most]
    least = min(server.in_air for server in best)
    lot = path[min(most, len(path) - 1)]
    return max(
        (server for server in best if server.in_air == least),
        key=lambda server: hashlib.blake2b(server.name.encode() + lot, digest_size=8).digest(),
    )
