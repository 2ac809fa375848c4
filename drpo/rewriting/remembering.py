"""A rewriter that remembers, for what answers the turns of a conversation one by one."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from drpo.rewriting.contract import Rewrite, Rewriter

MOST = 4096
"""Queries whose rewrites are remembered."""


class Remembering:
    """The rewrite of a query that is used. The first query of a conversation comes again with every turn: it
    is rewritten once, also where two requests with it are in the air, and reads the same in each turn."""

    def __init__(self, rewriter: Rewriter) -> None:
        self._rewriter = rewriter
        self._known: OrderedDict[str, asyncio.Future[Rewrite]] = OrderedDict()

    async def rewrite(self, query: str) -> Rewrite:
        """The first of the rewrites. What failed is not remembered."""
        if query not in self._known:
            task = self._known[query] = asyncio.ensure_future(self._one(query))
            task.add_done_callback(lambda done: self._forget_failed(query, done))
            if len(self._known) > MOST:
                self._known.popitem(last=False)
        self._known.move_to_end(query)
        # A client that leaves must not end it for another one that waits for the same.
        return await asyncio.shield(self._known[query])

    async def _one(self, query: str) -> Rewrite:
        return (await self._rewriter.rewrite(query))[0]

    def _forget_failed(self, query: str, done: asyncio.Future[Rewrite]) -> None:
        failed = done.cancelled() or done.exception() is not None or done.result().kept == "failed"
        if failed and self._known.get(query) is done:
            del self._known[query]
