"""All trackers of a run as one, which the run tells everything and never waits for."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from drpo.errors import InputError
from drpo.events import Event
from drpo.llm.ledger import CallDone
from drpo.tracking.base import Clean, NotDelivered, RunFacts, Tracker, tracked_id

Notice = Callable[[str], None]
Entry = Callable[[Tracker], None]
LONGEST_QUEUE = 50_000
"""Entries a tracker may be behind: an hour without its server, at fourteen requests a second."""
END_S = 20.0
"""How long the end of a run waits for what has not been delivered by then."""
HURRY_S = 1.0
"""How long it waits when the user wants it to end at once: enough for a server that answers."""


def _silent(message: str) -> None:
    """Nobody wants to know."""


def open_trackers(names: Sequence[str], environment: Mapping[str, str], notice: Notice = _silent) -> Trackers:
    """The trackers of these names (mlflow, wandb, otel), ready to begin; for none nothing is imported.

    Their settings are their libraries' own variables, in `environment`. `notice` is told where the run was
    tracked, and what went wrong with that. Raises InputError where a library is missing or cannot be used
    with these settings.
    """
    clean = Clean.of(environment)
    opened = {name: _open(name, environment, clean) for name in dict.fromkeys(names)}
    return Trackers(opened, notice, clean)


def _open(name: str, environment: Mapping[str, str], clean: Clean) -> Tracker:
    match name:
        case "mlflow":
            from drpo.tracking.mlflow_tracker import MlflowTracker

            return MlflowTracker(environment, clean)
        case "wandb":
            from drpo.tracking.wandb_tracker import WandbTracker

            return WandbTracker(environment, clean)
        case "otel":
            from drpo.tracking.otel_tracker import OtelTracker

            return OtelTracker(environment, clean)
        case _:
            raise InputError(f"--track {name}: expected one of mlflow, wandb, otel")


class Trackers:
    """Tells every tracker what the run tells it, each in a thread of its own.

    No method raises for a tracker's sake, nor waits for one, but for `end`, which waits `end_s` at most. A
    tracker that raises, or falls `longest` entries behind, is told about once, by `notice`, and left out from
    then on. All methods belong to the thread of the run, and so does what `notice` is called in. Once begun
    it must be ended, whatever becomes of the run.
    """

    def __init__(
        self,
        trackers: Mapping[str, Tracker],
        notice: Notice = _silent,
        clean: Clean | None = None,
        *,
        longest: int = LONGEST_QUEUE,
        end_s: float = END_S,
    ) -> None:
        self._lanes = [_Lane(name, tracker, longest) for name, tracker in trackers.items()]
        self._notice, self._clean, self._end_s = notice, clean or Clean(), end_s
        self._begun = False

    def __bool__(self) -> bool:
        """Whether anything is tracked still."""
        return bool(self._lanes)

    def begin(self, run: RunFacts) -> None:
        """The run begins. Its directory gets a file with the id of the tracked run, where it has none."""
        if self._lanes:
            run = replace(run, id=tracked_id(run))
        for lane in self._lanes:
            lane.start()
        self._begun = True
        self._tell(lambda tracker: tracker.begin(run))

    def event(self, event: Event) -> None:
        """Something has happened in the search."""
        self._tell(lambda tracker: tracker.event(event))

    def call(self, call: CallDone) -> None:
        """A request has ended."""
        self._tell(lambda tracker: tracker.call(call))

    async def end(
        self,
        state: str,
        results: Mapping[str, float],
        files: Sequence[Path] = (),
        hurry: asyncio.Event | None = None,
    ) -> None:
        """The run has ended. Says where it was tracked, or what of it could not be delivered in time.

        hurry: once it is set, nothing is waited for any longer than `HURRY_S`.
        """
        if not self._begun:
            return
        self._tell(lambda tracker: tracker.end(state, results, files))
        for lane in self._lanes:
            lane.close()
        hurried = await self._wait(hurry or asyncio.Event())
        for lane in self._lanes:
            lane.give_up(
                "before the run was to be stopped at once" if hurried else f"within {self._end_s:g} s"
            )
        self._drop_failed(ended=True)
        for lane in self._lanes:
            if where := lane.tracker.where:
                self._notice(f"tracked: {self._clean(where)}")
        self._lanes = []

    async def _wait(self, hurry: asyncio.Event) -> bool:
        """Until everything is delivered, or for long enough; whether it was `hurry` that cut it short."""
        ending = {asyncio.wrap_future(lane.finished) for lane in self._lanes}
        if not ending:
            return False
        all_ended = asyncio.ensure_future(asyncio.wait(ending))
        hurried = asyncio.ensure_future(hurry.wait())
        try:
            await asyncio.wait({all_ended, hurried}, timeout=self._end_s, return_when=asyncio.FIRST_COMPLETED)
            if hurry.is_set():
                await asyncio.wait({all_ended}, timeout=min(HURRY_S, self._end_s))
            return hurry.is_set()
        finally:
            waited: list[asyncio.Future[Any]] = [all_ended, hurried, *ending]
            for waiting in waited:
                waiting.cancel()  # only our waiting: the threads go on for as long as the process does

    def _tell(self, entry: Entry) -> None:
        for lane in self._lanes:
            lane.put(entry)
        self._drop_failed()

    def _drop_failed(self, *, ended: bool = False) -> None:
        for lane in [lane for lane in self._lanes if lane.problem is not None]:
            self._lanes.remove(lane)
            assert lane.problem is not None
            after = "" if ended else ". The run goes on without it"
            self._notice(f"--track {lane.name}: {self._clean.error(lane.problem)}{after}")


class _Lane:
    """One tracker, the thread that calls it, and what it has not been told yet, in order."""

    def __init__(self, name: str, tracker: Tracker, longest: int) -> None:
        self.name, self.tracker = name, tracker
        self.problem: BaseException | None = None
        self.finished: Future[None] = Future()
        self.finished.set_running_or_notify_cancel()  # so that giving up waiting for it does not cancel it
        self._queue: queue.Queue[Entry | None] = queue.Queue(longest)
        self._told = self._done = 0

    def start(self) -> None:
        """Begin to work, in the context of who calls: its current span is the parent of the run's."""
        context = contextvars.copy_context()
        name = f"drpo-track-{self.name}"
        # A daemon: what hangs in a library must not keep the process from ending.
        threading.Thread(target=context.run, args=(self._work,), name=name, daemon=True).start()

    def put(self, entry: Entry | None) -> None:
        """Have the tracker called; never waits."""
        if self.problem is not None:
            return
        self._told += entry is not None
        try:
            self._queue.put_nowait(entry)
        except queue.Full:
            self.problem = NotDelivered(f"it is {self._queue.maxsize:,} entries behind the run")

    def close(self) -> None:
        """Nothing comes after this."""
        self.put(None)

    def give_up(self, when: str) -> None:
        """What is not delivered now is not waited for any longer. when: by when it should have been."""
        if not self.finished.done() and self.problem is None:
            left = self._told - self._done
            self.problem = NotDelivered(f"{left:,} of {self._told:,} entries were not delivered {when}")

    def _work(self) -> None:
        try:
            while self.problem is None and (entry := self._queue.get()) is not None:
                entry(self.tracker)
                self._done += 1
        except BaseException as error:  # noqa: BLE001 - told by the run; some libraries raise SystemExit
            self.problem = error
        finally:
            self.finished.set_result(None)
