"""The optimizer: state and feedback -> candidate states (DRPO, 3.2.2 and 3.2.3, Appendix E.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drpo.ask import Asker, Sample, derived_seed
from drpo.compose import Sampling
from drpo.llm.base import Message, Request
from drpo.parse import Unreadable, read_rewrite
from drpo.reply_schemas import rewrite_schema
from drpo.types import Evaluation

MOST_BULLETS, MOST_NEW_BULLETS = 8, 2  # told to the optimizer, never filters: published proposals break both
VERSIONS_SHOWN = 5  # prompts of the path that the optimizer sees, the current one last (rule 7)
OPTIMIZER_SAMPLING = Sampling(temperature=0.2, top_p=0.95, max_tokens=2048)  # as the published runs


@dataclass(frozen=True, slots=True)
class Optimizer:
    """Asks an optimizer model for better system prompts or responses, n at a time in one request."""

    asker: Asker
    model: str
    sampling: Sampling
    random_seed: int = 0
    protected: tuple[str, ...] = ()

    def improve_system_prompt(
        self, history: Sequence[str], query: str, response: str, evaluation: Evaluation, place: str, n: int
    ) -> tuple[Sample[str], ...]:
        """`n` proposals. `history`: the system prompts on the path, the current one last."""
        text = self.asker.templates.render(
            "improve_system_prompt",
            system_prompt=history[-1],
            query=query,
            response=response,
            evaluation=evaluation.as_dict(),
            history=versions(history),
            protected=self.protected,
            most_bullets=MOST_BULLETS,
            most_new_bullets=MOST_NEW_BULLETS,
        )
        return self.asker.sample(
            self._request(text, place, n), self._read_system_prompt, rewrite_schema("new_system_prompt")
        )

    def improve_response(
        self, history: Sequence[str], query: str, evaluation: Evaluation, place: str, n: int
    ) -> tuple[Sample[str], ...]:
        """`n` better responses to `query`. `history`: the responses on the path, the current one last."""
        text = self.asker.templates.render(
            "improve_response",
            query=query,
            response=history[-1],
            evaluation=evaluation.as_dict(),
            history=versions(history) if len(history) > 1 else "",
        )
        return self.asker.sample(
            self._request(text, place, n),
            lambda reply: read_rewrite(reply, "new_response"),
            rewrite_schema("new_response"),
        )

    def _request(self, text: str, place: str, n: int) -> Request:
        greedy = self.sampling.temperature == 0 and n == 1
        return Request(
            self.model,
            messages=(Message("user", text),),
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
            max_tokens=self.sampling.max_tokens,
            seed=None if greedy else derived_seed(self.random_seed, place),
            n=n,
            role="optimizer",
        )

    def _read_system_prompt(self, reply: str) -> str | Unreadable:
        prompt = read_rewrite(reply, "new_system_prompt")
        if isinstance(prompt, Unreadable):
            return prompt
        lost = next((passage for passage in self.protected if passage not in prompt), None)
        if lost is not None:
            return Unreadable(f'the new system prompt lost the protected passage "{lost[:80]}"')
        return prompt


def versions(history: Sequence[str]) -> str:
    """The last five texts of a path, numbered from 1, the current one last (rule 7 of the published runs)."""
    shown = history[-VERSIONS_SHOWN:]
    parts = [f"---Version {number}---\n{text}" for number, text in enumerate(shown[:-1], 1)]
    return "\n\n".join([*parts, f"---Current Version---\n{shown[-1]}"])
