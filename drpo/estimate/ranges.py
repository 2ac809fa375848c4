"""A figure that is not known yet: at least, expected, at most."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Range:
    """least <= expected <= most; `most` is None where nothing bounds the figure."""

    least: float = 0.0
    expected: float = 0.0
    most: float | None = 0.0

    def __add__(self, other: Range) -> Range:
        return Range(
            self.least + other.least,
            self.expected + other.expected,
            None if self.most is None or other.most is None else self.most + other.most,
        )

    def times(self, other: Range) -> Range:
        """The product of two figures of which neither is negative; 0 of something unbounded is 0."""
        most: float | None
        if self.most is None or other.most is None:
            most = 0.0 if 0.0 in (self.most, other.most) else None
        else:
            most = self.most * other.most
        return Range(self.least * other.least, self.expected * other.expected, most)

    def less(self, known: float) -> Range:
        """What is left when `known` of it is behind us, never below 0."""
        most = None if self.most is None else max(0.0, self.most - known)
        return Range(max(0.0, self.least - known), max(0.0, self.expected - known), most)

    def scaled(self, shares: Range) -> Range:
        """Each of the three figures times its share."""
        most = None if self.most is None or shares.most is None else self.most * shares.most
        return Range(self.least * shares.least, self.expected * shares.expected, most)

    def ordered(self) -> Range:
        """The same with `expected` inside the two others: an average can lie outside of a short search."""
        most = self.most
        expected = max(self.least, self.expected if most is None else min(self.expected, most))
        return Range(self.least, expected, most)


def exactly(value: float) -> Range:
    """A figure that is known."""
    return Range(value, value, value)


def total(ranges: Iterable[Range]) -> Range:
    """Their sum; nothing gives 0."""
    found = Range()
    for one in ranges:
        found = found + one
    return found
