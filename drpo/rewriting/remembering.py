"""A rewriter that remembers, for what answers the turns of a conversation one by one."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from drpo.rewriting.contract import Rewrite, Rewriter

MOST, MOST_CHARACTERS = 4096, 16_000_000
"""Queries whose rewrites are remembered, and how long they may be together."""


class Remembering:
    """The rewrite of a query that is used. The first query of a conversation comes again with every turn: it
    is rewritten once, also where two requests with it are in the air, and reads the same in each turn."""

    def __init__(self, rewriter: Rewriter) -> None:
        self._rewriter = rewriter
        self._known: OrderedDict[str, asyncio.Future[Rewrite]] = OrderedDict()
        self._characters = 0

    async def rewrite(self, query: str) -> Rewrite:
        """The first of the rewrites. What failed is not remembered."""
        known = self._known.get(query)
        if known is None:
            known = self._remember(query)
        else:
            self._known.move_to_end(query)
        # A client that leaves must not end it for another one that waits for the same.
        return await asyncio.shield(known)

    def _remember(self, query: str) -> asyncio.Future[Rewrite]:
        task = self._known[query] = asyncio.ensure_future(self._one(query))
        self._characters += len(query)
        task.add_done_callback(lambda done: self._forget_failed(query, done))
        while len(self._known) > MOST or self._characters > MOST_CHARACTERS:
            oldest, _ = self._known.popitem(last=False)
            self._characters -= len(oldest)
        return task

    async def _one(self, query: str) -> Rewrite:
        return (await self._rewriter.rewrite(query))[0]

    def _forget_failed(self, query: str, done: asyncio.Future[Rewrite]) -> None:
        failed = done.cancelled() or done.exception() is not None or done.result().kept == "failed"
        if failed and self._known.get(query) is done:
            del self._known[query]
            self._characters -= len(query)
