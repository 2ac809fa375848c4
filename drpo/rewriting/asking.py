"""Asks a model for a query in other words: by instruction, as it was trained, or as a reference prompter."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from drpo.ask import Asker, Sample, derived_seed
from drpo.compose import PromptForm, Sampling
from drpo.llm.base import Message, Request
from drpo.parse import Unreadable, read_rewrite
from drpo.reply_schemas import rewrite_schema
from drpo.rewriting.checks import cleaned, word_count
from drpo.rewriting.templates import Mode, RewriteTemplates
from drpo.types import Failed

Format = Literal["improve", "apply", "prompter"]
"""Which request is made: by instruction alone with a JSON reply, what a trained rewriter continues, or the
reference prompter's; the replies of the last two are the new query alone."""
TOKENS_A_WORD, LEAST_TOKENS = 16, 192
FIELD = "rewritten_query"


@dataclass(frozen=True, slots=True)
class Writer:
    """A model that rewrites. model: its identity. form: how it is asked where its reply is plain text.

    A reply is cut where it would be refused for its length in any case; a model that is asked for JSON writes
    its reasons too, so its whole limit holds.
    """

    asker: Asker
    model: str
    format: Format
    templates: RewriteTemplates
    sampling: Sampling
    form: PromptForm = "chat"
    mode: Mode = "stable"
    random_seed: int = 0

    def samples(self, query: str, place: str, n: int = 1) -> tuple[Sample[str], ...]:
        """`n` independent rewrites of `query`, in one request where the endpoint takes that. `place` tells
        them from others of the same query."""
        if self.format == "improve":
            request = self._request(
                self.templates.improve(query, self.mode), place, n, self.sampling.max_tokens
            )
            return self.asker.sample(request, lambda reply: read_rewrite(reply, FIELD), rewrite_schema(FIELD))

        def read(reply: str) -> str | Unreadable:
            return cleaned(reply, query)

        text = self.templates.apply(query) if self.format == "apply" else self.templates.prompter(query)
        longest = LEAST_TOKENS + TOKENS_A_WORD * word_count(query)
        most = self.sampling.max_tokens
        return self.asker.sample(
            self._request(text, place, n, longest if most is None else min(longest, most)), read
        )

    async def rewrite(self, query: str, place: str) -> str | Failed:
        """One rewrite, or why there is none."""
        return await self.samples(query, place)[0].value()

    def _request(self, text: str, place: str, n: int, max_tokens: int | None) -> Request:
        is_text = self.format != "improve" and self.form == "text"
        greedy = self.sampling.temperature == 0 and n == 1
        return Request(
            self.model,
            messages=() if is_text else (Message("user", text),),
            prompt=text if is_text else None,
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
            max_tokens=max_tokens,
            seed=None if greedy else derived_seed(self.random_seed, f"rewrite {place}"),
            n=n,
            role="rewriter",
        )


Left = Callable[[str, str], Awaitable[float | None]]
"""(query, rewrite) -> how much of the query's meaning is left, 0 to 1; None: judged by words."""


async def by_words(query: str, text: str) -> float | None:
    """Nothing is embedded."""
    return None
