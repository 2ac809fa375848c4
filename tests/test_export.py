"""`drpo export`: every target holds what the search sent, or says in one line that it cannot."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jinja2
import pytest

from drpo.exporting.targets import TARGETS
from drpo.types import Example
from tests.support.command import Shell, content_of
from tests.support.export_cases import PRINTED, QUERY, searched_messages, searched_page, written
from tests.support.served import Served

HERE = Path(__file__).resolve().parent.parent
NEAR = ("--shots-for", QUERY)


def exported(shell: Shell, path: Path, target: str, *flags: object) -> Path:
    """The folder of an export whose shots are those of QUERY."""
    folder = shell.folder / f"for-{target}"
    shell.done("export", path, "--to", target, "-o", folder, *NEAR, *flags)
    return folder


def module_of(file: Path) -> Any:
    """A written Python file, loaded."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def given_to(program: str, script: Path, folder: Path, *more: str) -> list[str]:
    """What a written script, run with `more`, gives to `program`, which a real shell starts."""
    stand_in = folder / "bin" / program
    stand_in.parent.mkdir(exist_ok=True)
    stand_in.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    stand_in.chmod(0o755)
    path = f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", str(script), *more],
        env={**os.environ, "PATH": path},
        capture_output=True,
        check=True,
        cwd=folder,
    )
    return done.stdout.decode().split("\0")[:-1]


def uncommented(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))


def test_messages_are_those_of_the_search(shell: Shell) -> None:
    path = written(shell.folder)
    data = json.loads((exported(shell, path, "messages") / "messages.json").read_text("utf-8"))
    query = data["query"]
    asked = {"role": query["role"], "content": query["before"] + QUERY + query["after"]}
    assert [*data["messages"], asked] == searched_messages(path)
    assert "nearest to the query" in data["note"][0]


def test_text_of_a_chat_is_its_messages_one_by_one(shell: Shell) -> None:
    path = written(shell.folder)
    folder = exported(shell, path, "text")
    files = sorted(file for file in folder.iterdir() if file.name != "NOTES.txt")
    messages = [
        {"role": file.stem.partition("-")[2], "content": file.read_bytes().decode()} for file in files
    ]
    messages[-1]["content"] = messages[-1]["content"].replace("QUERY", QUERY)
    assert messages == searched_messages(path)


def test_text_of_a_page_is_the_page(shell: Shell) -> None:
    path = written(shell.folder, "text")
    page = (exported(shell, path, "text") / "prompt.txt").read_bytes().decode()
    assert page.count("QUERY") == 1
    assert page.replace("QUERY", QUERY) == searched_page(path)


def test_the_mark_of_a_page_stands_nowhere_else_in_it(shell: Shell) -> None:
    path = written(shell.folder, "text", hard="QUERY QUERY_2")
    page = (exported(shell, path, "text") / "prompt.txt").read_text()
    assert page.replace("QUERY_3", QUERY) == searched_page(path)


def test_the_script_for_the_openai_sdk_sends_the_chat_of_the_search(shell: Shell) -> None:
    path = written(shell.folder)
    script = exported(shell, path, "openai") / "ask.py"
    with Served(lambda model, body: "The answer.") as server:
        env = {**os.environ, "OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "none"}
        done = subprocess.run(
            [sys.executable, str(script), QUERY], env=env, capture_output=True, text=True, check=True
        )
        (body,) = server.bodies
    assert done.stdout == "The answer.\n"
    sent = {"model": "some/model", "temperature": 0.0, "max_tokens": 2048}
    assert body == {**sent, "messages": searched_messages(path)}


def test_the_script_for_the_openai_sdk_sends_the_page_of_the_search(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(shell.folder, "text")
    with Served(lambda model, body: "The answer. ") as server:
        model = f"openai/base@{server.url}"
        ask = module_of(exported(shell, path, "openai", "--model", model, "--top-p", "0.5") / "ask.py")
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        from openai import OpenAI

        with OpenAI(base_url=ask.BASE_URL) as client:
            assert ask.answer(QUERY, client) == "The answer."
        (body,) = server.bodies
    sent = {"model": "base", "temperature": 0.0, "top_p": 0.5, "max_tokens": 2048, "stop": ["\n# Query"]}
    assert body == {**sent, "prompt": searched_page(path)}


def test_promptfoo_reads_back_the_chat_of_the_search(shell: Shell) -> None:
    path = written(shell.folder)
    folder = exported(shell, path, "promptfoo")
    config = json.loads(uncommented((folder / "promptfooconfig.yaml").read_text()))
    (prompt,), (provider,) = config["prompts"], config["providers"]
    assert prompt["id"] == "file://prompt.j2"
    # Nunjucks is Jinja's kin: what is written here means the same in both.
    env = jinja2.Environment(keep_trailing_newline=True, newline_sequence="\n")
    messages = json.loads((folder / "prompt.j2").read_text("utf-8"))
    for message in messages:
        kept = message["content"].replace("\r\n", "<CRLF>")  # which Jinja alone would make a line feed
        message["content"] = env.from_string(kept).render(query=QUERY).replace("<CRLF>", "\r\n")
    assert messages == searched_messages(path)
    assert provider == {
        "id": "openai:chat:some/model",
        "config": {"temperature": 0.0, "max_tokens": 2048},
    }
    assert len(config["tests"]) == 5


def test_promptfoo_is_given_a_page_as_a_completion(shell: Shell) -> None:
    path = written(shell.folder, "text", hard="{{ x }} {")
    folder = exported(shell, path, "promptfoo")
    config = json.loads(uncommented((folder / "promptfooconfig.yaml").read_text()))
    env = jinja2.Environment(keep_trailing_newline=True)
    assert env.from_string((folder / "prompt.j2").read_text("utf-8")).render(query=QUERY) == searched_page(
        path
    )
    assert config["providers"][0]["id"] == "openai:completion:some/model"
    assert config["providers"][0]["config"]["stop"] == ["\n# Query"]


def test_the_inspect_task_holds_the_chat_of_the_search(shell: Shell) -> None:
    path = written(shell.folder)
    tree = ast.parse((exported(shell, path, "inspect") / "drpo_alignment.py").read_text("utf-8"))
    values = {
        ast.unparse(node.targets[0]): ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) != "KINDS"
    }
    before, after = values["(BEFORE, AFTER)"]
    assert [*values["MESSAGES"], {"role": "user", "content": before + QUERY + after}] == searched_messages(
        path
    )
    assert values["PARAMETERS"] == {"temperature": 0.0, "max_tokens": 2048}
    decorated = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list}
    assert decorated == {"aligned", "drpo_alignment"}


def test_lm_eval_is_given_the_system_prompt_and_the_shots_of_the_search(shell: Shell) -> None:
    path = written(shell.folder)
    folder = exported(shell, path, "lm-eval")
    given = given_to("lm_eval", folder / "run.sh", shell.folder)
    (system,) = [a.partition("=")[2] for a in given if a.startswith("--system_instruction=")]
    task = module_of(folder / "drpo_alignment.py")
    messages = [{"role": "system", "content": system}]
    for shot in task.shots():
        messages += [
            {"role": "user", "content": task.shot_query(shot)},
            {"role": "assistant", "content": task.shot_response(shot)},
        ]
    messages.append({"role": "user", "content": task.question({"query": QUERY})})
    assert messages == searched_messages(path)
    assert given[given.index("--include_path") + 1] == str(folder)
    assert "num_fewshot: 2\n" in (folder / "drpo_alignment.yaml").read_text()
    assert len((folder / "queries.jsonl").read_text("utf-8").splitlines()) == 5


def test_lm_eval_is_given_a_page_as_one_question(shell: Shell) -> None:
    path = written(shell.folder, "text")
    folder = exported(shell, path, "lm-eval")
    assert module_of(folder / "drpo_alignment.py").question({"query": QUERY}) == searched_page(path)
    assert "num_fewshot: 0\n" in (folder / "drpo_alignment.yaml").read_text()
    given = given_to("lm_eval", folder / "run.sh", shell.folder)
    assert "local-completions" in given and "--apply_chat_template" not in given


def test_the_vllm_script_serves_the_model_with_the_template_beside_it(shell: Shell) -> None:
    path = written(shell.folder)
    flags = ("--tokenizer", HERE / "demo-lm", "--vllm-arg", "max-model-len=2048", "--base-max-tokens", "256")
    folder = exported(shell, path, "vllm", *flags)
    given = given_to("vllm", folder / "serve.sh", shell.folder)
    assert given[:2] == ["serve", "some/model"]
    assert given[given.index("--chat-template") + 1] == str(folder / "chat_template.jinja")
    assert given[given.index("--max-model-len") + 1] == "2048"
    assert given_to("vllm", folder / "serve.sh", shell.folder, "--port", "9 9") == [*given, "--port", "9 9"]
    exported(shell, path, "chat-template", "--tokenizer", HERE / "demo-lm")
    text = (shell.folder / "for-chat-template" / "chat_template.jinja").read_text("utf-8")
    assert (folder / "chat_template.jinja").read_text("utf-8") == text


def test_a_page_is_served_by_vllm_without_a_template(shell: Shell) -> None:
    path = written(shell.folder, "text")
    folder = exported(shell, path, "vllm")
    assert "--chat-template" not in given_to("vllm", folder / "serve.sh", shell.folder)
    ask = module_of(folder / "ask.py")
    assert ask.prompt(QUERY) == searched_page(path)
    assert ask.BASE_URL == "http://127.0.0.1:8000/v1"


@pytest.mark.parametrize("target", [target.name for target in TARGETS])
def test_every_target_says_that_its_shots_are_fixed_and_why_these(shell: Shell, target: str) -> None:
    path = written(shell.folder, hard=PRINTED)
    flags = ("--tokenizer", HERE / "demo-lm", "-o", "made", "--shots", "1")
    ran = shell.done("export", path, "--to", target, *flags)
    assert "the most central" in ran.err and "the search showed the 1 nearest to each query" in ran.err
    assert any("most central" in file.decode() for file in content_of(shell.folder / "made").values())


def test_no_embedder_means_the_same_shots_as_in_the_search_and_says_so(shell: Shell) -> None:
    ran = shell.done("export", "urial", "--to", "messages", "--json")
    assert ran.json["notes"] == ["The 3 examples shown are the same for every query, as in the search."]
    data = json.loads((shell.folder / "urial-messages" / "messages.json").read_text("utf-8"))
    assert [message["role"] for message in data["messages"]] == ["system", *["user", "assistant"] * 3]


def test_what_is_written_is_told_as_json(shell: Shell) -> None:
    path = written(shell.folder)
    told = shell.done("export", path, "--to", "openai", "-o", "made", "--json").json
    assert told["files"] == ["made/ask.py"]
    assert told["use"][-1] == "python made/ask.py 'your question'"
    assert len(told["notes"]) == 1


def test_nothing_is_written_over_but_the_same_export(shell: Shell) -> None:
    path = written(shell.folder)
    flags = ("export", path, "--to", "lm-eval", "-o", "made")
    shell.done(*flags)
    shell.done(*flags)
    (shell.folder / "made" / "fewshot.jsonl").write_text("mine")
    (shell.folder / "made" / "run.sh").unlink()
    assert "nothing is written over" in shell.refused(2, *flags)
    assert (shell.folder / "made" / "fewshot.jsonl").read_text() == "mine"
    assert not (shell.folder / "made" / "run.sh").exists()


@pytest.mark.parametrize(
    ("form", "flags", "said"),
    [
        ("text", ("--to", "chat-template", "--tokenizer", "."), "asked as a page"),
        ("text", ("--to", "modelfile"), "asked as a page"),
        ("text", ("--to", "messages"), "asked as a page"),
        ("text", ("--to", "inspect"), "asked as a page"),
        ("chat", ("--to", "chat-template"), "give --tokenizer"),
        ("chat", ("--to", "vllm"), "give --tokenizer"),
        ("chat", ("--to", "chat-template", "--tokenizer", "./none"), "expected a folder with a tokenizer"),
        ("chat", ("--to", "chat-template", "--tokenizer", "a/b"), "no repository in the Hugging Face cache"),
        ("chat", ("--to", "chat-template", "--tokenizer", "."), "there is none of them"),
        ("chat", ("--to", "modelfile"), "U+2028"),
        ("chat", ("--to", "openai", "--model", "demo"), "exists nowhere else"),
        ("chat", ("--to", "openai", "--model", "two words"), "two words"),
        ("chat", ("--to", "vllm", "--model", "openai/gpt-4o"), "is served by OpenAI"),
        ("chat", ("--to", "messages", "--shots", "0", "--shots-for", "x"), "no examples are shown"),
        ("chat", ("--to", "messages", "-o", "chat.json"), "found a file"),
        ("chat", ("--to", "messages", "--shots", "9"), "ask for fewer"),
        ("chat", ("--to", "openai", "--model", "openai/x@http://a/v1,http://b/v1"), "expected one URL"),
    ],
)
def test_what_cannot_be_held_is_a_sentence(
    shell: Shell, form: Any, flags: tuple[str, ...], said: str
) -> None:
    path = written(shell.folder, form)
    assert said in shell.refused(2, "export", path, *flags)
    assert list(shell.folder.iterdir()) == [path]


@pytest.mark.parametrize(
    "base", ["demo/seed=0,noise=0.5", "vllm/demo-lm#0123456789ab", "vllm/x/y[dtype=half]"]
)
def test_a_model_without_a_name_outside_of_drpo_is_asked_for(shell: Shell, base: str) -> None:
    path = written(shell.folder, models={"base": base})
    assert "--model NAME" in shell.refused(2, "export", path, "--to", "openai")
    shell.done("export", path, "--to", "messages")


def test_a_model_is_not_sent_what_it_is_known_to_refuse(shell: Shell) -> None:
    path = written(shell.folder, models={"base": "openai/gpt-6-luna"})
    assert module_of(exported(shell, path, "openai") / "ask.py").PARAMETERS == {}


def test_half_a_surrogate_pair_is_refused_by_every_target(shell: Shell) -> None:
    path = written(shell.folder, system_prompt="half \ud83d")
    assert "half a surrogate pair (U+D83D)" in shell.refused(2, "export", path, "--to", "messages")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"system_prompt": ""}, "the system prompt is empty"),
        ({"examples": (Example("Why?", ""),), "shots": 1}, "an example has an empty response"),
    ],
)
def test_lm_eval_is_not_given_what_it_would_leave_out(
    shell: Shell, fields: dict[str, Any], said: str
) -> None:
    path = written(shell.folder, **fields)
    assert said in shell.refused(2, "export", path, "--to", "lm-eval")


def test_every_tool_is_told_where_the_model_is_served(shell: Shell) -> None:
    path = written(shell.folder)
    model = ("--model", "vllm/base@http://127.0.0.1:9/v1")
    told = {
        name: shell.done("export", path, "--to", name, "-o", name, "--json", *model).json["use"]
        for name in ("inspect", "lm-eval", "promptfoo", "openai")
    }
    assert told["inspect"][-1].endswith("openai-api/local/base --model-base-url http://127.0.0.1:9/v1")
    config = json.loads(uncommented((shell.folder / "promptfoo" / "promptfooconfig.yaml").read_text()))
    assert config["providers"][0]["config"]["apiBaseUrl"] == "http://127.0.0.1:9/v1"
    assert "base_url=http://127.0.0.1:9/v1/chat/completions" in (shell.folder / "lm-eval/run.sh").read_text()
    assert "BASE_URL = 'http://127.0.0.1:9/v1'" in (shell.folder / "openai/ask.py").read_text("utf-8")


def test_what_was_found_with_simulated_models_or_for_another_one_is_told(shell: Shell) -> None:
    path = written(shell.folder, simulated=True, models={"base": "demo/seed=0,noise=0.5"})
    ran = shell.done("export", path, "--to", "messages", "--model", "openai/gpt-4o")
    assert "Found with simulated models" in ran.err
    assert "Found for demo/seed=0,noise=0.5, written for gpt-4o" in ran.err


def test_a_folder_is_named_after_alignment_and_target(shell: Shell) -> None:
    (shell.folder / "a run").mkdir()
    path = written(shell.folder / "a run")
    shell.done("export", path, "--to", "messages")
    path.rename(path.with_name("alignment.json"))
    shell.done("export", "a run", "--to", "text")
    shell.done("export", "a run/alignment.json", "--to", "openai")
    made = {folder.name for folder in shell.folder.iterdir()}
    assert made == {"a run", "chat-messages", "a-run-text", "a-run-openai"}
