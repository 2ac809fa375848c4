"""What a server's error means, and trying again: what is worth it, how long to wait, when to give up.

The only place that retries.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from random import Random
from typing import TYPE_CHECKING, Literal

from drpo.errors import ProviderDown, Stopped
from drpo.llm.base import LLM, Completion, Request
from drpo.llm.limits import Stop

if TYPE_CHECKING:
    from tenacity import AsyncRetrying, RetryCallState

FIRST_BACKOFF_S = 0.5
"""Upper end of the first wait; the openai SDK's own value."""
LONGEST_BACKOFF_S = 30.0
"""Upper end of any wait that the server did not ask for: half of the minute in which quotas are counted."""

_SHOWN = 300
_SECRETS = re.compile(r"(?i)(bearer\s+)[^\s\"',;]+|\b(sk-|gsk_|hf_|xai-|AIza)[\w*.\-]{3,}")

Meaning = Literal["filtered", "too_long", "no_credit", "passing", "final"]

_QUOTA = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
_FILTERED = {"content_filter", "content_policy_violation", "invalid_prompt"}
_TOO_LONG = {"context_length_exceeded", "exceed_context_size_error"}
_NOT_TAKEN = {"unsupported_parameter", "unsupported_value", "unknown_parameter"}
_STATUS_OF_CODE = {
    **dict.fromkeys((*_QUOTA, "rate_limit_exceeded", "rate_limit_error"), 429),
    **dict.fromkeys(("invalid_api_key", "authentication_error"), 401),
    **dict.fromkeys(("model_not_found", "not_found_error"), 404),
    **dict.fromkeys((*_FILTERED, *_TOO_LONG, *_NOT_TAKEN, "invalid_request_error", "BadRequestError"), 400),
}
_TOO_LONG_TEXT = re.compile(
    r"maximum context length|context window|context size|input token count|(?<!array )too long"
)
_NOT_TAKEN_TEXT = re.compile(
    r"not support|unsupported|unrecognized request argument|unexpected keyword|unknown (?:parameter|field)"
    r"|extra inputs are not permitted|cannot both be"
)
_ONLY_ONE = re.compile(r"must be (?:1|one)\b|at most (?:1|one)\b|only (?:n ?= ?)?1\b|<= ?1\b|n ?> ?1\b")
_FIELDS = ("temperature", "top_p", "max_tokens", "max_completion_tokens", "seed", "stop", "n")


class Transient(ProviderDown):
    """No usable answer this time, but perhaps the next: overload, a broken connection, a broken body.

    `retry_after_s` is what the server asked for. `took_s` is how long the failed try lasted.
    """

    def __init__(self, message: str, retry_after_s: float | None = None, took_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.took_s = took_s


@dataclass(frozen=True)
class Fault:
    """What a server said was wrong; `codes`: its code and its type, `param`: the parameter it names or ""."""

    status: int
    said: str
    codes: frozenset[str]
    param: str

    def meaning(self) -> Meaning:
        """Filtered content, a request too long, an empty account; else whether it may pass or is final."""
        text = self.said.lower()
        if self.status in (400, 403, 422) and self._is_filtered(text):
            return "filtered"
        if self.status in (400, 413, 422) and self._is_too_long(text):
            return "too_long"
        if self.status == 402 or (self.status == 429 and self.codes & _QUOTA):
            return "no_credit"
        if self.status in (408, 409, 429) or (self.status >= 500 and self.status not in (501, 505)):
            return "passing"
        return "final"

    def parameter_not_taken(self, sent: Collection[str]) -> str | None:
        """The field of `Request` among the wire names `sent` that the model does not take."""
        if self.status not in (400, 422):
            return None
        text = self.said.lower()
        places = {name: _place(name, text) for name in _FIELDS if name in sent}
        if self.param:
            places = {name: 0 for name in places if name == self.param.removeprefix("body.")}
        places = {name: place for name, place in places.items() if place >= 0}
        if not self.codes & _NOT_TAKEN and not _NOT_TAKEN_TEXT.search(text):
            places = {name: place for name, place in places.items() if name == "n" and _ONLY_ONE.search(text)}
        if not places:
            return None
        # "temperature and top_p cannot both be given": greedy needs its temperature
        name = "top_p" if "cannot both" in text and "top_p" in places else min(places, key=places.__getitem__)
        return "max_tokens" if name == "max_completion_tokens" else name

    def _is_filtered(self, text: str) -> bool:
        if self.codes & _FILTERED or "input was flagged" in text:
            return True
        return self.status == 400 and "flagged" in text and "account" not in text

    def _is_too_long(self, text: str) -> bool:
        return bool(self.codes & _TOO_LONG or self.param == "input_tokens" or _TOO_LONG_TEXT.search(text))


def read_fault(error: object, status: int | None = None) -> Fault:
    """The error body of a response, of any shape; without `status`, its own code says which it stands for."""
    if isinstance(error, dict) and isinstance(error.get("error"), (dict, str)):
        error = error["error"]
    if not isinstance(error, dict):
        return Fault(status or 500, str(error or ""), frozenset(), "")
    said = error.get("message") or error.get("detail") or error
    said = said if isinstance(said, str) else json.dumps(said, default=str)
    metadata = error.get("metadata")  # where a router quotes the provider behind it
    if isinstance(metadata, dict) and (raw := metadata.get("raw")):
        said = f"{said}: {raw}"
    codes = frozenset(str(code) for code in (error.get("code"), error.get("type")) if code is not None)
    param = error.get("param")
    return Fault(status or _status_of(codes), said, codes, param if isinstance(param, str) else "")


def one_line(text: str, key: str | None) -> str:
    """What a server said, fit to be shown: one line of at most 300 characters without markup or secrets."""
    if key and len(key) > 3:
        text = text.replace(key, "[key]")
    text = _SECRETS.sub(r"\1\2[key]", text)
    text = re.sub(r"//[^/\s@]+@", "//", re.sub(r"<[^>]*>", " ", text))
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _status_of(codes: Collection[str]) -> int:
    numbers = [int(code) for code in codes if re.fullmatch(r"[45]\d\d", code)]
    return (numbers or [_STATUS_OF_CODE[code] for code in sorted(codes) if code in _STATUS_OF_CODE] or [500])[
        0
    ]


def _place(name: str, text: str) -> int:
    """Where `text` speaks of the parameter `name`, -1 if nowhere; short names are also ordinary words."""
    if len(name) > 4:
        pattern = rf"(?<!\w){name}(?!\w)"
    else:
        before = r"(?:parameter|argument|keyword|field|value)s?(?: supplied)?:? "
        after = r" ?(?:parameter|value|must|is not|=|>)"
        pattern = rf"[\"'`]{name}[\"'`]|{before}{name}\b|(?<!\w){name}{after}"
    found = re.search(pattern, text)
    return found.start() if found else -1


def retry_after_s(headers: Mapping[str, str], now_s: float) -> float | None:
    """Seconds to wait by retry-after-ms or Retry-After (seconds or a date), None if neither can be read.

    `headers` ignores case or has names in lower case. A date is taken relative to the server's own Date
    header where there is one, so that a wrong clock here does no harm; else to `now_s`, seconds since 1970.
    """
    if (milliseconds := _seconds(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    if (seconds := _seconds(value)) is not None:
        return seconds
    if (then_s := _date_s(value)) is None:
        return None
    sent_s = _date_s(headers.get("date"))
    return max(0.0, then_s - (now_s if sent_s is None else sent_s))


def _seconds(value: str | None) -> float | None:
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _date_s(value: str | None) -> float | None:
    try:
        return parsedate_to_datetime(value or "").timestamp()
    except (ValueError, OverflowError):
        return None


class Retry:
    """An LLM that asks `inner` again after a `Transient` failure, and only then.

    Waits are exponential with full jitter, on top of what the server asks for. When the next wait would end
    more than `deadline_s` after the first failing try began, `ProviderDown` is raised at once. Retries go
    before equals when slots are short, or the deadline would pass in the queue. `sleep` returns True when the
    run ended meanwhile; it is `stop.wait` unless a test passes another.
    """

    def __init__(
        self,
        inner: LLM,
        stop: Stop,
        random: Random,
        *,
        deadline_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[bool]] | None = None,
    ) -> None:
        self.retries = 0
        self._inner = inner
        self._stop = stop
        self._deadline_s = deadline_s
        self._random = random
        self._clock = clock
        self._sleep = sleep or stop.wait

    async def complete(self, request: Request) -> Completion:
        try:
            return await self._inner.complete(request)
        except Transient as failure:
            first = failure
        began_s = self._clock() - first.took_s
        return await self._again(replace(request, priority=request.priority - 1), first, began_s)

    async def _again(self, request: Request, first: Transient, began_s: float) -> Completion:
        pending: list[Transient] = [first]

        async def attempt() -> Completion:
            if pending:  # the first try is over before tenacity comes in: it costs nothing when all is well
                raise pending.pop()
            self.retries += 1
            return await self._inner.complete(request)

        return await self._retrying(began_s)(attempt)

    def _retrying(self, began_s: float) -> AsyncRetrying:
        from tenacity import AsyncRetrying, retry_if_exception_type  # imported when first needed: 0.05 s

        def too_late(state: RetryCallState) -> bool:
            return self._clock() - began_s + state.upcoming_sleep > self._deadline_s

        def give_up(state: RetryCallState) -> Completion:
            tries = "1 try" if state.attempt_number == 1 else f"{state.attempt_number} tries"
            took_s = self._clock() - began_s
            raise ProviderDown(
                f"{_failure(state)} [gave up after {tries} over {took_s:.0f} s: the next wait"
                f" of {state.upcoming_sleep:.0f} s would pass the limit of {self._deadline_s:.0f} s]."
                " Everything answered so far is kept: the same command resumes once the provider is back."
            )

        return AsyncRetrying(
            retry=retry_if_exception_type(Transient),
            wait=self._wait_s,
            stop=too_late,
            sleep=self._pause,
            retry_error_callback=give_up,
        )

    def _wait_s(self, state: RetryCallState) -> float:
        asked_s = _failure(state).retry_after_s or 0.0
        # 2.0**k would overflow for a patient user; 60 doublings are past any cap
        backoff_s = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(state.attempt_number - 1, 60))
        return asked_s + self._random.uniform(0.0, backoff_s)

    async def _pause(self, seconds: float) -> None:
        if await self._sleep(seconds):
            self._stop.check()
            raise Stopped("not sent again, the run is ending")


def _failure(state: RetryCallState) -> Transient:
    failure = state.outcome.exception() if state.outcome else None
    assert isinstance(failure, Transient)
    return failure
