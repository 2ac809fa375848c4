"""Where a run stands, put together from its events, its books and its record."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from drpo.config import ExamplesConfig, RunConfig
from drpo.errors import BudgetSpent, Interrupted
from drpo.events import Event, LevelDone, NodeMade, ProposalDropped, SearchDone, Validated
from drpo.llm.ledger import Ledger, Spent
from drpo.llm.recorder import Record
from drpo.plan import Plan
from drpo.progress import RoleProgress, RunState, Snapshot, handed_over
from drpo.text_diff import word_diff


class Monitor:
    """Follows one run: takes its events and notices, and says at any time where it stands.

    `attach` gives it the books and the record once they are open. Times by `clock`, seconds since 1970.
    """

    def __init__(self, plan: Plan, path: Path, clock: Callable[[], float] = time.time) -> None:
        config = plan.config
        self.state: RunState = "running"
        self.said = ""
        self._plan, self._path, self._clock = plan, path, clock
        self._started_s = clock()
        self._examples = len(plan.inputs.examples.examples) if isinstance(config, ExamplesConfig) else 0
        self._depth = config.depth if isinstance(config, ExamplesConfig) else 0
        self._ledger: Ledger | None = None
        self._record: Record | None = None
        self._nodes: dict[tuple[int | None, int], NodeMade] = {}
        self._best_seen: dict[int | None, NodeMade] = {}
        self._levels: dict[int | None, LevelDone] = {}
        self._ended: dict[int | None, SearchDone] = {}
        self._dropped = 0
        self._validated: float | None = None
        self._newest: NodeMade | None = None
        self._change: tuple[NodeMade | None, tuple[tuple[str, str], ...]] = (None, ())
        self._live_since: tuple[float, int] | None = None  # when the first call of this process was under way

    def attach(self, ledger: Ledger, record: Record) -> None:
        """The books and the record of the run, which are opened after the display has begun."""
        self._ledger, self._record = ledger, record

    def notice(self, said: str) -> None:
        """Keep what was told last."""
        self.said = said

    def __call__(self, event: Event) -> None:
        match event:
            case NodeMade():
                self._nodes[event.subject, event.id] = event
                best = self._best_seen.get(event.subject)
                # A later one on a tie, as the search itself chooses.
                if event.reward is not None and (best is None or event.reward >= (best.reward or 0.0)):
                    self._best_seen[event.subject] = event
                if event.parent is not None and not event.kept:
                    self._newest = event
            case ProposalDropped():
                self._dropped += 1
            case LevelDone():
                self._levels[event.subject] = event
            case SearchDone():
                self._ended[event.subject] = event
            case Validated():
                self._validated = handed_over(event.result)

    def snapshot(self) -> Snapshot:
        """Where the run stands now."""
        now_s = self._clock()
        done, of = self._units()
        if self._live_since is None and self._record is not None and self._record.sent:
            self._live_since = (now_s, done)
        levels, limit = self._progress()
        config = self._plan.config
        return Snapshot(
            command=str(self._plan.identity["command"]),
            state=self.state,
            run=str(self._path),
            pid=os.getpid(),
            started_s=self._started_s,
            updated_s=now_s,
            elapsed_s=now_s - self._started_s,
            levels=levels,
            limit=limit,
            nodes=len(self._nodes),
            dropped=self._dropped,
            start_reward=self._mean([self._root(subject) for subject in self._levels]),
            best=self._best(),
            validated=self._validated,
            path=self._path_rewards(),
            change=self._newest_change(),
            **spent_so_far(config, self._ledger, self._record),
            left_s=self._left_s(now_s, done, of),
            said=self.said,
            simulated=self._plan.simulated,
        )

    def _progress(self) -> tuple[int, int | None]:
        if self._examples:
            return len(self._ended), self._examples
        level = self._levels.get(None)
        return (0, None) if level is None else (level.level + 1, level.limit)

    def _units(self) -> tuple[int, int]:
        """Levels done, and levels in all as of now: for examples those of all of them."""
        if not self._examples:
            done, limit = self._progress()
            return (limit or 0, limit or 0) if self._ended else (done, limit or 0)
        each = self._depth + 1
        started = {subject: level.level + 1 for subject, level in self._levels.items()}
        done = sum(each if subject in self._ended else count for subject, count in started.items())
        return done, each * self._examples

    def _left_s(self, now_s: float, done: int, of: int) -> float | None:
        """By the pace since the first call of this process: what the record answered took no time."""
        if self._live_since is None:
            return None
        since_s, before = self._live_since
        if done <= before:
            return None
        return (now_s - since_s) / (done - before) * max(0, of - done)

    def _root(self, subject: int | None) -> float | None:
        root = self._nodes.get((subject, 0))
        return None if root is None else root.reward

    def _leader(self, subject: int | None) -> NodeMade | None:
        """The result; else what it would be now: the first of the last beam, of an example the best seen."""
        if subject in self._ended:
            return self._nodes.get((subject, self._ended[subject].best))
        if self._examples:
            return self._best_seen.get(subject)
        level = self._levels.get(subject)
        return None if level is None else self._nodes.get((subject, level.beam[0]))

    def _best(self) -> float | None:
        leaders = [self._leader(subject) for subject in self._levels]
        if self._examples:
            return self._mean([leader.reward for leader in leaders if leader is not None])
        leader = leaders[0] if leaders else None
        if leader is None:
            return None
        # The start is outside of the path score, as in the published runs; its reward is still of use.
        return leader.reward if leader.parent is None else leader.score

    def _path_rewards(self) -> tuple[float | None, ...]:
        if self._examples:
            return ()
        rewards: list[float | None] = []
        node = self._leader(None)
        while node is not None:
            rewards.append(node.reward)
            node = None if node.parent is None else self._nodes.get((None, node.parent))
        return tuple(reversed(rewards))

    def _newest_change(self) -> tuple[tuple[str, str], ...]:
        node = self._newest
        if node is None or node.parent is None:
            return ()
        if self._change[0] is not node:
            parent = self._nodes[node.subject, node.parent]
            key = "response" if self._examples else "system_prompt"
            parts = word_diff(str(parent.state[key]), str(node.state[key]))
            self._change = (node, tuple((part.change, part.text) for part in parts))
        return self._change[1]

    @staticmethod
    def _mean(rewards: list[float | None]) -> float | None:
        known = [reward for reward in rewards if reward is not None]
        return sum(known) / len(known) if known else None


def spent_so_far(config: RunConfig, ledger: Ledger | None, record: Record | None) -> dict[str, Any]:
    """The fields of a `Snapshot` that tell of requests and money."""
    spent = {} if ledger is None else ledger.spent
    total = sum(spent.values(), Spent())
    return {
        "roles": {role: _role_progress(counts) for role, counts in spent.items()},
        "recorded": 0 if record is None else record.replayed,
        "calls": total.calls,
        "max_calls": config.max_calls,
        "usd": None if total.unpriced else total.usd,
        "held_usd": total.held_usd,
        "max_usd": config.max_usd,
    }


def _role_progress(spent: Spent) -> RoleProgress:
    return RoleProgress(
        in_air=spent.in_air,
        done=spent.answered,
        failed=spent.failed + spent.unknown,
        retried=spent.retried,
        prompt_tokens=spent.prompt_tokens,
        completion_tokens=spent.completion_tokens,
        usd=None if spent.unpriced else spent.usd,
        seconds=spent.seconds,
    )


def state_after(error: BaseException | None) -> RunState:
    """How a run stands that has ended this way."""
    if error is None:
        return "finished"
    if isinstance(error, BudgetSpent):
        return "budget"
    return "interrupted" if isinstance(error, (Interrupted, asyncio.CancelledError)) else "failed"
