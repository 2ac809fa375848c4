"""How a base model is asked, as far as only its server knows: the prompt form, and what fits its context.

Whatever is found out here decides the search, so it is recorded and read back on resume and in replay.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from drpo.choices import ModelChoice
from drpo.compose import Composer, PromptForm, Sampling
from drpo.errors import InputError, ProviderRefused
from drpo.live import Resources, live_model, managed_server, server_facts
from drpo.llm.base import Message, Request, Role
from drpo.llm.limits import Stop
from drpo.llm.vllm.tokens import Refusal
from drpo.plan import digest_of
from drpo.types import Example, Failed

# A prompt that has fewer bytes than there is room, by this many, is not counted: no tokenizer in use makes
# more tokens than bytes, and templates add few (a date, a default remark, the marks of each message).
UNCOUNTED_TOKENS = 512
_MARKS_PER_MESSAGE = 16


async def choose_form(
    base: ModelChoice,
    wanted: PromptForm | Literal["auto"],
    resources: Resources,
    role: Role = "base",
) -> PromptForm:
    """How a model is asked that plays `role` and is not told how to reply. `auto`: the catalog knows base
    models; else a vLLM server's tokenizer decides, and where that cannot be asked the catalog, or one chat
    that is tried."""
    if wanted != "auto":
        return wanted

    async def probe() -> PromptForm:
        known: PromptForm | None = None
        if base.entry is not None and base.entry.form != "auto":
            known = base.entry.form
        if base.provider not in ("vllm", "local"):
            return known or "chat"
        if known == "text":
            return known  # some base models carry the chat template of their chat models
        told = await form_of_tokenizer(server_facts(base, resources))
        return told or known or await _tried_chat(base, resources, role)

    found = await resources.record.fact(f"prompt form of {base.identity}", probe)
    form: PromptForm = found if found in ("text", "chat-without-system") else "chat"
    return form


class Tokenizes(Protocol):
    """A server that can be asked what its model reads: `ServerFacts`."""

    async def tokens(self, request: Request) -> tuple[int, ...] | Refusal: ...


async def form_of_tokenizer(facts: Tokenizes) -> PromptForm | None:
    """What the server's chat template makes of a chat; None where the server does not tell.

    No template: text. One that refuses a system message, or reads as if there were none: chat-without-system.
    """

    async def ids(*messages: Message) -> tuple[int, ...] | Refusal:
        return await facts.tokens(Request("", messages=messages))

    question = Message("user", "Hello")
    alone = await ids(question)
    if isinstance(alone, Refusal):
        return None if alone.status in (200, 404, 405, 501) else "text"
    one = await ids(Message("system", "Be brief."), question)
    other = await ids(Message("system", "Answer at length."), question)
    return "chat-without-system" if isinstance(one, Refusal) or one == other else "chat"


async def _tried_chat(base: ModelChoice, resources: Resources, role: Role) -> PromptForm:
    """For a server that cannot be asked for tokens: a chat is tried once."""
    request = Request(base.identity, messages=(Message("user", "Hello"),), max_tokens=1, role=role)
    try:
        # With an end of its own: that a chat is refused is an answer here, and not the end of the run.
        await live_model(base, resources, stop=Stop()).complete(request)
    except ProviderRefused as refused:
        if "chat template" in str(refused).lower():
            return "text"
        raise
    return "chat"


@dataclass(slots=True)
class ContextFit:
    """Drops shots, farthest first, until prompt and answer fit the context; how often is counted.

    limit: tokens of prompt and answer together. count: tokens of a request, None where that cannot be told.
    """

    composer: Composer
    sampling: Sampling
    limit: int
    count: Callable[[Request], Awaitable[int | None]]
    shortened: int = field(default=0, init=False)
    refused: int = field(default=0, init=False)
    asked: int = field(default=0, init=False)

    async def shots_that_fit(self, system_prompt: str, shots: Sequence[Example], query: str) -> int | Failed:
        """How many of `shots` (nearest first) can be shown."""
        self.asked += 1
        room = self.limit - (self.sampling.max_tokens or 0)
        tokens: int | None = None
        for kept in range(len(shots), -1, -1):
            request = self.composer.request("", self.sampling, system_prompt, shots[:kept], query)
            tokens = None if _most_tokens(request) <= room else await self.count(request)
            if tokens is None or tokens <= room:
                self.shortened += kept < len(shots)
                return kept
        self.refused += 1
        return Failed(
            f"the prompt has {tokens} tokens without any shot, {room} are left of the base model's context "
            f"of {self.limit} beside an answer of {self.sampling.max_tokens}"
        )

    def report(self) -> str | None:
        """How often the context was too short, in words; None if it never was."""
        if not self.shortened and not self.refused:
            return None
        return (
            f"context of {self.limit} tokens: of {self.asked} prompts {self.shortened} lost shots, "
            f"{self.refused} did not fit without any"
        )


def _most_tokens(request: Request) -> int:
    """More tokens than the request can have."""
    texts = [request.prompt] if request.prompt is not None else [m.content for m in request.messages]
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    return size + _MARKS_PER_MESSAGE * len(request.messages) + UNCOUNTED_TOKENS


async def fit_context(
    base: ModelChoice,
    long_prompts: Literal["drop-shots", "as-is"],
    resources: Resources,
    composer: Composer,
    sampling: Sampling,
) -> ContextFit | None:
    """What keeps prompts within the base model's context; None where nothing is to be kept or known.

    sampling: says how long an answer may be. Raises InputError where that leaves no room for any prompt.
    """
    longest = sampling.max_tokens or 0
    if long_prompts == "as-is" or base.provider not in ("vllm", "local"):
        return None
    facts = server_facts(base, resources) if resources.live else None

    async def ask_limit() -> int | None:
        assert facts is not None
        return await facts.context_tokens()

    async def count(request: Request) -> int | None:
        async def ask() -> int | None:
            assert facts is not None
            ids = await facts.tokens(request)
            return None if isinstance(ids, Refusal) else len(ids)

        said = [request.prompt, *([m.role, m.content] for m in request.messages)]
        value = await resources.record.fact(f"tokens of {digest_of(said)} at {base.identity}", ask)
        return None if value is None else int(value)

    limit = await resources.record.fact(f"context of {base.identity}", ask_limit)
    if limit is None:
        return None
    if resources.live and base.server is not None:
        managed_server(base, resources).least_context = int(limit)
    if longest >= limit:
        raise InputError(
            f"--base-max-tokens {longest}: {base.identity} has a context of {limit} tokens, "
            f"which leaves none for a prompt. Give --base-max-tokens {max(1, limit // 4)}, for example"
        )
    return ContextFit(composer, sampling, int(limit), count)
