"""Each endpoint and model is asked once, all at the same time, and what came back is put into words."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from drpo.config import RunConfig
from drpo.doctor.check import Check, of_error, ok, problem, warning
from drpo.doctor.keys import KeyOf
from drpo.doctor.questions import Question, without
from drpo.errors import DrpoError, ParameterRefused, ProviderDown
from drpo.llm.base import Completion, Request, Usage
from drpo.llm.client import OpenAIClient
from drpo.llm.connections import Connections
from drpo.llm.faults import one_line
from drpo.llm.retry import Transient, Unconnected

LONGEST_TIMEOUT_S = 30.0
_STATUS = re.compile(r": HTTP (\d{3}): ")
_TIMED_OUT = "no complete answer within"
_SAMPLED = "leaves it out: replies are sampled as the server likes"
_LEFT_OUT = {
    "temperature": _SAMPLED,
    "top_p": _SAMPLED,
    "max_tokens": "leaves it out: nothing bounds a reply, unless --max-thinking-tokens does",
    "seed": "leaves it out: the same question may be answered otherwise another time",
    "n": "the optimizer is asked for each proposal by itself, each time with the whole prompt",
    "stop": "leaves it out: what a model writes behind its answer is cut later, and paid for",
    "reply_schema": "leaves it out: replies are read as free text",
}
_UNANSWERED = ("content_filter", "context_length")


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of a question. sent: requests that went out. passing: it failed for what may pass, or for
    this server alone, so that others of the same model would serve meanwhile."""

    question: Question
    checks: tuple[Check, ...]
    sent: int
    usage: Usage
    passing: bool = False

    @property
    def failed(self) -> bool:
        """Whether there is no reply."""
        return any(check.status == "problem" for check in self.checks)


async def ask_all(
    questions: Sequence[Question], config: RunConfig, owners: Sequence[KeyOf], connections: Connections
) -> tuple[Answered, ...]:
    """What came of each question, all asked at once."""
    for question in questions:  # loading the SDK is no part of the first one's latency
        connections.client(question.endpoint)
    found = await asyncio.gather(*(_ask(question, config, connections) for question in questions))
    return tuple(_with_the_others(one, found) for one in _with_variables(found, owners))


def timeout_of(config: RunConfig) -> float:
    """How long one request may take here, in seconds."""
    return min(config.timeout_s, LONGEST_TIMEOUT_S)


async def _ask(question: Question, config: RunConfig, connections: Connections) -> Answered:
    """One request, one more for each parameter that is refused, and one where it failed for what may pass
    at once: a server that hangs, or that cannot be reached, is not asked twice."""
    timeout_s = timeout_of(config)
    client = OpenAIClient(connections, question.endpoint, question.model_name, timeout_s=timeout_s)
    request, refused, sent, is_first = question.request, list[str](), 0, True
    while True:
        began_s = time.monotonic()
        sent += 1
        try:
            completion = await client.complete(request)
        except ParameterRefused as error:
            rest = without(request, error.parameter, config.max_thinking_tokens)
            if rest == request:
                return Answered(question, (of_error("endpoint", error, _look(question)),), sent, Usage())
            refused.append(error.parameter)
            request = rest
        except Transient as error:
            sent -= error.charge == "unsent"
            if is_first and error.charge != "unsent" and _TIMED_OUT not in str(error):
                is_first = False
                continue
            return Answered(question, (_passing(error, config),), sent, Usage(), passing=True)
        except DrpoError as error:
            return Answered(question, (_refused(error),), sent, Usage())
        else:
            took_s = time.monotonic() - began_s
            checks = tuple(_reply(question, request, completion, took_s, refused))
            return Answered(question, checks, sent, completion.usage)


def _reply(
    question: Question, request: Request, completion: Completion, took_s: float, refused: Sequence[str]
) -> Iterator[Check]:
    served = one_line(completion.served_model, question.endpoint.api_key)
    how = " as a page to continue" if request.prompt is not None else ""
    as_what = f", under the name {served}" if served and served != question.model_name else ""
    known = f"; known to take no {' and no '.join(question.known)}" if question.known else ""
    yield ok("endpoint", f"{question.who} answered{how} in {took_s:.2f} s{as_what}{known}")
    for parameter in refused:
        said = f"{question.who} refuses {parameter}"
        remedy = f"Nothing: a run notices at its first request, and then {_consequence(parameter)}"
        yield warning("parameters", said, remedy)
    first = completion.choices[0]
    if first.finish_reason in _UNANSWERED and not first.text:
        said = f"{question.who} gave no text, but {first.finish_reason}"
        yield warning("endpoint", said, "Look at the server's filter and its context length")
        return
    if len(completion.choices) < request.n:
        said = f"{question.who} ignores n: {len(completion.choices)} of {request.n} replies came"
        yield warning("parameters", said, f"Nothing, but it costs more: {_LEFT_OUT['n']}")
    if request.reply_schema is not None and first.text.strip() and not first.text.lstrip().startswith("{"):
        said = f"{question.who} takes a JSON schema and does not keep to it"
        yield warning("parameters", said, "Replies may need a repair more often; --structured off says so")


def _consequence(parameter: str) -> str:
    return _LEFT_OUT.get(parameter, "leaves it out")


def _look(question: Question) -> str:
    return f"Look at the settings of {question.endpoint.shown}"


def _refused(error: DrpoError) -> Check:
    check = of_error("endpoint", error, "Check the endpoint, the model's name and the key")
    if "certificate" not in check.said:
        return check
    today = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return replace(check, remedy=f"{check.remedy}. A wrong clock has this effect too; here it is {today}")


def _passing(error: Transient, config: RunConfig) -> Check:
    """What a failure means that may pass: a run tries again until --deadline-s."""
    said = str(error)
    status = _STATUS.search(said)
    patience = f"a run asks again for up to {config.deadline_s:g} s"
    if isinstance(error, Unconnected):
        remedy = "Check that the server runs and listens there, the address, and the network"
        if "ssl" in said.lower():
            remedy = "Check whether the server speaks https at all, and else write http://"
    elif _TIMED_OUT in said:
        said += f" (a run waits {config.timeout_s:g} s)" if config.timeout_s > timeout_of(config) else ""
        remedy = "The server hangs, or has much to do: look at it, or raise --timeout-s"
    elif status is not None and status[1] == "429":
        return warning("endpoint", said, f"The server is asked too much just now: {patience}")
    elif status is not None:
        remedy = f"The server is in trouble: look at it, or try later; {patience}"
    else:
        remedy = "Check that the URL ends where the API begins (often /v1)"
    return problem("endpoint", said, remedy, ProviderDown)


def _with_variables(found: Sequence[Answered], owners: Sequence[KeyOf]) -> Iterator[Answered]:
    """The same, a refused key being named by its variable."""
    variables = {owner.role: " or ".join(owner.variables) for owner in owners}
    for one in found:
        checks = []
        for check in one.checks:
            status = _STATUS.search(check.said)
            if check.status == "problem" and status is not None and status[1] in ("401", "403"):
                named = " and ".join(dict.fromkeys(variables[role] for role in one.question.roles))
                check = replace(check, remedy=f"{check.remedy} ({named})")
            checks.append(check)
        yield replace(one, checks=tuple(checks))


def _with_the_others(one: Answered, found: Sequence[Answered]) -> Answered:
    """Of several servers of one model, one that is away is no problem: a run leaves it out."""
    same = (
        other
        for other in found
        if (other.question.model_name, other.question.roles) == (one.question.model_name, one.question.roles)
    )
    if not one.passing or all(other.failed for other in same):
        return one
    checks = tuple(
        warning(c.name, c.said, f"{c.remedy}; until then the other servers of the model serve")
        if c.status == "problem"
        else c
        for c in one.checks
    )
    return replace(one, checks=checks)
