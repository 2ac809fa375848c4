"""`drpo.load`: an alignment in a program of one's own, rendered, answered, streamed."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

import drpo
from drpo.errors import InputError, ProviderRefused
from drpo.resources import resource_folder
from tests.support.mock_openai import Answer, error
from tests.support.served import Served
from tests.support.streams import said


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("found")
    drpo.optimize(
        model="demo",
        depth=2,
        max_extra_depth=0,
        validate=0,
        run_dir=folder / "run",
        reuse=False,
        report=False,
    )
    return folder / "run"


def at(url: str) -> dict[str, Any]:
    return {"model": f"openai/base@{url}", "prompt_form": "chat"}


def test_what_is_sent_is_what_is_rendered(found: Path) -> None:
    with Served(lambda model, body: "Fine.") as server, drpo.load(found, **at(server.url)) as loaded:
        assert loaded.complete("How are you?") == "Fine."
        assert server.bodies[0]["messages"] == loaded.messages("How are you?")
        assert server.bodies[0]["temperature"] == 0


def test_earlier_turns_stand_behind_the_shots(found: Path) -> None:
    with Served(lambda model, body: "Fine.") as server, drpo.load(found, **at(server.url)) as loaded:
        loaded.complete("And you?", before=[("How are you?", "Fine.")])
        sent = server.bodies[0]["messages"]
    assert [message["content"] for message in sent[-3:]] == ["How are you?", "Fine.", "And you?"]


def test_a_stream_comes_in_pieces_and_can_be_left(found: Path) -> None:
    with (
        Served(lambda model, body: said("one two three")) as server,
        drpo.load(found, **at(server.url)) as loaded,
    ):
        assert list(loaded.stream("Count")) == ["one ", "two ", "three "]
        coming = loaded.stream("Count")
        assert next(coming) == "one "
        coming.close()  # type: ignore[attr-defined]
        assert list(loaded.stream("Again")) == ["one ", "two ", "three "]


def test_several_threads_may_ask_at_once(found: Path) -> None:
    def handler(model: str, body: dict[str, Any]) -> Answer:
        return f"re {body['messages'][-1]['content']}"

    answers: dict[int, str] = {}
    with Served(handler) as server, drpo.load(found, **at(server.url)) as loaded:

        def ask(number: int) -> None:
            answers[number] = loaded.complete(f"question {number}?")

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == {number: f"re question {number}?" for number in range(8)}


def test_a_failure_is_the_one_of_the_server_and_the_next_question_may_do_better(found: Path) -> None:
    replies: list[Answer] = [error(401, "no such key"), error(401, "no such key"), "Fine."]
    with Served(lambda model, body: replies.pop(0)) as server, drpo.load(found, **at(server.url)) as loaded:
        with pytest.raises(ProviderRefused, match="no such key"):
            loaded.complete("Hello?")
        with pytest.raises(ProviderRefused, match="no such key"):
            list(loaded.stream("Hello?"))
        assert loaded.complete("Hello?") == "Fine."


def test_the_model_of_the_search_is_asked_where_no_other_is_named(found: Path) -> None:
    with drpo.load(found) as loaded:
        assert loaded.complete("What is jazz?") == "".join(loaded.stream("What is jazz?")) != ""
    with pytest.raises(InputError, match="which these settings do not name"):
        drpo.load(found, demo_seed=1).complete("Hello?")


def test_closing_twice_and_asking_again_is_fine(found: Path) -> None:
    loaded = drpo.load(found)
    loaded.close()
    first = loaded.complete("What is jazz?")
    loaded.close()
    loaded.close()
    assert loaded.complete("What is jazz?") == first
    loaded.close()


def test_a_folder_with_its_templates_beside_it_needs_no_other_word(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    shipped = resource_folder("prompts") / "respond_chat.j2"
    (own / "respond_chat.j2").write_text("{# mine #}" + shipped.read_text("utf-8"), "utf-8")
    run = tmp_path / "run"
    drpo.optimize(
        model="demo",
        depth=2,
        max_extra_depth=0,
        validate=0,
        prompts=own,
        run_dir=run,
        reuse=False,
        report=False,
    )
    shared = tmp_path / "shared"
    shared.mkdir()
    shutil.copy(run / "alignment.json", shared)
    with pytest.raises(InputError, match="was searched with another"):
        drpo.load(shared)
    shutil.copytree(own, shared / "prompts")
    assert drpo.load(shared).messages("Hello?") == drpo.load(run).messages("Hello?")
