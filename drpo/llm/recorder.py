"""Record and replay: every reply is on the disk before anything uses it, and is never asked for again.

The record is what makes a run resumable: the search is deterministic given the replies, so the same search
is run again, recorded calls answer at once and the rest go out. Strict replay is the same code without an
inner model: a call that is not recorded raises `ReplayMissed`.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from drpo.errors import DrpoError, ParameterRefused, RecordDamaged, ReplayMissed, Stopped
from drpo.jsonl import Journal, read_lines
from drpo.llm.base import LLM, Choice, Completion, Request, Usage, identity, request_key
from drpo.llm.limits import Stop

Json = Any


class Record:
    """The calls, refusals and facts of one run: a dictionary that survives kill -9.

    A *fact* is anything else that decides the search and could differ elsewhere or tomorrow (the shots
    retrieved for a query, the prompt form a server wants): computed once, kept, read back in replay.
    """

    def __init__(self, path: Path, *, writable: bool = True) -> None:
        lines = read_lines(path)
        self._path = path
        self._calls: dict[str, Completion] = {}
        self._refusals: dict[str, ParameterRefused] = {}
        self._facts: dict[str, Json] = {}
        self._in_air: dict[str, asyncio.Task[Completion]] = {}
        self._computing: dict[str, asyncio.Task[Json]] = {}
        self.refused_by_model: dict[str, list[str]] = {}  # in the order in which it was noticed
        self.missed: dict[str, Request] = {}
        self.asked: dict[str, str] = {}
        self.sent: Counter[str] = Counter()
        self.replayed = 0  # distinct requests that the record answered without one being sent
        self.usage: dict[str, Usage] = {}  # of the calls that this process sent, by model
        for entry in lines.records:
            self._take_in(entry)
        self._journal = Journal(path, lines.sound_bytes) if writable else None

    def __len__(self) -> int:
        return len(self._calls)

    def holds(self, request: Request) -> bool:
        """Whether this request was answered or refused before."""
        key = request_key(request)
        return key in self._calls or key in self._refusals

    def calls_by_role(self) -> dict[str, int]:
        """Calls that this search has used so far: distinct requests with a reply, whenever they were sent."""
        return dict(sorted(Counter(self.asked.values()).items()))

    async def answer(self, request: Request, inner: LLM | None) -> Completion:
        """The recorded reply, or that of `inner`, recorded. Equal requests in the air are one call."""
        key = request_key(request)
        if key in self._calls:
            completion = self._calls[key]
            self.replayed += key not in self.asked
        elif key in self._refusals:
            raise self._refusals[key]
        elif inner is None or self._journal is None:
            self.missed[key] = request
            raise ReplayMissed(f"the record holds no reply to this {request.role} request to {request.model}")
        else:
            if key not in self._in_air:
                # A task of its own: whoever asked may be cancelled, the reply is paid for and gets recorded.
                self._in_air[key] = asyncio.create_task(self._send(key, request, inner))
            completion = await asyncio.shield(self._in_air[key])
        # Of two roles with the same question the first by name counts, not the first in time.
        self.asked[key] = min(self.asked.get(key, request.role), request.role)
        return completion

    async def fact(self, name: str, compute: Callable[[], Awaitable[Json]]) -> Json:
        """The recorded value of `name`, or what `compute` gives (plain JSON), recorded before it is used."""
        if name in self._facts:
            return self._facts[name]
        if self._journal is None:
            raise ReplayMissed(f"the record does not hold {name}")
        if name not in self._computing:
            self._computing[name] = asyncio.create_task(self._compute(name, compute))
        return await asyncio.shield(self._computing[name])

    async def facts(
        self, names: Sequence[str], compute: Callable[[list[int]], Awaitable[list[Json]]], *, offline: bool
    ) -> list[Json]:
        """The values of `names`, the unknown ones computed in one go from their positions, then recorded.

        offline: `compute` opens no socket, so a strict replay may call it too (and records nothing).
        """
        unknown = [position for position, name in enumerate(names) if name not in self._facts]
        computed: dict[str, Json] = {}
        if unknown:
            if self._journal is None and not offline:
                raise ReplayMissed(f"the record does not hold {names[unknown[0]]}")
            computed = dict(zip((names[i] for i in unknown), await compute(unknown), strict=True))
        if self._journal is not None:
            entries = [{"kind": "fact", "name": name, "value": value} for name, value in computed.items()]
            await asyncio.gather(*(self._journal.append(entry) for entry in entries))
            self._facts.update(computed)
        return [computed[name] if name in computed else self._facts[name] for name in names]

    async def drain(self, timeout_s: float) -> int:
        """Wait until calls in the air and facts in the making are recorded; how many had to be abandoned."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        # Again and again: some begin while others end. A task cancelled before its first step stays listed.
        while under_way := {
            task for task in (*self._in_air.values(), *self._computing.values()) if not task.done()
        }:
            _, late = await asyncio.wait(under_way, timeout=max(0.0, deadline - loop.time()))
            if late:
                for task in late:
                    task.cancel()
                await asyncio.gather(*late, return_exceptions=True)
                return len(late)
        return 0

    async def close(self) -> None:
        """Write what is pending and release the file."""
        if self._journal is not None:
            await self._journal.close()

    async def _send(self, key: str, request: Request, inner: LLM) -> Completion:
        assert self._journal is not None
        self.sent[request.role] += 1
        try:
            completion = await inner.complete(request)
        except Stopped:
            self.sent[request.role] -= 1
            raise
        except ParameterRefused as refused:
            entry = {"kind": "refused", "key": key, "model": request.model, "parameter": refused.parameter}
            await self._journal.append({**entry, "message": str(refused)})
            self._take_in({**entry, "message": str(refused)})
            raise
        else:
            self.usage[request.model] = self.usage.get(request.model, Usage()) + completion.usage
            entry = _call_entry(key, request, completion)
            await self._journal.append(entry)
            self._calls[key] = completion
            return completion
        finally:
            del self._in_air[key]

    async def _compute(self, name: str, compute: Callable[[], Awaitable[Json]]) -> Json:
        assert self._journal is not None
        try:
            value = json.loads(json.dumps(await compute()))  # what a replay will read: lists, not tuples
            await self._journal.append({"kind": "fact", "name": name, "value": value})
            self._facts[name] = value
            return value
        finally:
            del self._computing[name]

    def _take_in(self, entry: dict[str, Any]) -> None:
        if entry.get("kind") == "call":
            self._calls[entry["key"]] = _completion(entry)
        elif entry.get("kind") == "refused":
            self._refusals[entry["key"]] = ParameterRefused(entry["parameter"], entry["message"])
            self._note_refusal(entry["model"], entry["parameter"])
        elif entry.get("kind") == "fact":
            self._facts[entry["name"]] = entry["value"]
        else:
            raise RecordDamaged(
                f"{self._path}: expected calls, refusals and facts, found {entry.get('kind')!r}: "
                "the record was written by a later drpo; use that one"
            )

    def _note_refusal(self, model: str, parameter: str) -> None:
        noticed = self.refused_by_model.setdefault(model, [])
        if parameter not in noticed:
            noticed.append(parameter)


class Recorder:
    """The outer wrapper of a role's model: `record` first, then `inner` (None: strict replay)."""

    def __init__(self, record: Record, inner: LLM | None, stop: Stop) -> None:
        self._record, self._inner, self._stop = record, inner, stop

    async def complete(self, request: Request) -> Completion:
        """The reply, durably recorded. A broken boundary ends the run for all roles: see `Stop`."""
        try:
            return await self._record.answer(request, self._inner)
        except (ParameterRefused, ReplayMissed):
            raise
        except DrpoError as error:
            self._stop.set(error)
            raise


def _call_entry(key: str, request: Request, completion: Completion) -> dict[str, Any]:
    usage = completion.usage
    return {
        "kind": "call",
        "key": key,
        "role": request.role,
        "request": identity(request),
        "choices": [[choice.text, choice.finish_reason] for choice in completion.choices],
        "usage": [usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens],
        "served_model": completion.served_model,
    }


def _completion(entry: dict[str, Any]) -> Completion:
    return Completion(
        choices=tuple(Choice(text, finish) for text, finish in entry["choices"]),
        usage=Usage(*entry["usage"]),
        served_model=entry["served_model"],
    )
