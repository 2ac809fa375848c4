"""What a validation came to, as plain values for alignment.json, events and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from drpo.statistics import Interval
from drpo.validation.decision import Standing, Verdict
from drpo.validation.race import Floor


@dataclass(frozen=True, slots=True)
class Compared:
    """One prompt on the kept queries. node: where the search found it, 0 for the initial prompt. mean: of its
    `scores` rewards, 1 to 5. gain: mean difference to the initial prompt over `pairs` queries, with the ends
    of its interval, which hold for all prompts at once. dropped: the round after which it was left out."""

    node: int
    system_prompt: str
    mean: float | None
    scores: int
    asked: int
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    pairs: int = 0
    dropped: int | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class FloorCheck:
    """What a prompt changes in the mean reward on a part of the safety queries. refused: it falls too far."""

    node: int
    name: str
    change: float | None
    low: float | None
    high: float | None
    pairs: int
    missing: int
    allowed: float
    refused: bool


@dataclass(frozen=True, slots=True)
class Validation:
    """The best prompts of a search against the initial one on queries that the search never saw.

    prompts: the initial one first, then the candidates in order of promise. chosen: the node of the prompt
    that is handed over, 0 for the initial one. gain: of the best candidate, corrected for having been picked
    as the best of several; low and high: the ends of its interval at `level`. better: low is above 0, and no
    floor refuses it. missing: rewards that could not be had, out of `asked`.
    """

    queries: int
    level: float
    prompts: tuple[Compared, ...]
    chosen: int
    better: bool
    gain: float | None
    low: float | None
    high: float | None
    asked: int
    missing: int
    floors: tuple[FloorCheck, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @property
    def prompt(self) -> str:
        """The system prompt that is handed over."""
        return next(item.system_prompt for item in self.prompts if item.node == self.chosen)

    @property
    def sentence(self) -> str:
        """What it came to, in words."""
        refused = [check for check in self.floors if check.refused]
        if self.better:
            return f"better than the initial prompt, by {self.figures} on {self.queries} kept queries"
        if refused:
            names = " and ".join(dict.fromkeys(check.name for check in refused))
            return f"no prompt is surely better than the initial one without losing on the {names} queries"
        if self.gain is None and any(item.dropped is not None for item in self.prompts[1:]):
            return "no prompt is better than the initial one: those compared with it were clearly worse"
        if self.gain is None:
            return "no prompt could be compared with the initial one"
        return f"no prompt is surely better than the initial one: the best by {self.figures}"

    @property
    def figures(self) -> str:
        """Gain and interval."""
        return f"{self.gain:+.2f} {interval_text(self.low, self.high)}"


def interval_text(low: float | None, high: float | None) -> str:
    """`[-0.10, +0.25]`."""
    return "[?]" if low is None or high is None else f"[{low:+.2f}, {high:+.2f}]"


def validation_of(
    first: Verdict,
    verdict: Verdict,
    nodes: Sequence[int],
    prompts: Sequence[str],
    floors: Sequence[FloorCheck],
) -> Validation:
    """The verdict in plain values. first: the one before any prompt was refused, which has them all. nodes,
    prompts: by the indices of its contenders."""

    def compared(standing: Standing) -> Compared:
        index = standing.contender.index
        low, high = _ends(standing.interval)
        return Compared(
            node=nodes[index],
            system_prompt=prompts[index],
            mean=standing.mean,
            scores=standing.scores,
            asked=standing.asked,
            gain=standing.gain,
            low=low,
            high=high,
            pairs=standing.pairs,
            dropped=standing.dropped,
            why=standing.why,
        )

    low, high = _ends(verdict.interval)
    return Validation(
        queries=verdict.queries,
        level=verdict.level,
        prompts=tuple(compared(standing) for standing in (first.initial, *first.standings)),
        chosen=nodes[verdict.chosen.index],
        better=verdict.better,
        gain=verdict.corrected,
        low=low,
        high=high,
        asked=first.measured,
        missing=first.missing,
        floors=tuple(floors),
    )


def floor_check(node: int, name: str, found: Floor) -> FloorCheck:
    """A floor in plain values."""
    low, high = _ends(found.interval)
    return FloorCheck(
        node, name, found.mean, low, high, found.pairs, found.missing, found.allowed, found.refused
    )


def read_validation(data: Mapping[str, Any] | None) -> Validation | None:
    """What `Validation.as_dict` gave. Raises KeyError or TypeError for anything else."""
    if data is None:
        return None
    prompts = tuple(Compared(**prompt) for prompt in data["prompts"])
    floors = tuple(FloorCheck(**check) for check in data["floors"])
    return Validation(**{**data, "prompts": prompts, "floors": floors})


def _ends(interval: Interval | None) -> tuple[float | None, float | None]:
    return (None, None) if interval is None else (interval.low, interval.high)
