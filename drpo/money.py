"""Sums of money in words, everywhere the same."""

from __future__ import annotations


def dollars(usd: float) -> str:
    """`$0`, `<$0.0001`, `$0.0123`, `$12.34`: small sums to the hundredth of a cent. What is less than that is
    never told as nothing."""
    if usd == 0:
        return "$0"
    if usd < 0.0001:
        return "<$0.0001"
    return f"${usd:,.4f}" if usd < 1 else f"${usd:,.2f}"
