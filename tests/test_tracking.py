"""What a run tells its trackers, and that nothing a tracker does reaches the run: without the libraries."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpo.errors import InputError
from drpo.events import Event, LevelDone
from drpo.llm.base import Usage
from drpo.llm.ledger import CallDone
from drpo.tracking import RunFacts, Trackers, open_trackers
from drpo.tracking.base import (
    TRACKING_NAME,
    Clean,
    NotDelivered,
    as_text,
    import_library,
    offer,
    parameters,
    tracked_id,
)
from drpo.tracking.otel_sending import Sending

LONG_S = 30.0
LEVEL = LevelDone(0, 4, (0,), False)
CALL = CallDone("base", "demo/seed=0", "chat", 100.0, 1.5, "answered", usage=Usage(10, 5), usd=0.5)
WHO = contextvars.ContextVar("who", default="nobody")


class Recording:
    """Keeps what it is told. `raises`: which method raises what. `gate`: what `begin` waits for."""

    def __init__(
        self, raises: Mapping[str, BaseException] | None = None, gate: threading.Event | None = None
    ) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.threads: set[threading.Thread] = set()
        self.who = ""
        self.where = ""
        self._raises, self._gate = raises or {}, gate

    def begin(self, run: RunFacts) -> None:
        self.who = WHO.get()
        if self._gate is not None:
            assert self._gate.wait(LONG_S)
        self._hear("begin", run)

    def event(self, event: Event) -> None:
        self._hear("event", event)

    def call(self, call: CallDone) -> None:
        self._hear("call", call)

    def end(self, state: str, results: Mapping[str, float], files: Sequence[Path]) -> None:
        self._hear("end", (state, dict(results), tuple(files)))
        self.where = "the shelf"

    def _hear(self, method: str, what: Any) -> None:
        self.heard.append((method, what))
        self.threads.add(threading.current_thread())
        if method in self._raises:
            raise self._raises[method]


class Notices:
    """Keeps what is said, and by which thread."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.threads: set[threading.Thread] = set()

    def __call__(self, message: str) -> None:
        self.said.append(message)
        self.threads.add(threading.current_thread())


@pytest.fixture
def facts(tmp_path: Path) -> RunFacts:
    return RunFacts("run", tmp_path, "optimize", {"base": "demo/seed=0"}, {"width": 2}, {"seeds": "aa"}, True)


def run_through(trackers: Trackers, facts: RunFacts) -> None:
    """A short run, from its beginning to its end."""
    trackers.begin(facts)
    trackers.event(LEVEL)
    trackers.call(CALL)
    asyncio.run(trackers.end("finished", {"path_score": 4.0}, ()))


def release(gate: threading.Event, name: str) -> None:
    """Let the tracker go on, and wait until its thread is gone."""
    gate.set()
    for thread in threading.enumerate():
        if thread.name == f"drpo-track-{name}":
            thread.join(LONG_S)
            assert not thread.is_alive()


def test_a_tracker_is_told_everything_in_order_by_one_thread_of_its_own(facts: RunFacts) -> None:
    one, other = Recording(), Recording()
    run_through(Trackers({"one": one, "other": other}), facts)
    for tracker in (one, other):
        assert [method for method, _ in tracker.heard] == ["begin", "event", "call", "end"]
        assert tracker.heard[1:] == [
            ("event", LEVEL),
            ("call", CALL),
            ("end", ("finished", {"path_score": 4.0}, ())),
        ]
        assert len(tracker.threads) == 1
    assert not one.threads & other.threads
    assert threading.current_thread() not in one.threads | other.threads


def test_both_trackers_get_the_same_id_of_the_run(facts: RunFacts) -> None:
    one, other = Recording(), Recording()
    run_through(Trackers({"one": one, "other": other}), facts)
    assert one.heard[0][1].id == other.heard[0][1].id == tracked_id(facts)


def test_a_tracker_works_in_the_context_in_which_the_run_began(facts: RunFacts) -> None:
    tracker = Recording()
    token = WHO.set("the application")
    try:
        run_through(Trackers({"one": tracker}), facts)
    finally:
        WHO.reset(token)
    assert tracker.who == "the application"


def test_where_a_run_was_tracked_is_said_at_its_end(facts: RunFacts) -> None:
    notices = Notices()
    run_through(Trackers({"one": Recording()}, notices), facts)
    assert notices.said == ["tracked: the shelf"]


@pytest.mark.parametrize("error", [ValueError("no\nsuch thing."), SystemExit(1), NotDelivered("it is gone")])
@pytest.mark.parametrize("method", ["begin", "event", "call", "end"])
def test_a_tracker_that_raises_is_told_once_and_left_out(
    facts: RunFacts, method: str, error: BaseException
) -> None:
    failing, sound, notices = Recording({method: error}), Recording(), Notices()
    run_through(Trackers({"failing": failing, "sound": sound}, notices), facts)
    methods = ["begin", "event", "call", "end"]
    assert [heard for heard, _ in failing.heard] == methods[: methods.index(method) + 1]
    assert [heard for heard, _ in sound.heard] == methods
    [said] = [said for said in notices.said if said != "tracked: the shelf"]
    words = {ValueError: "ValueError: no such thing", SystemExit: "SystemExit: 1", NotDelivered: "it is gone"}
    assert said.removesuffix(". The run goes on without it") == f"--track failing: {words[type(error)]}"
    assert notices.threads == {threading.current_thread()}


def test_a_failure_before_the_end_says_that_the_run_goes_on(facts: RunFacts) -> None:
    notices = Notices()
    trackers = Trackers({"failing": Recording({"begin": ValueError("no")})}, notices)
    trackers.begin(facts)
    release(threading.Event(), "failing")
    trackers.call(CALL)
    assert notices.said == ["--track failing: ValueError: no. The run goes on without it"]
    assert not trackers
    asyncio.run(trackers.end("finished", {}))
    assert len(notices.said) == 1


def test_a_run_does_not_wait_for_a_tracker_that_hangs(facts: RunFacts) -> None:
    gate = threading.Event()
    tracker, notices = Recording(gate=gate), Notices()
    trackers = Trackers({"slow": tracker}, notices, end_s=0.05)
    trackers.begin(facts)
    for _ in range(1_000):
        trackers.call(CALL)
    assert tracker.heard == [] and not gate.is_set()  # all that was told while `begin` waited
    asyncio.run(trackers.end("finished", {}))
    assert notices.said == ["--track slow: 1,002 of 1,002 entries were not delivered within 0.05 s"]
    release(gate, "slow")
    assert [method for method, _ in tracker.heard] == ["begin"]


def test_what_a_tracker_still_does_after_the_run_is_over_disturbs_nobody(
    facts: RunFacts, caplog: pytest.LogCaptureFixture
) -> None:
    gate = threading.Event()
    trackers = Trackers({"slow": Recording(gate=gate)}, end_s=0.05)
    with caplog.at_level(logging.DEBUG):
        run_through(trackers, facts)  # its event loop is closed by now
        release(gate, "slow")
    assert [record for record in caplog.records if record.name.startswith("concurrent")] == []


def test_a_tracker_that_is_too_far_behind_is_left_out(facts: RunFacts) -> None:
    gate = threading.Event()
    tracker, notices = Recording(gate=gate), Notices()
    trackers = Trackers({"slow": tracker}, notices, longest=10)
    trackers.begin(facts)
    for _ in range(20):
        trackers.call(CALL)
    assert notices.said == ["--track slow: it is 10 entries behind the run. The run goes on without it"]
    release(gate, "slow")
    assert len(tracker.heard) == 1  # nor is it told the rest


def test_what_never_began_is_not_ended() -> None:
    tracker = Recording()
    asyncio.run(Trackers({"one": tracker}).end("failed", {}))
    assert tracker.heard == []


def test_the_id_stays_with_the_run_directory(facts: RunFacts, tmp_path: Path) -> None:
    first = tracked_id(facts)
    assert tracked_id(replace(facts, resumed=True)) == first
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.move(facts.path / TRACKING_NAME, moved)
    assert tracked_id(replace(facts, path=moved)) == first
    assert tracked_id(facts) != first  # a new run of the same settings


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"schema":2}', b'{"schema":1,"run_id":"../x"}'])
def test_a_damaged_id_gives_a_new_one(facts: RunFacts, content: bytes) -> None:
    (facts.path / TRACKING_NAME).write_bytes(content)
    made = tracked_id(facts)
    assert made.startswith("drpo-") and tracked_id(facts) == made


def test_where_no_id_can_be_kept_it_follows_from_settings_and_path(facts: RunFacts) -> None:
    gone = replace(facts, path=facts.path / "no" / "such" / "folder")
    assert tracked_id(gone) == tracked_id(gone)
    assert tracked_id(replace(gone, settings={"width": 3})) != tracked_id(gone)
    assert tracked_id(replace(gone, path=gone.path / "other")) != tracked_id(gone)


def test_untracked_runs_leave_no_file_and_import_nothing(facts: RunFacts) -> None:
    trackers = open_trackers((), {})
    assert not trackers
    run_through(trackers, facts)
    assert list(facts.path.iterdir()) == []
    code = (
        "import sys, drpo.tracking as t; t.open_trackers((), {});"
        "print(*{m.split('.')[0] for m in sys.modules} & {'mlflow', 'wandb', 'opentelemetry', 'requests'})"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout.split(), ran.stderr) == (0, [], "")


@pytest.mark.parametrize(
    ("tracker", "library"), [("mlflow", "mlflow"), ("wandb", "wandb"), ("otel", "opentelemetry.trace")]
)
def test_a_missing_library_is_named_with_its_remedy(
    tracker: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setitem(sys.modules, library, None)  # as if it were not installed
    with pytest.raises(InputError) as refused:
        open_trackers((tracker,), {})
    said = str(refused.value)
    assert said.startswith(f"--track {tracker}: {library} cannot be imported (ModuleNotFoundError: ")
    assert said.endswith(f": pip install 'drpo[{tracker}]'")


def test_a_folder_is_not_taken_for_a_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "drpo_test_wandb" / "offline-run-1").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"drpo_test_wandb cannot be imported \(no init in"):
        import_library("wandb", "drpo_test_wandb", "init")


def test_a_broken_library_is_told_as_one_that_cannot_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "drpo_test_broken.py").write_text("raise TypeError('descriptors')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"cannot be imported \(TypeError: descriptors\)"):
        import_library("mlflow", "drpo_test_broken", "MlflowClient")


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(InputError, match="--track comet: expected one of mlflow, wandb, otel"):
        open_trackers(("comet",), {})


@pytest.mark.parametrize(
    "variable",
    [
        "OTEL_TRACES_EXPORTER=console",
        "OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=x",
    ],
)
def test_another_way_of_sending_traces_is_refused(variable: str) -> None:
    name, _, value = variable.partition("=")
    with pytest.raises(InputError, match=f"--track otel: {variable}: expected (otlp|http/protobuf)"):
        Sending({name: value})


def test_a_library_gets_its_variables_from_the_env_file_but_the_users_own_come_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "environ", {"WANDB_MODE": "offline", "WANDB_SILENT": "false"})
    env_file = {"WANDB_MODE": "online", "WANDB_PROJECT": "mine", "OPENAI_API_KEY": "sk-1"}
    offer(env_file, "WANDB_", {"WANDB_SILENT": "true", "WANDB_FINISH_TIMEOUT": "15"})
    assert os.environ == {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "false",
        "WANDB_PROJECT": "mine",
        "WANDB_FINISH_TIMEOUT": "15",
    }


SECRETS = {
    "OPENAI_API_KEY": "sk-0123456789",
    "MLFLOW_TRACKING_PASSWORD": "correct horse",
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer abcdef,x-tenant=acme-corporation",
    "DRPO_SOME_TOKEN": "abc",  # too short to be looked for
    "HOME": "/home/somebody",
}


@given(st.text(), st.sampled_from(["sk-0123456789", "correct horse", "Bearer abcdef", "acme-corporation"]))
def test_no_key_is_logged(around: str, secret: str) -> None:
    clean = Clean.of(SECRETS)
    assert secret not in clean(f"{around}{secret}{around[::-1]}")
    assert secret not in clean.error(ValueError(f"{around}{secret}"))


def test_a_url_is_logged_without_its_user() -> None:
    said = Clean.of(SECRETS)("https://me:pw@host:5000/a and abc, /home/somebody")
    assert said == "https://***@host:5000/a and abc, /home/somebody"


@given(st.text(st.characters()))
def test_what_is_logged_can_be_written_and_steers_no_terminal(text: str) -> None:
    clean = Clean()(f"{text}\x1b[31m\u202e\ud83d\0")
    clean.encode("utf-8")
    assert not set(clean) & set("\x1b\u202e\ud83d\0\r\x9b\u2066")
    assert clean.endswith("\\u001b[31m\\u202e\\ud83d\\u0000")
    assert len(Clean()(text, 10)) <= 10


def test_parameters_name_everything_that_is_set(facts: RunFacts) -> None:
    facts = replace(facts, settings={"width": 2, "patience": None, "protect": ["a", "ü"]})
    assert [(name, as_text(value)) for name, value in parameters(facts)] == [
        ("command", "optimize"),
        ("model.base", "demo/seed=0"),
        ("width", "2"),
        ("protect", '["a", "ü"]'),
        ("digest.seeds", "aa"),
    ]


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    """A tracker's thread ends with its run."""
    yield
    left = [thread for thread in threading.enumerate() if thread.name.startswith("drpo-track")]
    for thread in left:
        thread.join(LONG_S)
        assert not thread.is_alive()
