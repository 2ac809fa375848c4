"""`drpo chat`: what is sent from turn to turn, what can be typed, and what a Ctrl-C ends."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
from typing import Any

import pytest

from tests.support.command import Ran, Shell
from tests.support.mock_openai import Answer, Reply, error
from tests.support.served import Served
from tests.support.streams import said


def talk(shell: Shell, url: str, *typed: str, alignment: str = "urial", flags: tuple[str, ...] = ()) -> Ran:
    """A chat in which these lines are typed."""
    shell.env.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in typed)))
    return shell.run("chat", alignment, "--model", f"openai/base@{url}", "--prompt-form", "chat", *flags)


def numbered(model: str, body: dict[str, Any]) -> Answer:
    """The number of the turn."""
    asked = sum(message["role"] == "user" for message in body["messages"])
    return said(f"answer {asked}")


def test_the_shots_stand_before_all_turns_and_every_turn_is_sent_again(shell: Shell) -> None:
    with Served(numbered) as server:
        ran = talk(shell, server.url, "first?", "second?")
        one, two = (body["messages"] for body in server.bodies)
    assert ran.code == 0 and ran.out == "answer 4 \nanswer 5 \n"
    assert two[: len(one)] == one
    assert two[len(one) :] == [
        {"role": "assistant", "content": "answer 4 "},
        {"role": "user", "content": "second?"},
    ]
    assert [message["role"] for message in one] == ["system", *("user", "assistant") * 3, "user"]


def test_a_new_conversation_forgets_and_saving_writes_what_was_said(shell: Shell) -> None:
    with Served(numbered) as server:
        ran = talk(shell, server.url, "first?", "/reset", "anew?", "/save chat.json", "/save chat.json")
        assert len(server.bodies[0]["messages"]) == len(server.bodies[1]["messages"])
    kept = json.loads((shell.folder / "chat.json").read_text("utf-8"))
    assert kept["turns"] == [{"query": "anew?", "response": "answer 4 "}] and kept["shots"] == [0, 1, 2]
    assert "nothing is written over" in ran.err


def test_shots_and_system_prompt_are_shown_and_a_wrong_command_is_told(shell: Shell) -> None:
    with Served(numbered) as server:
        ran = talk(shell, server.url, "/shots", "Hello?", "/shots", "/system", "/nope", "/help")
        system = server.bodies[0]["messages"][0]["content"]
        shots = [m["content"] for m in server.bodies[0]["messages"][1:-1]]
    assert (
        "no examples: they are chosen for the first query" in ran.err and "/nope: no such command" in ran.err
    )
    assert system in ran.out and all(shot in ran.out for shot in shots) and "/save FILE" in ran.out


def test_with_another_alignment_both_answer_alike_and_stand_side_by_side(shell: Shell) -> None:
    with Served(numbered) as server:
        ran = talk(shell, server.url, "first?", "/with none", "Hello?", "/with", "Again?")
        lengths = sorted(len(body["messages"]) for body in server.bodies[1:3])
    assert lengths == [2, 8] and "urial" in ran.out and "none" in ran.out
    assert "answer 1" in ran.out and "answer 4" in ran.out and len(server.bodies) == 4


def test_ctrl_c_ends_the_answer_and_not_the_chat(shell: Shell) -> None:
    replies: list[Answer] = [Reply(fault="hang"), said("still here")]
    with Served(lambda model, body: replies.pop(0)) as server:

        def interrupt() -> None:
            server.wait_for(lambda: len(server.requests) == 1)
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        ran = talk(shell, server.url, "first?", "second?")
        thread.join()
        last = server.bodies[-1]["messages"]
    assert ran.code == 0 and "(stopped" in ran.err and "still here" in ran.out
    assert "first?" not in [message["content"] for message in last]


def test_a_failing_server_is_told_and_the_chat_goes_on(shell: Shell) -> None:
    replies: list[Answer] = [error(401, "no such key"), said("here")]
    with Served(lambda model, body: replies.pop(0)) as server:
        ran = talk(shell, server.url, "first?", "second?")
    assert ran.code == 0 and "HTTP 401: no such key" in ran.err and "here" in ran.out


def test_what_the_model_writes_is_shown_and_never_obeyed(shell: Shell) -> None:
    with Served(lambda model, body: said("\x1b[2Jgone \u202e!")) as server:
        ran = talk(shell, server.url, "Hello?")
    assert "\x1b" not in ran.out and "\u202e" not in ran.out and "\\u001b[2Jgone" in ran.out


@pytest.mark.parametrize("end", ["\n\n# Query\nAnother?", "\n# Answer\nAnother", "\n\n"])
def test_the_page_of_a_base_model_ends_where_its_answer_ends(shell: Shell, end: str) -> None:
    pieces = [*"The an", "swer.\n- one\n", "#hash is no heading", *end]
    events = [{"choices": [{"text": piece}]} for piece in pieces]
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    with Served(lambda model, asked: Reply(body=body)) as server:
        shell.env.setattr("sys.stdin", io.StringIO("Hello?\n"))
        ran = shell.done("chat", "urial", "--model", f"openai/base@{server.url}", "--prompt-form", "text")
    assert ran.out == "The answer.\n- one\n#hash is no heading\n"


def test_shots_that_are_looked_for_are_those_of_the_first_turn(shell: Shell) -> None:
    found = ("--depth", "2", "--max-extra-depth", "0", "--validate", "0", "--run-dir", "run", "--quiet")
    shell.done("optimize", "--model", "demo", *found)
    first, other = "How do I keep my flat cool?", "Write a poem about Monday and coffee."
    with Served(numbered) as server:
        talk(shell, server.url, first, other, "/reset", other, alignment="run")
        one, two, anew = (body["messages"] for body in server.bodies)
    assert two[: len(one)] == one and anew[1:-1] != one[1:-1]


def test_another_alignment_is_asked_at_the_model_that_the_run_was_found_for(shell: Shell) -> None:
    wanted = ("--depth", "2", "--max-extra-depth", "0", "--shots", "1", "--validate", "0")
    shell.done("optimize", "--model", "demo", *wanted, "--run-dir", "found", "--quiet")
    shell.env.setattr("sys.stdin", io.StringIO("/with none\nHow do I bake bread?\n"))
    ran = shell.done("chat", "found")
    assert "found" in ran.out and "none" in ran.out and "was made for no model" not in ran.err
