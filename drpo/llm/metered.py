"""An LLM whose every request is in the books of the run before it is sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from drpo.errors import ProviderRefused
from drpo.llm.base import LLM, Completion, Request, Usage
from drpo.llm.ledger import CallDone, Ending, Ledger, Ticket
from drpo.llm.retry import Charge, Transient
from drpo.llm.spent import is_whole

T = TypeVar("T")
TOKENS_A_MESSAGE = 32
"""Around each message a chat template puts marks and a role: 3 to 10 tokens in the templates known to us."""
TOKENS_A_REQUEST = 256
"""Some templates add a system prompt of their own: up to 80 tokens in those known to us (dates, tools)."""
_OF_CHARGE: dict[Charge, Ending] = {"none": "failed", "unsent": "unsent", "perhaps": "unknown"}


class Metered:
    """Stands right before a client: what a client is asked is one request on the wire."""

    def __init__(self, inner: LLM, ledger: Ledger) -> None:
        self._inner, self._ledger = inner, ledger

    async def complete(self, request: Request) -> Completion:
        """The inner model's reply. Raises BudgetSpent where the request could pass a limit."""
        ledger = self._ledger
        ticket = await ledger.open(request.role, request.model, most_tokens(request), again=request.again)
        try:
            completion = await self._inner.complete(request)
        except BaseException as error:
            ending = _end_with(ledger, ticket, error)
            self._tell(ticket, request, ending, problem=type(error).__name__)
            raise
        if completion.turned_away:
            ledger.failed(ticket)
            self._tell(ticket, request, "failed", problem=completion.choices[0].finish_reason)
            return completion
        whole = is_whole(completion.usage, [choice.text for choice in completion.choices])
        usd = ledger.answered(ticket, completion.usage, whole=whole)
        self._tell(ticket, request, "answered", completion, usd)
        return completion

    def _tell(
        self,
        ticket: Ticket,
        request: Request,
        ending: Ending,
        completion: Completion | None = None,
        usd: float | None = None,
        problem: str | None = None,
    ) -> None:
        took_s = self._ledger.seconds_since(ticket)
        finishes = () if completion is None else tuple(c.finish_reason for c in completion.choices)
        self._ledger.tell(
            CallDone(
                role=request.role,
                model=request.model,
                operation="chat" if request.prompt is None else "text_completion",
                began_s=ticket.began_s,
                took_s=took_s,
                ending=ending,
                again=request.again,
                usage=None if completion is None else completion.usage,
                usd=usd,
                finish_reasons=finishes,
                max_tokens=request.max_tokens or request.max_completion_tokens,
                temperature=request.temperature,
                problem=problem,
            )
        )


def most_tokens(request: Request) -> Usage | None:
    """The most tokens a request can use, None where nothing bounds its reply.

    No tokenizer makes more tokens of a text than it has bytes; templates add to that. That a reply has no
    more than was asked for is the server's to keep: see `Ledger` for one that does not.
    """
    longest = request.max_completion_tokens if request.max_tokens is None else request.max_tokens
    if longest is None:
        return None
    texts = [message.content for message in request.messages]
    texts += [text for text in (request.prompt, request.reply_schema) if text is not None]
    size = sum(len(text.encode("utf-8", "replace")) for text in texts)
    prompt = size + TOKENS_A_MESSAGE * len(request.messages) + TOKENS_A_REQUEST
    return Usage(prompt, max(1, request.n) * longest)


async def booked(ledger: Ledger, ticket: Ticket, ask: Callable[[], Awaitable[tuple[T, Usage]]]) -> T:
    """What `ask` gives besides its usage, which goes into the books as the end of `ticket`: of a request for
    embeddings, which whoever follows the calls is told of."""

    def tell(ending: Ending, usage: Usage | None, usd: float | None, problem: str | None = None) -> None:
        ledger.tell(
            CallDone(
                role=ticket.role,
                model=ticket.model,
                operation="embeddings",
                began_s=ticket.began_s,
                took_s=ledger.seconds_since(ticket),
                ending=ending,
                again=ticket.again,
                usage=usage,
                usd=usd,
                problem=problem,
            )
        )

    try:
        answer, usage = await ask()
    except BaseException as error:
        tell(_end_with(ledger, ticket, error), None, None, type(error).__name__)
        raise
    usd = ledger.answered(ticket, usage)
    tell("answered", usage if usage.prompt_tokens else None, usd)
    return answer


def _end_with(ledger: Ledger, ticket: Ticket, error: BaseException) -> Ending:
    ending = _ending(error)
    {"failed": ledger.failed, "unsent": ledger.unsent}.get(ending, ledger.unknown)(ticket)
    return ending


def _ending(error: BaseException) -> Ending:
    """What became of a request that raised `error`: whether it may have to be paid for."""
    if isinstance(error, Transient):
        return _OF_CHARGE[error.charge]
    return "failed" if isinstance(error, ProviderRefused) else "unknown"
