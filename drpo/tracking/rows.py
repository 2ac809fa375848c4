"""The figures of a run by level, as trackers that draw curves want them."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import fmean

from drpo.events import Event, LevelDone, NodeMade, ProposalDropped, SearchDone
from drpo.llm.ledger import CallDone, Spent


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one level of `optimize`, or of one example of `optimize-examples`.

    step: the level or the example's number, from 0; rows come in this order, and those of a resumed run are
    the same. metrics: by name; what is unknown is left out. `calls`, `input_tokens`, `output_tokens` and
    `usd` are of all processes of the run so far, and stand only where a request was sent since the last row:
    a level that comes from the record says nothing about them. prompt: the best one so far.
    """

    step: int
    metrics: dict[str, float]
    prompt: str | None = None


@dataclass(slots=True)
class _Search:
    """What has been heard of one search."""

    rewards: dict[int, float | None] = field(default_factory=dict)
    scores: dict[int, float | None] = field(default_factory=dict)
    prompts: dict[int, str | None] = field(default_factory=dict)
    level: list[float] = field(default_factory=list)
    dropped: int = 0
    levels: int = 0


class Rows:
    """Turns what a tracker is told into rows."""

    def __init__(self, spent: Spent | None = None) -> None:
        before = spent or Spent()
        self._calls, self._told = before.calls, False
        self._tokens = [before.prompt_tokens, before.completion_tokens]
        self._usd: float | None = None if before.unpriced else before.usd
        self._searches: dict[int | None, _Search] = {}
        self._ended: dict[int, SearchDone] = {}
        self._before: list[float] = []
        self._after: list[float] = []
        self._next = 0

    def call(self, call: CallDone) -> None:
        """A request has ended."""
        if call.ending == "unsent":
            return
        self._calls, self._told = self._calls + 1, True
        if call.usage is not None:
            self._tokens[0] += call.usage.prompt_tokens
            self._tokens[1] += call.usage.completion_tokens
        if call.usd is not None and self._usd is not None:
            self._usd += call.usd
        elif call.ending == "answered":
            self._usd = None  # one unknown price, and the sum is unknown

    def event(self, event: Event) -> tuple[Row, ...]:
        """The rows that are complete with this event."""
        search = self._searches.setdefault(event.subject, _Search())
        match event:
            case NodeMade():
                search.rewards[event.id], search.scores[event.id] = event.reward, event.score
                prompt = event.state.get("system_prompt")
                search.prompts[event.id] = prompt if isinstance(prompt, str) else None
                if event.reward is not None:
                    search.level.append(event.reward)
            case ProposalDropped():
                search.dropped += 1
            case LevelDone():
                search.levels += 1
                level, search.level = search.level, []
                if event.subject is None:
                    return (self._level_row(search, event, level),)
            case SearchDone():
                if event.subject is not None:
                    self._ended[event.subject] = event
                    return tuple(self._example_rows())
        return ()

    def _level_row(self, search: _Search, event: LevelDone, level: list[float]) -> Row:
        best = event.beam[0] if event.beam else None
        metrics: dict[str, float | None] = {
            "best_path_score": None if best is None else search.scores.get(best),
            "best_reward": max(level, default=None),
            "mean_reward": fmean(level) if level else None,
            "nodes": len(search.rewards),
            "dropped": search.dropped,
            "limit": event.limit,
            **self._spent(),
        }
        return Row(event.level, _known(metrics), None if best is None else search.prompts.get(best))

    def _example_rows(self) -> list[Row]:
        """Those whose turn it is: the examples end in any order."""
        rows: list[Row] = []
        while (end := self._ended.pop(self._next, None)) is not None:
            search = self._searches.pop(self._next)
            before, after = search.rewards.get(0), search.rewards.get(end.best)
            self._before += [] if before is None else [before]
            self._after += [] if after is None else [after]
            metrics: dict[str, float | None] = {
                "reward_before": before,
                "reward_after": after,
                "mean_reward_before": fmean(self._before) if self._before else None,
                "mean_reward_after": fmean(self._after) if self._after else None,
                "levels": search.levels,
                "nodes": len(search.rewards),
                "dropped": search.dropped,
                **self._spent(),
            }
            rows.append(Row(self._next, _known(metrics)))
            self._next += 1
        return rows

    def _spent(self) -> dict[str, float | None]:
        if not self._told:
            return {}
        self._told = False
        read, written = self._tokens
        return {"calls": self._calls, "input_tokens": read, "output_tokens": written, "usd": self._usd}


def _known(metrics: dict[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if value is not None}
