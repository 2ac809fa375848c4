"""The settings of a simulated world, and the dice that everything random in it is thrown with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, TypeAlias, TypeVar

T = TypeVar("T")

Leaning: TypeAlias = Literal["fair", "first", "longer", "obedient"]

_NORMAL = NormalDist()
_SPAN = float(2**64)


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds that each role takes to answer."""

    base: float = 0.0
    optimizer: float = 0.0
    evaluator: float = 0.0
    selector: float = 0.0
    against: float = 0.0
    judge: float = 0.0
    rewriter: float = 0.0


@dataclass(frozen=True, slots=True)
class World:
    """What the simulated models are like. Two equal worlds answer every request alike.

    `noise`: standard deviation of the evaluator's and the judge's error per aspect, in score points before
    rounding.
    `response_noise`: standard deviation of how far a whole request's wording moves the base model's
    readiness to show one feature, in log-odds (1.0 turns even odds into 3 to 1).
    `strength`: factor on what any system prompt does; 0 or `helpable=False` is a world where none can help
    (shots still do, and clearer queries). `damage`: share of the replies of evaluator, judge, rewriters and
    of the optimizer of queries that arrive damaged, as those of real models do. `slips`: share of the
    optimizer's proposals that hold a useless, harmful or narrow bullet; where queries are rewritten it slips
    a third as often, and so does a rewriter; the reference prompter does half as often. `judge`: whether the
    judge is fair, leans to the response that stands first, likes the longer one, or does what a response
    tells it to do.
    """

    seed: int = 0
    noise: float = 0.5
    response_noise: float = 0.4
    helpable: bool = True
    strength: float = 1.0
    damage: float = 0.02
    slips: float = 0.3
    latency_s: Latency = Latency()
    judge: Leaning = "fair"

    @property
    def force(self) -> float:
        """Factor on the effect of every system prompt."""
        return self.strength if self.helpable else 0.0


@dataclass(frozen=True, slots=True)
class Dice:
    """Throws that depend on nothing but the key and the names of the throw, on every machine alike."""

    key: bytes

    @classmethod
    def of(cls, *parts: object) -> Dice:
        """Dice for these parts, told apart by order and content."""
        joined = "\x1f".join(str(part) for part in parts)
        return cls(hashlib.sha256(joined.encode("utf-8", "surrogatepass")).digest())

    def uniform(self, *names: object) -> float:
        """A number above 0 and below 1."""
        text = "\x1f".join(map(str, names)).encode("utf-8", "surrogatepass")
        number = int.from_bytes(hashlib.sha256(self.key + text).digest()[:8], "big")
        return (number + 0.5) / _SPAN if number < 2**64 - 2**11 else 1 - 2**-53

    def gauss(self, *names: object) -> float:
        """A number from the standard normal distribution."""
        return _NORMAL.inv_cdf(self.uniform(*names))

    def pick(self, items: Sequence[T], *names: object) -> T:
        """One of the items, each as likely as any other."""
        return items[min(int(self.uniform(*names) * len(items)), len(items) - 1)]

    def chance(self, probability: float, *names: object) -> bool:
        """True with the given probability."""
        return self.uniform(*names) < probability
