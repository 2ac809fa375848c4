"""A conversation with an aligned model: several turns, the shots of the first one kept."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from drpo.errors import InputError
from drpo.measuring.results import rewrite_fields
from drpo.rewriting.contract import Rewrite
from drpo.types import Example, Failed
from drpo.use.asking import Using


@dataclass(slots=True)
class Conversation:
    """What was said so far. turns: (query, answer), the oldest first; shots: those of the first turn.

    rewrite: what the model reads in place of the first query; None where nothing is rewritten, or said yet.
    """

    using: Using
    turns: list[tuple[str, str]] = field(default_factory=list)
    shots: tuple[int, ...] | None = None
    cut_short: bool = False
    rewrite: Rewrite | None = None

    async def say(self, query: str) -> AsyncGenerator[str, None]:
        """The answer as it comes. One that is left in the middle is kept as far as it came; without a word
        nothing is kept. `cut_short` tells afterwards whether the model had more to say.

        Raises InputError where the conversation does not fit the context any more, and what the model raises.
        """
        asked = await self.using.asked(query, before=self.turns, shots=self.shots)
        if isinstance(asked, Failed):
            raise InputError(f"{asked.reason}. /reset begins anew")
        if self.shots is None:
            self.shots = asked.shots
        self.rewrite = asked.rewrite
        said: list[str] = []
        self.cut_short = True
        try:
            async with contextlib.aclosing(self.using.stream(asked)) as pieces:
                async for piece in pieces:
                    if piece.text:
                        said.append(piece.text)
                        yield piece.text
                    if piece.finish_reason is not None:
                        self.cut_short = piece.finish_reason == "length"
        finally:
            if said:
                self.turns.append((query, "".join(said)))

    def shown(self) -> tuple[Example, ...]:
        """The examples that stand before this conversation; none before its first turn."""
        return tuple(self.using.plan.subject.examples[index] for index in self.shots or ())

    def reset(self) -> None:
        """Forget all turns, and the shots that were chosen for the first one."""
        self.turns.clear()
        self.shots, self.cut_short, self.rewrite = None, False, None

    def as_json(self) -> str:
        """The conversation as one JSON document."""
        subject = self.using.plan.subject
        data: dict[str, Any] = {
            "alignment": subject.name,
            "model": self.using.plan.choice.identity,
            "system_prompt": subject.system_prompt,
            "shots": list(self.shots or ()),
            **rewrite_fields(self.rewrite),
            "turns": [{"query": query, "response": answer} for query, answer in self.turns],
        }
        return json.dumps(data, ensure_ascii=False, indent=2) + "\n"
