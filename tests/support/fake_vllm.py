"""A vLLM server's process tree for what a real one cannot be made to do on demand.

    python -m tests.support.fake_vllm serve MODEL --port 8000 --served-model-name NAME
    python -m tests.support.fake_vllm --model MODEL --port 8000

A front end and an engine process, which outlives a front end that is killed, as vLLM's does. It plays every
role of drpo, by the first words of the prompt. It reads the environment: VLLM_API_KEY; FAKE_VLLM_REQUESTS, a
file that gets a line of JSON per request; FAKE_VLLM_STATE, a folder whose `starts` has the model's name for
each start and whose `pids` has a line of JSON; and FAKE_VLLM, what goes wrong, separated by commas:

    only=TEXT              nothing else counts for models whose name has no TEXT in it
    slow=S                 ready after S seconds
    never-ready[=503]      no open port, ever; or one that answers /health with 503
    die-after=N            first start: the N-th completion is left unanswered, everything exits with 0
    die-always=N           the same at each start
    engine-dies=N          each start: as when a real engine dies: the N-th completion and all that follow are
                           answered with 500, /health with 503, and then the front end exits with 0
    oom-later=N            the same, for want of memory
    unhealthy-after=N      first start: from the N-th completion on /health is 503, completions hang
    orphan                 the engine has a session of its own, ignores TERM and INT, and is left behind
    stubborn               the front end ignores TERM and INT
    waits                  after TERM the front end stays until nobody waits for an answer, as vLLM's does
    other-model            serves another name
    port-in-use            first start: exits as if the port were taken
    oom-weights, oom-kv[=small], oom-busy, gated, no-such-model, no-gpu, bad-flag[=--x]
                           each start: exits, and says why

Without FAKE_VLLM_STATE each start is a first one. First starts are counted per model.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from tests.support import fake_vllm_words as words
from tests.support.fake_vllm_http import FrontEnd, Plan, append

FIRST_START_ONLY = ("die-after", "unhealthy-after", "port-in-use")
FAULTS = {
    *FIRST_START_ONLY,
    *("only", "slow", "never-ready", "die-always", "engine-dies", "oom-later", "orphan", "stubborn", "waits"),
    *("other-model", "oom-weights", "oom-kv", "oom-busy", "gated", "no-such-model", "no-gpu", "bad-flag"),
}
LIFETIME_S = 900  # a process that a test forgets ends by itself


def flags_of(arguments: Sequence[str]) -> dict[str, list[str]]:
    """The values of each flag; "" has what stands before the first one."""
    flags: dict[str, list[str]] = {"": []}
    flag = ""
    for word in arguments:
        if word.startswith("--"):
            flag, _, value = word.partition("=")
            flags[flag] = [value] if value else []
        else:
            flags[flag].append(word)
    return flags


def faults_of(model: str, generation: int, written: str) -> dict[str, str]:
    """What goes wrong with this start of this model."""
    faults = dict(item.partition("=")[::2] for item in written.split(",") if item)
    if unknown := faults.keys() - FAULTS:
        sys.exit(f"FAKE_VLLM: {', '.join(sorted(unknown))} is none of {', '.join(sorted(FAULTS))}")
    if faults.get("only", "") not in model:
        return {}
    return {name: value for name, value in faults.items() if generation == 1 or name not in FIRST_START_ONLY}


def planned(arguments: Sequence[str], environment: Mapping[str, str]) -> Plan:
    """Reads what it needs, takes every other flag as well, and counts this start."""
    flags = flags_of(arguments)
    model = flags["--model"][0] if "--model" in flags else flags[""][-1]
    state = Path(environment["FAKE_VLLM_STATE"]) if environment.get("FAKE_VLLM_STATE") else None
    generation = 1
    if state:
        append(state / "starts", model)
        generation = (state / "starts").read_text(encoding="utf-8").splitlines().count(model)
    faults = faults_of(model, generation, environment.get("FAKE_VLLM", ""))
    names = ["somebody/elses-model"] if "other-model" in faults else flags.get("--served-model-name", [model])
    length = flags.get("--max-model-len", ["4096"])[0]
    return Plan(
        model=model,
        names=tuple(names),
        port=int(flags.get("--port", ["8000"])[0]),
        max_model_len=int(length) if length.isdigit() else 4096,
        key=flags.get("--api-key", [environment.get("VLLM_API_KEY", "")])[0] or None,
        counts_cached="--enable-prompt-tokens-details" in flags,
        generation=generation,
        faults=faults,
        state=state,
        requests=Path(environment["FAKE_VLLM_REQUESTS"]) if environment.get("FAKE_VLLM_REQUESTS") else None,
    )


def is_taken(port: int) -> bool:
    """Whether somebody listens on this port."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def refused(plan: Plan) -> words.Refusal | None:
    """Why this server does not come up, if it does not."""
    faults = {**plan.faults, **({"port-in-use": ""} if is_taken(plan.port) else {})}
    refusals = (words.refusal(fault, plan.model, value) for fault, value in faults.items())
    return next((refusal for refusal in refusals if refusal), None)


def start_engine(plan: Plan) -> int:
    """The id of a process that lives until it is told to end; its signals are set when this returns."""
    ready, told = os.pipe()
    engine = os.fork()
    if engine:
        os.close(told)
        os.read(ready, 1)
        os.close(ready)
        return engine
    signal.alarm(LIFETIME_S)
    orphan = "orphan" in plan.faults
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN if orphan else signal.SIG_DFL)
    if orphan:
        os.setsid()
    os.write(told, b"1")
    while True:
        signal.pause()


async def serve(plan: Plan, engine: int) -> None:
    """Until TERM or INT comes, or the engine has ended."""

    def drop_dead() -> NoReturn:
        stop_engine(plan, engine)
        os._exit(0)

    def look_for_engine() -> None:
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(engine, os.WNOHANG)[0]:
                front.lose_engine("SystemExit: killed")

    front = FrontEnd(plan, drop_dead)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, (lambda: None) if "stubborn" in plan.faults else front.over.set)
    loop.add_signal_handler(signal.SIGCHLD, look_for_engine)
    lines = words.starting(plan.model, plan.port, plan.max_model_len)
    words.write(lines[:5])
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(front.over.wait(), float(plan.faults.get("slow", 0)))
        return
    if plan.faults.get("never-ready") == "":
        await front.over.wait()
        return
    async with front:
        words.write(lines[5:])
        await front.over.wait()
        words.say("INFO:     Shutting down")
        if "waits" in plan.faults and front.in_air:
            words.say("INFO:     Waiting for connections to close. (CTRL+C to force quit)")
            while front.in_air:  # noqa: ASYNC110 - the mock server tells nobody who leaves
                await asyncio.sleep(0.02)


def stop_engine(plan: Plan, engine: int) -> None:
    """Returns once it has ended; an orphan is left alone."""
    if "orphan" not in plan.faults:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(engine, signal.SIGKILL)
            os.waitpid(engine, 0)


def main() -> None:
    """Starts both processes, or says why not."""
    signal.alarm(LIFETIME_S)
    plan = planned(sys.argv[1:], os.environ)
    refusal = refused(plan)
    engine = None if refusal else start_engine(plan)
    if plan.state:
        pids = {
            "generation": plan.generation,
            "model": plan.model,
            "front_end": os.getpid(),
            "engine": engine,
        }
        append(plan.state / "pids", json.dumps(pids | {"orphan": "orphan" in plan.faults}))
    if refusal:
        words.write(words.starting(plan.model, plan.port, plan.max_model_len)[: refusal.stage])
        words.write_refusal(refusal)
        sys.exit(refusal.code)
    assert engine is not None
    asyncio.run(serve(plan, engine))
    stop_engine(plan, engine)
    words.say(f"INFO:     Finished server process [{os.getpid()}]")


if __name__ == "__main__":
    main()
