"""Trying again: what is worth it, how long to wait, when to give up.

The only place that retries.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from email.utils import parsedate_to_datetime
from random import Random
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from drpo.errors import ProviderDown, Stopped
from drpo.llm.base import LLM, Completion, Request
from drpo.llm.limits import Stop

if TYPE_CHECKING:
    from tenacity import AsyncRetrying, RetryCallState

T = TypeVar("T")
Charge = Literal["none", "perhaps", "unsent"]

FIRST_BACKOFF_S = 0.5
"""Upper end of the first wait; the openai SDK's own value."""
LONGEST_BACKOFF_S = 30.0
"""Upper end of any wait that the server did not ask for: half of the minute in which quotas are counted."""


class Transient(ProviderDown):
    """No usable answer this time, but perhaps the next: overload, a broken connection, a broken body.

    `retry_after_s` is what the server asked for. `took_s` is how long the failed try lasted. `charge`:
    whether it may have to be paid for all the same ("perhaps": no answer came, or none that can be read), or
    was turned away ("none"), or never left this machine ("unsent"). `status` is the HTTP status, 504 where
    the answer did not come in time, None where none could be read.
    """

    def __init__(
        self,
        message: str,
        retry_after_s: float | None = None,
        took_s: float = 0.0,
        charge: Charge = "perhaps",
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
        self.took_s = took_s
        self.charge = charge


class Unconnected(Transient):
    """No connection could be made, or it broke before an answer: another server may well have one."""


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


class Patience:
    """Tries work again after a `Transient` failure, and only then.

    Waits are exponential with full jitter, on top of what the server asks for. When the next wait would end
    more than `deadline_s` after the first failing try began, `ProviderDown` is raised at once. `sleep`
    returns True when the run ended meanwhile; it is `stop.wait` unless a test passes another.
    """

    def __init__(
        self,
        stop: Stop,
        random: Random,
        *,
        deadline_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[bool]] | None = None,
    ) -> None:
        self.retries = 0
        self._stop = stop
        self._deadline_s = deadline_s
        self._random = random
        self._clock = clock
        self._sleep = sleep or stop.wait

    async def insist(self, first: Transient, work: Callable[[], Awaitable[T]]) -> T:
        """The result of `work`, after a `first` try that failed."""
        began_s = self._clock() - first.took_s
        pending: list[Transient] = [first]

        async def attempt() -> T:
            if pending:  # the first try is over before tenacity comes in: it costs nothing when all is well
                raise pending.pop()
            self.retries += 1
            return await work()

        return await self._retrying(began_s)(attempt)

    def _retrying(self, began_s: float) -> AsyncRetrying:
        from tenacity import AsyncRetrying, retry_if_exception_type  # imported when first needed: 0.05 s

        def too_late(state: RetryCallState) -> bool:
            return self._clock() - began_s + state.upcoming_sleep > self._deadline_s

        def give_up(state: RetryCallState) -> Any:
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


class Retry:
    """An LLM that asks `inner` again as `Patience` says, whose arguments it takes.

    Retries go before equals when slots are short, or the deadline would pass in the queue.
    """

    def __init__(self, inner: LLM, stop: Stop, random: Random, **patience: Any) -> None:
        self._inner = inner
        self._patience = Patience(stop, random, **patience)

    @property
    def retries(self) -> int:
        """How often a request was sent again."""
        return self._patience.retries

    async def complete(self, request: Request) -> Completion:
        try:
            return await self._inner.complete(request)
        except Transient as failure:
            first = failure
        again = replace(request, priority=request.priority - 1, again=True)
        return await self._patience.insist(first, lambda: self._inner.complete(again))


def _failure(state: RetryCallState) -> Transient:
    failure = state.outcome.exception() if state.outcome else None
    assert isinstance(failure, Transient)
    return failure
