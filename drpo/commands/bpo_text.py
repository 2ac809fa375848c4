"""What a build of prompt pairs came to, for people: from the content of its summary.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from drpo.bpo.filters import REASONS
from drpo.commands.terminal import line_of


def build_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """Line by line, with what was left out and why."""
    yield f"optimizer    {line_of(summary['models']['optimizer'])}"
    yield f"preferences  {int(summary['preferences'])} of {line_of(summary['source'])}"
    for why, count in summary["said_nothing"].items():
        yield f"             {int(count)} more say nothing: {line_of(why)}"
    yield f"kept         {int(summary['kept'])}, {int(summary['unchanged'])} of them unchanged"
    for why, said in REASONS.items():
        if count := int(summary["left_out"].get(why, 0)):
            yield f"left out     {count}: {said}"
