"""Trying again: what is retried, how long it waits, when it gives up; and what a server's error means."""

import asyncio
from collections.abc import Callable
from random import Random

import pytest

from drpo.errors import Interrupted, ParameterRefused, ProviderDown, ProviderRefused, Stopped
from drpo.llm.base import Choice, Completion, Message, Request
from drpo.llm.faults import read_fault
from drpo.llm.limits import Limit, Slots, Stop
from drpo.llm.retry import FIRST_BACKOFF_S, LONGEST_BACKOFF_S, Retry, Transient, retry_after_s

REQUEST = Request("m", messages=(Message("user", "hi"),), priority=3)
DONE = Completion((Choice("done"),))


class Script:
    """An LLM that gives the scripted results one by one, the last of them for ever."""

    def __init__(self, *results: Completion | BaseException) -> None:
        self.results = list(results)
        self.requests: list[Request] = []

    async def complete(self, request: Request) -> Completion:
        self.requests.append(request)
        result = self.results.pop(0) if len(self.results) > 1 else self.results[0]
        if isinstance(result, BaseException):
            raise result
        return result


class Clock:
    """Time that passes only in `sleep`."""

    def __init__(self, stop: Stop | None = None) -> None:
        self.now_s = 1000.0
        self.slept: list[float] = []
        self.stop = stop or Stop()
        self.on_sleep: Callable[[], None] = lambda: None

    async def sleep(self, seconds: float) -> bool:
        self.slept.append(seconds)
        self.now_s += seconds
        self.on_sleep()
        return self.stop.is_set


def patient(inner: Script | Limit, clock: Clock, *, deadline_s: float = 600.0, seed: int = 1) -> Retry:
    return Retry(
        inner,
        clock.stop,
        Random(seed),
        deadline_s=deadline_s,
        clock=lambda: clock.now_s,
        sleep=clock.sleep,
    )


async def test_a_reply_is_passed_on_without_waiting() -> None:
    clock, script = Clock(), Script(DONE)
    retry = patient(script, clock)
    assert await retry.complete(REQUEST) is DONE
    assert clock.slept == [] and retry.retries == 0 and script.requests == [REQUEST]


async def test_transient_failures_are_tried_again_until_an_answer_comes() -> None:
    clock, script = Clock(), Script(Transient("busy"), Transient("busy"), DONE)
    retry = patient(script, clock)
    assert await retry.complete(REQUEST) is DONE
    assert retry.retries == 2 and len(clock.slept) == 2


@pytest.mark.parametrize(
    "error", [ProviderRefused("no"), ParameterRefused("seed", "no"), ProviderDown("x"), KeyError()]
)
async def test_nothing_but_a_transient_failure_is_tried_again(error: Exception) -> None:
    clock, script = Clock(), Script(error)
    with pytest.raises(type(error)) as caught:
        await patient(script, clock).complete(REQUEST)
    assert caught.value is error and len(script.requests) == 1


async def test_a_refusal_after_a_transient_failure_ends_the_tries() -> None:
    refused = ProviderRefused("no")
    script = Script(Transient("busy"), refused, DONE)
    with pytest.raises(ProviderRefused) as caught:
        await patient(script, Clock()).complete(REQUEST)
    assert caught.value is refused and len(script.requests) == 2


async def test_waits_double_with_full_jitter_up_to_a_cap() -> None:
    clock = Clock()
    with pytest.raises(ProviderDown):
        await patient(Script(Transient("busy")), clock, deadline_s=1000.0).complete(REQUEST)
    highest = [min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2**k) for k in range(len(clock.slept))]
    draw = Random(1)
    assert clock.slept == [draw.uniform(0.0, top) for top in highest]
    assert len(clock.slept) > 20


async def test_two_sources_of_randomness_wait_differently() -> None:
    waits = []
    for seed in (1, 2):
        clock = Clock()
        await patient(Script(Transient("busy"), DONE), clock, seed=seed).complete(REQUEST)
        waits.append(clock.slept)
    assert waits[0] != waits[1]


async def test_a_wait_is_never_shorter_than_the_server_asks_for() -> None:
    clock = Clock()
    await patient(Script(Transient("busy", retry_after_s=20.0), DONE), clock).complete(REQUEST)
    assert 20.0 <= clock.slept[0] <= 20.0 + FIRST_BACKOFF_S


async def test_a_wait_past_the_deadline_gives_up_at_once_and_says_how_to_resume() -> None:
    clock, script = Clock(), Script(Transient("evaluator model m: HTTP 503: busy", retry_after_s=700.0))
    with pytest.raises(ProviderDown) as caught:
        await patient(script, clock).complete(REQUEST)
    assert clock.slept == [] and len(script.requests) == 1
    message = str(caught.value)
    for part in ("HTTP 503: busy", "1 try over 0 s", "limit of 600 s", "the same command resumes"):
        assert part in message
    assert not isinstance(caught.value, Transient) and caught.value.exit_code == 5


async def test_the_deadline_counts_from_the_begin_of_the_first_failing_try() -> None:
    clock, script = Clock(), Script(Transient("hung", took_s=599.9, retry_after_s=1.0))
    with pytest.raises(ProviderDown, match="1 try over 600 s"):
        await patient(script, clock).complete(REQUEST)


async def test_the_message_of_giving_up_counts_tries_and_seconds() -> None:
    clock, script = Clock(), Script(Transient("busy", retry_after_s=4.0))
    with pytest.raises(ProviderDown, match=r"busy \[gave up after 3 tries over (8|9) s"):
        await patient(script, clock, deadline_s=12.0).complete(REQUEST)


async def test_retries_go_before_their_equals() -> None:
    script = Script(Transient("busy"), Transient("busy"), DONE)
    await patient(script, Clock()).complete(REQUEST)
    assert [request.priority for request in script.requests] == [3, 2, 2]


async def test_a_stop_ends_the_wait_and_the_request_is_not_sent_again() -> None:
    clock, script = Clock(), Script(Transient("busy"))
    clock.on_sleep = lambda: clock.stop.set(Interrupted("asked to stop"))
    with pytest.raises(Stopped, match="asked to stop"):
        await patient(script, clock).complete(REQUEST)
    assert len(script.requests) == 1


async def test_by_default_the_wait_is_that_of_the_stop() -> None:
    stop, script = Stop(), Script(Transient("busy", retry_after_s=500.0))
    task = asyncio.ensure_future(Retry(script, stop, Random(1), deadline_s=600.0).complete(REQUEST))
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(script.requests) == 1 and not task.done()
    stop.set(Interrupted("asked to stop"))
    with pytest.raises(Stopped):
        await task


async def test_cancellation_passes_untouched() -> None:
    for results in ((asyncio.CancelledError(),), (Transient("busy"), asyncio.CancelledError())):
        script = Script(*results)
        with pytest.raises(asyncio.CancelledError):
            await patient(script, Clock()).complete(REQUEST)
        assert len(script.requests) == len(results)


async def test_backing_off_holds_no_slot() -> None:
    clock, slots = Clock(), Slots(1)
    retry = patient(Limit(Script(Transient("busy"), DONE), slots, clock.stop), clock)
    held: list[int] = []
    clock.on_sleep = lambda: held.append(slots.in_air)
    assert await retry.complete(REQUEST) is DONE
    assert held == [0]


async def test_many_calls_back_off_side_by_side() -> None:
    clock = Clock()
    retries = [patient(Script(Transient("busy"), Transient("busy"), DONE), clock, seed=i) for i in range(50)]
    assert await asyncio.gather(*(r.complete(REQUEST) for r in retries)) == [DONE] * 50


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT", "date": "Sun, 06 Nov 1994 08:49:07 GMT"}, 30.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:02:00 GMT"}, 20.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:10 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_each_of_its_forms(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after_s(headers, now_s=100.0) == expected


ALL = ("temperature", "top_p", "max_tokens", "seed", "stop", "n", "response_format")
NO_SCHEMA = (
    "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.",
    "This response_format type is unavailable now",
    "This model does not support response format `json_schema`.",
    'response_format type must be one of "text" or "json_object", but got: json_schema',
    "Failed to transform json schema into a grammar: no rule",
    "The provided JSON schema contains features not supported by xgrammar.",
    "No compatible structured output backend was found for this request.",
    "Structured outputs are not yet supported for diffusion language models.",
    "Unknown name \"response_schema\" at 'generation_config'",
    "guided_json is not available",
    "Grammar error: too complex",
)


@pytest.mark.parametrize(
    ("error", "sent", "expected"),
    [
        ({"message": "no", "code": "unsupported_parameter", "param": "seed"}, ALL, "seed"),
        (
            {
                "message": "Unsupported value: 'temperature' does not support 0.2 with this model.",
                "param": "temperature",
                "code": "unsupported_value",
            },
            ALL,
            "temperature",
        ),
        ({"message": "Unsupported parameter: 'max_tokens' is not supported here."}, ALL, "max_tokens"),
        (
            {"message": "'max_completion_tokens' is not supported"},
            ("max_completion_tokens",),
            "max_completion_tokens",
        ),
        ({"message": "Unrecognized request argument supplied: seed"}, ALL, "seed"),
        ({"message": "create() got an unexpected keyword argument 'stop'"}, ALL, "stop"),
        ({"message": "n must be 1 when using greedy sampling, got 3."}, ALL, "n"),
        ({"message": "'n' : number must be at most 1"}, ALL, "n"),
        ({"message": "Invalid n value (currently only n = 1 is supported)"}, ALL, "n"),
        ({"message": "Expected a value <= 1", "param": "n", "code": "integer_above_max_value"}, ALL, "n"),
        ({"message": "`temperature` and `top_p` cannot both be specified for this model."}, ALL, "top_p"),
        ({"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}, ALL, "seed"),
        # about the schema of the reply: whatever it is that the server cannot do with it
        *(({"message": said}, ALL, "reply_schema") for said in NO_SCHEMA),
        ({"message": "no", "param": "response_format.json_schema"}, ALL, "reply_schema"),
        ({"detail": [{"loc": ["body", "response_format"], "msg": "Extra inputs"}]}, ALL, "reply_schema"),
        # not sent, so leaving it out cannot help
        ({"message": "seed is not supported"}, ("temperature",), None),
        ({"message": "'response_format' is not supported"}, ("temperature",), None),
        # another one is named as the culprit
        (
            {"message": "top_p is not supported with response_format", "param": "top_p"},
            ALL,
            "top_p",
        ),
        # out of range is not the same as not taken
        ({"message": "temperature must be <= 1", "param": "temperature"}, ALL, None),
        ({"message": "max_tokens is too large: 90000. This model supports at most 16384 tokens"}, ALL, None),
        ({"message": "array too long. Expected maximum length 4", "param": "stop"}, ALL, None),
        # something else is not supported; parameters are mentioned by the way or not at all
        (
            {"message": "'messages[0].role' does not support 'system'", "param": "messages[0].role"},
            ALL,
            None,
        ),
        ({"message": "images are not supported; please stop sending them"}, ALL, None),
    ],
)  # fmt: skip
def test_a_parameter_counts_as_refused_when_it_was_sent_and_the_error_names_it(
    error: object, sent: tuple[str, ...], expected: str | None
) -> None:
    fault = read_fault(error, 400)
    assert fault.parameter_not_taken(sent) == expected
    assert fault.meaning() == "final"


@pytest.mark.parametrize("status", [401, 404, 429, 500])
def test_only_a_rejected_request_can_refuse_a_parameter(status: int) -> None:
    assert read_fault({"message": "seed is not supported"}, status).parameter_not_taken(ALL) is None


@pytest.mark.parametrize("status", [500, 501])
def test_a_schema_is_refused_also_where_the_server_breaks_over_it(status: int) -> None:
    fault = read_fault({"message": "failed to compile the grammar"}, status)
    assert fault.parameter_not_taken(ALL) == "reply_schema"
    assert fault.parameter_not_taken(["seed"]) is None


@pytest.mark.parametrize("status", [401, 404, 429, 503])
def test_a_server_that_is_busy_or_says_no_to_everything_refuses_no_schema(status: int) -> None:
    assert read_fault({"message": "structured output"}, status).parameter_not_taken(ALL) is None


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (408, None, "passing"), (409, "", "passing"), (429, {"message": "slow down"}, "passing"),
        (500, "<html>", "passing"), (502, None, "passing"), (503, None, "passing"), (504, None, "passing"),
        (529, None, "passing"), (501, None, "final"), (401, None, "final"), (403, None, "final"),
        (404, {"code": "model_not_found"}, "final"), (402, None, "no_credit"), (405, None, "final"),
        (429, {"code": "insufficient_quota"}, "no_credit"),
        (429, {"type": "insufficient_quota"}, "no_credit"),
        (429, {"code": "billing_hard_limit_reached"}, "no_credit"),
        (400, {"code": "context_length_exceeded"}, "too_long"), (400, {"param": "input_tokens"}, "too_long"),
        (400, {"message": "This model's maximum context length is 4096 tokens."}, "too_long"),
        (400, {"message": "prompt is too long: 210000 tokens > 200000 maximum"}, "too_long"),
        (413, {"message": "exceeds the context window"}, "too_long"),
        (400, {"code": "content_filter"}, "filtered"),
        (400, {"code": "content_policy_violation"}, "filtered"),
        (400, {"code": "invalid_prompt", "message": "Your prompt was flagged"}, "filtered"),
        (403, {"code": 403, "message": "the input was flagged by moderation"}, "filtered"),
        (403, {"message": "Your account has been flagged"}, "final"),
        (400, {"message": "Your account has been flagged"}, "final"),
        (None, {"code": 429, "message": "upstream"}, "passing"), (None, {"code": 502}, "passing"),
        (None, {"code": "insufficient_quota"}, "no_credit"), (None, {"code": "invalid_api_key"}, "final"),
        (None, {"code": "context_length_exceeded"}, "too_long"), (None, {"message": "?"}, "passing"),
        (None, {"type": "invalid_request_error"}, "final"), (None, "something", "passing"),
    ],
)  # fmt: skip
def test_an_error_means_what_its_status_and_code_say(
    status: int | None, error: object, expected: str
) -> None:
    assert read_fault(error, status).meaning() == expected
