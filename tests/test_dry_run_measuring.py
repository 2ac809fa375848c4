"""`--dry-run` of what measures, as its user runs it: all is said, nothing is done."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from drpo.judging.cases import shipped_judge_cases
from drpo.testing import closed_sockets
from tests.support.command import SMALL, Shell, content_of, times_of

PRICES = ("base=0.5/1.5", "judge=2/8")
FAR = "openai/far@http://127.0.0.1:1/v1"
FEW = 12
EVALUATE = ("evaluate", "--model", "demo", "--alignment", "none", "--judge", "demo", "--limit", FEW)
COMPARE = ("compare", "--model", "demo", "--alignment", "urial", "--against", "none", "--judge", "demo")
AUDIT = ("audit-judge", "--judge", "demo", "--cases", "cases.jsonl")
RUN = ("--run-dir", "run")
PRICED = tuple(part for price in PRICES for part in ("--price", price))


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    folder = tmp_path / "work"
    folder.mkdir()
    cases = shipped_judge_cases().read_text("utf-8").splitlines()
    (folder / "cases.jsonl").write_text("\n".join(cases[:3]), encoding="utf-8")
    monkeypatch.setenv("COLUMNS", "80")
    return Shell(folder, monkeypatch, capsys)


def dry(shell: Shell, *arguments: object) -> str:
    return shell.done(*arguments, "--dry-run").out


def told(shell: Shell, *arguments: object) -> Any:
    return shell.done(*arguments, "--dry-run", "--json").json


@pytest.mark.parametrize("command", [EVALUATE, COMPARE, AUDIT])
def test_nothing_is_sent_or_written_and_the_answer_comes_first(
    shell: Shell, command: tuple[object, ...]
) -> None:
    before = content_of(shell.folder)
    with closed_sockets():
        lines = dry(shell, *command, *RUN, *PRICED).splitlines()
    assert content_of(shell.folder) == before
    assert lines[0] == f"drpo {command[0]}, dry run: nothing is sent, started or written"
    assert lines[1].startswith("About ") and "calls (" in lines[1] and " for $" in lines[1]
    assert [line for line in lines if len(line) > 80] == []
    assert "paper" not in "\n".join(lines).lower() and "levels" not in "\n".join(lines)
    assert lines[-1].startswith("Models named demo are simulated")


def test_a_run_that_is_there_is_left_as_it_is(shell: Shell) -> None:
    shell.refused(9, *EVALUATE, *RUN, "--quiet", "--max-calls", 15)
    before, times = content_of(shell.folder), times_of(shell.folder)
    text = dry(shell, *EVALUATE, *RUN)
    assert "it has begun and would go on" in text and "calls still to come" in text
    assert (content_of(shell.folder), times_of(shell.folder)) == (before, times)
    shell.done(*EVALUATE, *RUN, "--quiet")
    assert "This measurement has finished: nothing more would be sent." in dry(shell, *EVALUATE, *RUN)


def test_a_run_of_other_settings_is_the_same_error_as_without(shell: Shell) -> None:
    shell.done(*EVALUATE, *RUN, "--quiet")
    other = (*EVALUATE, *RUN, "--max-tokens", 999)
    assert shell.refused(6, *other, "--dry-run") == shell.refused(6, *other)


def test_each_setting_is_told_with_where_it_comes_from(shell: Shell) -> None:
    shell.write("drpo.toml", 'judge = "demo"\nrepairs = 2\n')
    shell.env.setenv("DRPO_LIMIT", "11")
    command = ("evaluate", "--model", "demo", "--alignment", "urial", "--config", "drpo.toml", *RUN)
    found = told(shell, *command)["settings"]
    assert {name: found[name]["from"] for name in ("judge", "repairs", "limit", "alignment", "level")} == {
        "judge": "drpo.toml",
        "repairs": "drpo.toml",
        "limit": "DRPO_LIMIT",
        "alignment": "--alignment",
        "level": "default",
    }


def test_a_missing_key_and_an_unknown_price_are_told_and_the_figures_stand(shell: Shell) -> None:
    found = told(shell, *EVALUATE[:5], "--judge", "openai/gpt-4o", *RUN)
    assert len(found["refused"]) == 1 and "OPENAI_API_KEY is not set" in found["refused"][0]
    assert found["roles"]["judge"]["usd"]["expected"] > 0
    unpriced = told(shell, *EVALUATE[:5], "--judge", FAR, *RUN)
    assert unpriced["unpriced"] == ["judge"] and unpriced["roles"]["judge"]["usd"] is None
    assert "--price judge=IN/OUT" in dry(shell, *EVALUATE[:5], "--judge", FAR, *RUN)


def test_who_judges_itself_is_warned(shell: Shell) -> None:
    text = dry(shell, "evaluate", "--model", FAR, "--alignment", "none", "--judge", FAR, *RUN)
    assert "judges answers of its own" in " ".join(text.split())


@pytest.mark.parametrize(
    ("limit", "says"),
    [(2 * FEW + FEW, "enough"), (2 * FEW + 2, "may end early"), (FEW, "will end early")],
)
def test_what_a_limit_of_calls_means_is_told(shell: Shell, limit: int, says: str) -> None:
    found = told(shell, *EVALUATE, *RUN, "--max-calls", limit)
    assert found["limits"] == {"max_calls": {"limit": limit, "says": says}}
    ran = shell.run(*EVALUATE, *RUN, "--max-calls", limit, "--quiet")
    assert ran.code == {"enough": 0, "may end early": 0, "will end early": 9}[says]


def test_what_a_limit_of_money_means_is_told(shell: Shell) -> None:
    command = (*EVALUATE, *RUN, *PRICED)
    found = told(shell, *command)
    assert list(found["roles"]) == ["base", "judge"] and found["items"] == FEW

    def says(limit: float) -> str:
        return str(told(shell, *command, "--max-usd", limit)["limits"]["max_usd"]["says"])

    assert says(0.0001) == "too little to begin"
    assert shell.run(*command, "--max-usd", 0.0001, "--quiet").code == 9
    assert says(found["usd"]["expected"] + 0.001) == "may end early"
    assert says(found["usd"]["most"] + 0.01) == "enough"
    assert shell.run(*command, "--max-usd", found["usd"]["most"] + 0.01, "--quiet").code == 0


def test_a_limit_that_is_used_up_is_told_with_the_exit_code(shell: Shell) -> None:
    shell.refused(9, *EVALUATE, *RUN, "--quiet", "--max-calls", 15)
    command = (*EVALUATE, *RUN, "--max-calls", 15)
    assert told(shell, *command)["limits"]["max_calls"]["says"] == "used up"
    assert "would end at once with exit code 9" in " ".join(dry(shell, *command).split())
    text = " ".join(dry(shell, *EVALUATE, *RUN, "--max-calls", 16).split())
    assert "without a result until a higher limit goes on (exit code 9)" in text


class _Scoring(BaseHTTPRequestHandler):
    """A server of a reward model, to which every response is worth 1.5."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        item = {"index": 0, "label": "LABEL_0", "probs": [1.5], "num_classes": 1, "score": 1.5}
        body = json.dumps({"data": [item], "usage": {"prompt_tokens": 9}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def scoring() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Scoring) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_what_a_reward_model_is_given_is_counted_and_has_no_price(
    shell: Shell, scoring: ThreadingHTTPServer
) -> None:
    url = f"http://127.0.0.1:{scoring.server_port}/v1"
    command = (*EVALUATE, *RUN, "--reward-model", f"vllm/rm@{url}")
    assert told(shell, *command)["reward_model"] == {"responses": FEW, "had": 0}
    assert f"a reward model is given {FEW} responses." in " ".join(dry(shell, *command).split())
    shell.done(*command, "--quiet")
    assert told(shell, *command)["reward_model"] == {"responses": FEW, "had": FEW}
    assert told(shell, *EVALUATE)["reward_model"] is None


def test_the_server_that_would_be_started_is_told(shell: Shell) -> None:
    command = ("evaluate", "--model", "mistral-7b", "--alignment", "none", "--judge", FAR, *RUN)
    (line,) = [line for line in told(shell, *command)["servers"] if not line.startswith("#")]
    assert "mistralai/Mistral-7B-v0.1" in line


def test_text_of_others_drives_no_terminal(shell: Shell) -> None:
    shell.write("\x1b[2Jq.txt", "\n".join(f"How {n}?" for n in range(10)))
    text = dry(shell, *EVALUATE, *RUN, "--data", "\x1b[2Jq.txt")
    assert "\x1b[2J" not in text


def test_a_search_is_still_told_as_a_search(shell: Shell) -> None:
    text = dry(shell, "optimize", "--model", "demo", *SMALL, *RUN)
    assert "Paper: DRPO, Appendix A.5" in text and "measurement" not in text
