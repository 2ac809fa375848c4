"""`drpo push` and `drpo pull`: what goes to the hub and what comes back, against a stand-in of its API."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

import drpo
from drpo.alignment import read_alignment
from tests.support.command import Shell, content_of, times_of
from tests.support.hub import READER, WRITER, Fault, HubServer

NAMES = {"README.md", "alignment.json", "prompts/respond_chat.j2", "prompts/respond_text.j2"}
QUERIES = ["How do magnets work?", "Write a haiku.", "What is 12 * 7?", "Who are you?", "¿Qué hora es?"]
PUSH = ("push", "run", "me/first")


def search(folder: Path, **settings: Any) -> Path:
    """A small search on the simulated models."""
    options: dict[str, Any] = {"width": 1, "samples": 1, "depth": 2, "max_extra_depth": 0, "validate": 0}
    drpo.optimize(model="demo", run_dir=folder / "run", **options, **settings)
    return folder / "run"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search with the shipped templates, its queries from a file of this machine."""
    folder = tmp_path_factory.mktemp("shipped")
    (folder / "seeds.txt").write_text("a seed that stays here\n")
    return search(folder, seeds=str(folder / "seeds.txt"))


@pytest.fixture(scope="module")
def finished_otherwise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search with a template of its own."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine").mkdir()
    source = (Path("prompts") / "respond_chat.j2").read_text("utf-8")
    own = source.replace("{{ query }}", "[{{ query | trim }}]")
    assert own != source
    (folder / "mine" / "respond_chat.j2").write_text(own)
    return search(folder, prompts=str(folder / "mine"))


@pytest.fixture(scope="module")
def server() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server
    huggingface_hub.close_session()


@pytest.fixture
def hub(server: HubServer, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """The stand-in with nothing in it, a token that may write, and nobody logged in on this machine."""
    server.repositories.clear()
    server.asked.clear()
    server.faults.clear()
    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING"))]:
        monkeypatch.delenv(name)
    for name, value in {"HF_ENDPOINT": server.url, "HF_TOKEN": WRITER, "HF_HOME": str(shell.folder)}.items():
        monkeypatch.setenv(name, value)
    # What the library would have read from these, had it been imported just now.
    files = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(shell.folder / "token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(shell.folder / "stored_tokens"))
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(shell.folder / "harnesses"), raising=False)
    return server


@pytest.fixture
def run(shell: Shell, finished: Path) -> Path:
    """The finished search as `run` in the shell's folder."""
    return Path(shutil.copytree(finished, shell.folder / "run"))


def rendered(path: Path, **settings: Any) -> list[list[dict[str, str]]]:
    """What the model would be sent for some queries."""
    with drpo.load(path, **settings) as aligned:
        return [aligned.messages(query) for query in QUERIES]


def test_what_is_pulled_renders_and_answers_as_the_run_does(shell: Shell, hub: HubServer, run: Path) -> None:
    shell.done(*PUSH, "--yes")
    ran = shell.done("pull", "me/first")
    assert ran.out == "first\n"
    assert rendered(Path("first")) == rendered(run)
    assert read_alignment(Path("first")) == read_alignment(run)
    shell.write("queries.txt", "\n".join(QUERIES))
    for name in ("run", "first"):
        shell.done("generate", name, "--in", "queries.txt", "--out", f"of-{name}.jsonl", "--quiet")
    assert Path("of-run.jsonl").read_bytes() == Path("of-first.jsonl").read_bytes()
    assert "Simulated" in ran.err and "--prompts" not in ran.err
    assert shell.done("show", "first").out.startswith(read_alignment(run).system_prompt)


def test_templates_of_ones_own_come_along(shell: Shell, hub: HubServer, finished_otherwise: Path) -> None:
    shell.done("push", finished_otherwise, "me/own", "--yes")
    ran = shell.done("pull", "me/own", "-o", "there/own")
    pulled = rendered(Path("there/own"), prompts=Path("there/own/prompts"))
    assert pulled == rendered(finished_otherwise)
    assert pulled[0][-1]["content"] == "[How do magnets work?]"
    last = ran.err.splitlines()[-1]
    if "--prompts" in last:  # where a folder's own templates are not found by themselves, that is said
        assert "drpo chat there/own --prompts there/own/prompts" in last
    else:
        assert rendered(Path("there/own")) == pulled


def test_a_repository_is_private_unless_public_is_asked_for(shell: Shell, hub: HubServer, run: Path) -> None:
    assert "private: only you" in shell.done(*PUSH, "--yes").err
    assert "public: everybody" in shell.done("push", "run", "me/open", "--public", "--yes").err
    assert hub.repositories["me/first"].private and not hub.repositories["me/open"].private


def test_nothing_else_is_uploaded_and_nothing_of_this_machine(
    shell: Shell, hub: HubServer, run: Path, finished: Path
) -> None:
    ran = shell.done(*PUSH, "--yes", "--license", "apache-2.0")
    uploaded = {name: text for name, text in hub.repositories["me/first"].files.items() if name in NAMES}
    assert hub.repositories["me/first"].files.keys() == NAMES | {".gitattributes"}
    everything = b"".join(uploaded.values()) + json.dumps([asked.body for asked in hub.asked]).encode()
    for secret in (str(finished.parent), str(shell.folder), "a seed that stays here", WRITER):
        assert secret.encode() not in everything
    for name, content in uploaded.items():
        assert f"{name} {len(content):,} bytes" in " ".join(ran.err.split())
    assert WRITER not in ran.out + ran.err
    assert b"license: apache-2.0\n" in uploaded["README.md"]


def test_an_address_stays_here_and_nobody_else_is_asked_instead(
    shell: Shell, hub: HubServer, run: Path
) -> None:
    own = {**read_alignment(run).models, "base": "openai/big@http://10.0.0.7:8000/v1"}
    replace(read_alignment(run), models=own, simulated=False).save(shell.folder / "own.json")
    ran = shell.done("push", "own.json", "me/first", "--yes")
    assert "Left out: addresses" in ran.err
    assert not [name for name, text in hub.repositories["me/first"].files.items() if b"10.0.0.7" in text]
    pulled = shell.done("pull", "me/first")
    shell.write("queries.txt", "One?")
    said = shell.refused(2, "generate", "first", "--in", "queries.txt")
    assert "found for openai/big (at an address of its own)" in said and "name" in said
    assert "drpo chat first --model MODEL" in pulled.err


def test_without_a_terminal_and_without_yes_nothing_is_sent(shell: Shell, hub: HubServer, run: Path) -> None:
    said = shell.refused(2, *PUSH)
    assert "nothing was sent" in said and "--yes" in said
    assert hub.asked == []


def on_terminal(answer: str, *arguments: str) -> tuple[subprocess.Popen[bytes], int]:
    """drpo with a terminal to ask on, the answer typed already; the terminal's other end."""
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "drpo", *arguments]
    running = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    os.write(ours, f"{answer}\n".encode())
    return running, ours


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pty")
def test_on_a_terminal_only_a_yes_uploads(shell: Shell, hub: HubServer, run: Path) -> None:
    answers = {"y": "me/yes", "": "me/nothing"}
    asked = [on_terminal(answer, "push", "run", name) for answer, name in answers.items()]
    for running, terminal in asked:
        out, _ = running.communicate(timeout=60)
        assert running.returncode == 0
        assert bool(out) == (running is asked[0][0])
        os.close(terminal)
    assert list(hub.repositories) == ["me/yes"]


def test_a_dry_run_writes_what_would_be_uploaded_and_asks_nobody(
    shell: Shell, hub: HubServer, run: Path
) -> None:
    ran = shell.done(*PUSH, "--dry-run", "-o", "look")
    assert "Nothing was sent" in ran.err and hub.asked == []
    shell.done(*PUSH, "--yes")
    files = hub.repositories["me/first"].files
    assert content_of(Path("look")) == {name: files[name] for name in NAMES}


def test_a_repository_in_other_use_is_left_alone(shell: Shell, hub: HubServer, run: Path) -> None:
    hub.holds("me/first", {"README.md": b"my model", "model.safetensors": b"1"}, private=True)
    assert "holds other files" in shell.refused(2, *PUSH, "--yes")
    hub.holds("me/first", {"alignment.json": b"{}"})
    assert "exists and is public: push to it with --public" in shell.refused(2, *PUSH, "--yes")
    hub.holds("me/first", {"alignment.json": b"{}"}, private=True)
    assert "exists and is private" in shell.refused(2, *PUSH, "--yes", "--public")
    assert hub.changes() == []
    shell.done(*PUSH, "--yes")
    assert len(hub.repositories["me/first"].commits) == 2


def test_what_was_changed_in_between_is_not_written_over(shell: Shell, hub: HubServer, run: Path) -> None:
    shell.done(*PUSH, "--yes")
    hub.faults.append(Fault("/commit/", 412, "A commit has happened since"))
    assert "Somebody has just changed it" in shell.refused(3, *PUSH, "--yes", "--license", "mit")
    commits = hub.repositories["me/first"].commits
    sent = [asked.body[0]["value"].get("parentCommit") for asked in hub.asked if "/commit/" in asked.path]
    assert sent == [None, commits[-1][0]]


def test_the_same_files_again_are_no_further_commit(shell: Shell, hub: HubServer, run: Path) -> None:
    first, second = shell.done(*PUSH, "--yes"), shell.done(*PUSH, "--yes")
    assert first.out == second.out == f"{hub.url}/me/first\n"
    assert len(hub.repositories["me/first"].commits) == 2  # that of its making, and one push


@pytest.mark.parametrize(
    ("command", "status", "code", "remedy"),
    [
        ("push", 401, 3, "set HF_TOKEN"),
        ("push", 403, 3, "the right to write"),
        ("push", 400, 3, "Check the name, the licence"),
        ("push", 503, 5, "try again later"),
        ("pull", 401, 3, "set HF_TOKEN"),
        ("pull", 404, 3, "no such repository"),
        ("pull", 429, 5, "try again later"),
        ("pull", 500, 5, "try again later"),
    ],
)
def test_what_the_hub_refuses_is_a_sentence_with_the_remedy_and_without_the_token(
    shell: Shell, hub: HubServer, run: Path, command: str, status: int, code: int, remedy: str
) -> None:
    hub.faults.append(Fault("/api/models" if status != 403 else "/create", status, f"no, {WRITER}\x1b[2J"))
    said = shell.refused(
        code, *(PUSH if command == "push" else ("pull", "me/first")), *(["--yes"] * (command == "push"))
    )
    assert remedy in said and f"status {status}" in said
    assert WRITER not in said and "\x1b" not in said


def test_a_token_that_may_not_write_is_refused(
    shell: Shell, hub: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", READER)
    assert "don't have the rights" in shell.refused(3, *PUSH, "--yes")
    monkeypatch.setenv("HF_TOKEN", "hf_nobodys")
    assert "Token missing or wrong" in shell.refused(3, *PUSH, "--yes")
    assert hub.repositories == {}


def test_without_any_token_nothing_is_sent_and_a_login_is_one(
    shell: Shell, hub: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert "set HF_TOKEN, or run hf auth login" in shell.refused(2, *PUSH, "--yes")
    assert hub.asked == []
    shell.write("token", WRITER)
    shell.done(*PUSH, "--yes")
    assert "me/first" in hub.repositories


@pytest.mark.parametrize(
    "name", ["first", "me/first/more", "../first", "me/..", "me/a b", "me/.x", "/first", "me/"]
)
def test_what_is_no_repository_is_a_sentence(shell: Shell, hub: HubServer, run: Path, name: str) -> None:
    assert "expected USER/REPO" in shell.refused(2, "pull", name)
    assert "expected USER/REPO" in shell.refused(2, "push", "run", name, "--yes")
    assert hub.asked == []


def test_a_hub_that_is_not_there_is_down(
    shell: Shell, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "Check the network" in shell.refused(5, "pull", "me/first")
    monkeypatch.setenv("HF_ENDPOINT", "nonsense")
    assert "expected the URL of a hub" in shell.refused(2, "pull", "me/first")


def test_an_answer_that_is_none_of_a_hub_is_said(shell: Shell, hub: HubServer) -> None:
    hub.faults.append(Fault("/api/models", 200))
    assert "not that of a hub" in shell.refused(5, "pull", "me/first")


def test_the_missing_library_is_named(shell: Shell, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for arguments in ((*PUSH, "--dry-run"), ("pull", "me/first")):
        assert "pip install 'drpo[hub]'" in shell.refused(2, *arguments)


def test_a_revision_is_pulled_as_it_was(shell: Shell, hub: HubServer, run: Path) -> None:
    shell.done(*PUSH, "--yes")
    repository = hub.repositories["me/first"]
    repository.branches["v1"] = repository.commits[-1][0]
    repository.commit({**repository.files, "alignment.json": b"{}"})
    for revision in ("v1", repository.branches["v1"]):
        shell.done("pull", "me/first", "--revision", revision, "-o", "first")
    assert read_alignment(Path("first")) == read_alignment(run)
    assert "no revision v2" in shell.refused(3, "pull", "me/first", "--revision", "v2")
    assert "expected a branch" in shell.refused(2, "pull", "me/first", "--revision", "a b")


def test_a_folder_with_something_else_in_it_is_kept(shell: Shell, hub: HubServer, run: Path) -> None:
    shell.done(*PUSH, "--yes")
    Path("first").mkdir()
    shell.done("pull", "me/first")  # an empty folder is filled
    before = times_of(Path("first"))
    assert "unchanged" in shell.done("pull", "me/first").err
    assert times_of(Path("first")) == before
    Path("first/README.md").write_text("mine")
    assert "holds other files" in shell.refused(2, "pull", "me/first")
    assert Path("first/README.md").read_text() == "mine"
    assert "something else" in shell.refused(2, "pull", "me/first", "-o", "first/README.md")
    assert not list(Path().glob(".first*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("push", "run", "me/x", "--license", "a\nb: c", "--yes"), "expected an identifier"),
        (("push", "run", "me/x", "-o", "there", "--yes"), "-o is for --dry-run"),
        (("push", "nowhere", "me/x", "--yes"), "expected a run directory"),
    ],
)
def test_what_cannot_be_pushed_is_a_sentence(
    shell: Shell, hub: HubServer, run: Path, arguments: tuple[str, ...], said: str
) -> None:
    assert said in shell.refused(2, *arguments)
    assert hub.asked == []
