"""The result: a system prompt, examples, K and how to render them, with how it was found."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from drpo.compose import RESPOND_TEMPLATES, Composer, PromptForm, Sampling
from drpo.errors import InputError
from drpo.jsonl import write_atomically
from drpo.llm.base import Message
from drpo.retrieve import Retriever
from drpo.templates import Templates
from drpo.types import Example
from drpo.validation.result import Validation, read_validation

AnswerEnd = Literal["cut", "as-written"]
SCHEMA = 1
FILE_NAME = "alignment.json"


@dataclass(frozen=True, slots=True)
class Found:
    """How an alignment was found. `calls`: distinct requests per role, whenever they were sent."""

    settings: dict[str, Any]
    path_score: float | None
    path_rewards: tuple[float, ...]
    nodes: int
    levels: int
    ended: str
    calls: dict[str, int]


@dataclass(frozen=True, slots=True)
class Alignment:
    """A system prompt and examples of which the `shots` nearest to the query are shown.

    embedder: identity of what finds them. models: identity per role. simulated: some model was `demo`, so the
    figures say nothing about real models. template_digest: of the template it was searched with. answer_end:
    whether what a base model writes behind the end of its answer was cut. validation: what the best prompts
    were worth on queries kept from the search; `system_prompt` is then the one that stood it, which may be
    the initial one, while `found` tells of the search's own best.
    """

    system_prompt: str
    examples: tuple[Example, ...]
    shots: int
    prompt_form: PromptForm
    embedder: str
    models: dict[str, str]
    sampling: Sampling
    template_digest: str
    found: Found
    simulated: bool = False
    answer_end: AnswerEnd = "as-written"
    validation: Validation | None = None

    def save(self, path: Path) -> None:
        """Write atomically; equal alignments give equal bytes."""
        write_atomically(path, self.as_json())

    def as_json(self) -> str:
        """The text of alignment.json."""
        return json.dumps(self.as_dict(), ensure_ascii=False, indent=2) + "\n"

    def as_dict(self) -> dict[str, Any]:
        """The content of alignment.json."""
        found = self.found
        return {
            "schema": SCHEMA,
            "system_prompt": self.system_prompt,
            "examples": [{"query": e.query, "response": e.response, "kind": e.kind} for e in self.examples],
            "shots": self.shots,
            "prompt_form": self.prompt_form,
            "answer_end": self.answer_end,
            "embedder": self.embedder,
            "models": self.models,
            "sampling": {
                "temperature": self.sampling.temperature,
                "top_p": self.sampling.top_p,
                "max_tokens": self.sampling.max_tokens,
            },
            "template_digest": self.template_digest,
            "simulated": self.simulated,
            **({} if self.validation is None else {"validation": self.validation.as_dict()}),
            "found": {
                "path_score": found.path_score,
                "path_rewards": list(found.path_rewards),
                "nodes": found.nodes,
                "levels": found.levels,
                "ended": found.ended,
                "calls": found.calls,
                "settings": found.settings,
            },
        }


def read_alignment(path: Path) -> Alignment:
    """The alignment of a run directory or of a file."""
    file = path / FILE_NAME if path.is_dir() else path
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        hint = (
            "the run has not finished: run its command again to resume it"
            if path.is_dir()
            else "no such file"
        )
        raise InputError(f"{file}: {hint}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: expected the JSON of an alignment: {error}") from None
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise InputError(
            f"{file}: expected an alignment of schema {SCHEMA}, found {schema!r}; use the drpo that wrote it"
        )
    try:
        return _from_dict(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{file}: expected the fields of an alignment, {error} is missing or of another type"
        ) from None


def _from_dict(data: dict[str, Any]) -> Alignment:
    found = dict(data["found"])
    form = data["prompt_form"]
    if form not in RESPOND_TEMPLATES or not isinstance(data["system_prompt"], str):
        raise TypeError("prompt_form or system_prompt")
    examples = tuple(Example(**example) for example in data["examples"])
    if not all(isinstance(part, str) for example in examples for part in (example.query, example.response)):
        raise TypeError("a query or response")
    if not 0 <= int(data["shots"]) <= len(examples):
        raise ValueError(f"shots = {data['shots']} of {len(examples)} examples")
    return Alignment(
        system_prompt=data["system_prompt"],
        examples=examples,
        shots=int(data["shots"]),
        prompt_form=form,
        embedder=str(data["embedder"]),
        models=dict(data["models"]),
        sampling=Sampling(**data["sampling"]),
        template_digest=data["template_digest"],
        found=Found(**{**found, "path_rewards": tuple(found["path_rewards"])}),
        simulated=bool(data["simulated"]),
        answer_end="cut" if data.get("answer_end") == "cut" else "as-written",
        validation=read_validation(data.get("validation")),
    )


@dataclass(frozen=True, slots=True)
class Aligned:
    """An alignment ready for use: what `drpo.load` gives. Renders as the search did, with all K shots.

    The search leaves out the shots that do not fit its server's context; here no server is known.
    """

    alignment: Alignment
    composer: Composer
    retriever: Retriever
    _memory: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False)

    async def find_shots(self, query: str) -> tuple[Example, ...]:
        """The K examples nearest to `query`, nearest first."""
        if query not in self._memory:
            self._memory[query] = (await self.retriever.top_k([query], self.alignment.shots))[0]
        return tuple(self.alignment.examples[index] for index in self._memory[query])

    async def render_messages(self, query: str) -> tuple[Message, ...]:
        """The chat messages for `query`."""
        return self.composer.messages(self.alignment.system_prompt, await self.find_shots(query), query)

    async def render_text(self, query: str) -> str:
        """The page for a base model."""
        return self.composer.text(self.alignment.system_prompt, await self.find_shots(query), query)

    def answer(self, written: str) -> str:
        """The answer in what the model has written, cut as in the search."""
        return self.composer.answer(written)


def template_digest(templates: Templates, form: PromptForm) -> str:
    """Tells whether a prompt is rendered by the template it was searched with."""
    digest = templates.digests()[RESPOND_TEMPLATES[form]]
    return hashlib.sha256(f"{form}:{digest}".encode()).hexdigest()[:16]
