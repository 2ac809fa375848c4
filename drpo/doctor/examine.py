"""All checks together: those that wait for networks or disks at the same time, told in one order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from drpo.config import OptimizeConfig
from drpo.doctor.check import Check, exit_code_of, guarded, ok, problem, secrets_of
from drpo.doctor.cost import own_checks, price_checks
from drpo.doctor.directory import run_checks
from drpo.doctor.disk import cache_checks, disk_checks
from drpo.doctor.embedder import Embedded, embedder_checks
from drpo.doctor.endpoints import Answered, ask_all
from drpo.doctor.keys import embedder_place, key_checks, owners_of
from drpo.doctor.machine import machine_checks
from drpo.doctor.prepare import Prepared, Sources, prepare
from drpo.doctor.questions import BaseFacts, base_facts, questions_of
from drpo.doctor.trackers import track_checks
from drpo.doctor.vllm import server_checks
from drpo.llm.connections import Connections

Work = Callable[[], Awaitable[Iterable[Check]]]


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found, in the order in which it is told. sent: requests to models and to the embedder."""

    checks: tuple[Check, ...]
    sent: int
    simulated: bool

    @property
    def exit_code(self) -> int:
        """That of a run that meets these problems; 0 where nothing is one."""
        return exit_code_of(self.checks)


async def examine(sources: Sources, *, requests: bool = True, load: bool = False) -> Findings:
    """Everything that a run of `drpo optimize` with these settings needs. Only the temporary files of the
    disk's checks are written, and removed again.

    requests: False sends nothing at all. load: a local embedding model is loaded and asked.
    """
    examination = _Examination(sources, requests, load)
    try:
        return await examination.findings()
    finally:
        await examination.connections.aclose()


class _Examination:
    """One examination and what it has sent so far."""

    def __init__(self, sources: Sources, requests: bool, load: bool) -> None:
        self._sources, self._requests, self._load = sources, requests, load
        self._prepared = Prepared((), sources.environment)
        self._answers: tuple[Answered, ...] = ()
        self._facts, self._embedded = 0, Embedded(())
        self.connections = Connections()

    async def findings(self) -> Findings:
        secrets = secrets_of(self._sources.environment)
        told = list(await guarded("settings", self._prepare, secrets))
        prepared = self._prepared
        named = [role.api_key_env for role in prepared.config.roles.values()] if prepared.config else []
        secrets |= secrets_of(prepared.environment, [name for name in named if name])
        works: tuple[tuple[str, Work], ...] = (
            ("keys", self._off(lambda: key_checks(prepared))),
            ("endpoint", self._endpoints),
            ("embedder", self._embedder),
            ("vllm", self._off(lambda: server_checks(prepared))),
            ("price", self._off(lambda: price_checks(prepared))),
            ("run", self._off(lambda: run_checks(prepared))),
            ("track", self._off(lambda: track_checks(prepared))),
            ("disk", self._off(lambda: disk_checks(prepared))),
            ("cache", self._off(lambda: cache_checks(prepared.environment))),
            ("machine", self._off(lambda: machine_checks(prepared.environment, self._urls()))),
        )
        for found in await asyncio.gather(*(guarded(name, work, secrets) for name, work in works)):
            told += found
        told += await guarded("requests", self._off(self._own), secrets)
        simulated = prepared.plan is not None and prepared.plan.simulated
        sent = self._embedded.sent + sum(answer.sent for answer in self._answers)
        return Findings(tuple(told), sent, simulated)

    def _off(self, work: Callable[[], Iterable[Check]]) -> Work:
        """The same beside the event loop: a disk or a program that is asked may be slow."""

        async def run() -> Iterable[Check]:
            return await asyncio.to_thread(lambda: tuple(work()))

        return run

    async def _prepare(self) -> Iterable[Check]:
        self._prepared = await asyncio.to_thread(prepare, self._sources, requests=self._requests)
        return self._prepared.checks

    def _own(self) -> Iterable[Check]:
        return own_checks(self._prepared, self._answers, self._facts, self._embedded.sent)

    def _urls(self) -> list[str]:
        plan = self._prepared.plan
        if plan is None:
            return []
        urls = [url for role in self._prepared.roles for url in plan.models[role].urls]
        place = embedder_place(plan.embedder, self._prepared.environment)
        return [*urls, *([] if place is None else [place[0].url])]

    async def _endpoints(self) -> Iterable[Check]:
        prepared, plan = self._prepared, self._prepared.plan
        if plan is None:
            return ()
        simulated = [role for role in prepared.roles if plan.models[role].provider == "demo"]
        checks: list[Check] = []
        if simulated:
            checks.append(ok("endpoint", f"{', '.join(simulated)}: simulated (demo), nothing is sent"))
        asked = [role for role in prepared.roles if plan.models[role].urls]
        if not asked:
            return checks
        if not self._requests:
            return [*checks, ok("endpoint", f"{', '.join(asked)}: not asked, nothing is sent")]
        facts = BaseFacts("chat")
        if "base" in asked:
            facts = await base_facts(plan, prepared.environment, self.connections)
            self._facts = facts.asked
        questions = questions_of(plan, asked, prepared.environment, facts.form)
        self._answers = await ask_all(questions, plan.config, owners_of(prepared), self.connections)
        checks += [check for answer in self._answers for check in answer.checks]
        assert isinstance(plan.config, OptimizeConfig)
        return [*checks, *_context(plan.config, facts)]

    async def _embedder(self) -> Iterable[Check]:
        if self._prepared.plan is None:
            return ()
        self._embedded = await embedder_checks(
            self._prepared.plan,
            self._prepared.environment,
            self.connections,
            requests=self._requests,
            load=self._load,
        )
        return self._embedded.checks


def _context(config: OptimizeConfig, facts: BaseFacts) -> Iterable[Check]:
    """Whether the longest answer leaves room for a prompt, as `drpo.respond` will ask."""
    limit = facts.context_tokens
    if limit is None:
        return ()
    said = f"base: {limit} tokens of prompt and answer, of which --base-max-tokens {config.base_max_tokens}"
    if config.long_prompts != "as-is" and config.base_max_tokens >= limit:
        remedy = f"Give --base-max-tokens {max(1, limit // 4)}, for example"
        return (problem("context", f"{said} leaves none for a prompt", remedy),)
    return (ok("context", f"{said} are for the answer"),)
