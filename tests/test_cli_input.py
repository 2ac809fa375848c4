"""What a user gives: files, flags and names that cannot be used are one line that says how to mend them."""

from __future__ import annotations

import json

import pytest

from tests.support.command import Shell, demo

SEEDS = "".join(json.dumps({"query": f"What is the number {i} for?"}) + "\n" for i in range(6))


def nothing_was_begun(shell: Shell) -> bool:
    return not (shell.folder / "run").exists() and not (shell.folder / "runs").exists()


DEMO = ("--optimizer", "demo", "--evaluator", "demo", "--embedder", "lexical")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("s.jsonl", b"\xef\xbb\xbf" + SEEDS.encode(), "byte order mark removed"),
        ("s.jsonl", SEEDS.replace("\n", "\r\n"), "6 CRLF line ends read as such"),
        ("s.jsonl", SEEDS.replace("\n", "\n\n  \n"), "12 blank lines skipped"),
        ("s.jsonl", SEEDS + SEEDS, "6 duplicates dropped (first: line 7)"),
        ("s.txt", "one?\ntwo?\n\nthree?\none?\n", "1 duplicate dropped (first: line 5)"),
        ("s.csv", "query,topic\none?,a\n\ntwo?,b\nthree?,c\n", "1 blank line skipped"),
    ],
)
def test_unclean_seeds_are_cleaned_and_what_was_left_out_is_said(
    shell: Shell, name: str, content: str | bytes, said: str
) -> None:
    seeds = shell.write(name, content)
    arguments = [argument for argument in demo("--seeds", seeds) if argument != "--quiet"]
    assert f"seeds: {said}" in shell.done(*arguments).err
    written = (shell.folder / "run" / "inputs" / "queries.jsonl").read_text().splitlines()
    queries = [json.loads(line)["query"] for line in written]
    assert len(set(queries)) == len(queries) == (6 if name == "s.jsonl" else 3)
    assert "\ufeff" not in queries[0] and "\r" not in "".join(queries)


@pytest.mark.parametrize(
    ("name", "content", "place", "remedy"),
    [
        ("s.jsonl", SEEDS.encode("utf-16"), "line 1", "iconv -f UTF-16"),
        ("s.txt", "one\ntwo\n".encode("utf-16-le"), "line 1", "iconv -f UTF-16LE"),
        ("s.txt", b"one\n\x00\x01\xff\x00\x00\n", "line 2", "Give a text file"),
        ("s.txt", b"caf\xe9\n", "line 1", "iconv -f WINDOWS-1252"),
        ("s.jsonl", "", "", "Write one query a line"),
        ("s.txt", "\n \n\r\n", "", "Write one query a line"),
        ("s.json", "[]", "", "Write one query a line"),
        ("s.jsonl", SEEDS + "{not json\n", "line 7", "Write one entry a line"),
        ("s.jsonl", '{"query": 7}\n', "line 1", "Put it in quotes"),
        ("s.jsonl", '{"question_": "x"}\n', "line 1", "--seeds-column"),
        ("s.csv", "a,b\n1,2\n", "line 1", "--seeds-column"),
    ],
)
def test_unusable_seeds_are_refused_with_file_line_and_remedy(
    shell: Shell, name: str, content: str | bytes, place: str, remedy: str
) -> None:
    error = shell.refused(2, *demo("--seeds", shell.write(name, content)))
    assert name in error and place in error and remedy in error
    assert nothing_was_begun(shell)


def test_seeds_that_are_not_there_are_refused(shell: Shell) -> None:
    assert "missing.jsonl" in shell.refused(2, *demo("--seeds", "missing.jsonl"))
    assert "folder" in shell.refused(2, *demo("--seeds", shell.folder))
    assert nothing_was_begun(shell)


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("e.jsonl", '{"query": "a", "response": "b"}\n{"query": "c"}\n', "line 2"),
        ("e.jsonl", '{"query": "a", "response": "b"}\nnot json\n', "line 2"),
        ("e.json", '{"query": "a", "response": "b"}', "line 1"),
        ("e.json", '[{"query": "a", "response": 3}]', "item 1"),
        ("e.jsonl", '{"query": "a", "response": "b"}\n{"query": "a", "response": "c"}\n', "line 2"),
        ("e.jsonl", "", ""),
        ("e.jsonl", b"\xff\xfe\x00\x00", "line 1"),
    ],
)
@pytest.mark.parametrize("command", ["optimize", "optimize-examples"])
def test_malformed_examples_are_refused_with_file_and_line(
    shell: Shell, command: str, name: str, content: str | bytes, place: str
) -> None:
    examples = shell.write(name, content)
    error = shell.refused(2, command, "--model", "demo", "--examples", examples, "--run-dir", "run")
    assert name in error and place in error
    assert nothing_was_begun(shell)


def test_more_shots_than_examples_are_refused(shell: Shell) -> None:
    examples = shell.write("e.jsonl", '{"query": "a", "response": "b"}\n')
    error = shell.refused(2, *demo("--examples", examples, "--shots", "2"))
    assert "--shots 2" in error and "e.jsonl has 1 example" in error
    assert nothing_was_begun(shell)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{{ query }} {{ qeury }}", "qeury"),
        ("{{ query", "respond_chat.j2:1"),
        (b"\xff\xfe", "UTF-8"),
        ("no macros here", "macro"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_by_name(
    shell: Shell, content: str | bytes, said: str
) -> None:
    (shell.folder / "mine").mkdir()
    shell.write("mine/respond_chat.j2", content)
    error = shell.refused(2, *demo("--prompts", "mine"))
    assert "respond_chat.j2" in error and said in error


def test_an_unknown_template_variable_is_refused_by_name(shell: Shell) -> None:
    (shell.folder / "mine").mkdir()
    shell.write("mine/evaluate.j2", "line one\n{{ respnose }}\n")
    error = shell.refused(2, *demo("--prompts", "mine"))
    assert "evaluate.j2" in error and "respnose" in error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "mistral-7c"], "mistral-7b"),
        (["--model", "openai/"], "openai/"),
        (["--model", "demo", "--width", "0"], "--width"),
        (["--model", "demo", "--width", "two"], "--width"),
        (["--model", "demo", "--search", "beem"], "beam"),
        (["--model", "demo", "--dept", "3"], "--depth"),
        (["--model", "demo", "--keep-above", "nan"], "--keep-above"),
        (["--model", "demo", "--protect", "not in it"], "protect"),
        (["--model", "demo", "--initial-prompt", "@missing.txt"], "missing.txt"),
        (["--model", "demo", "--initial-prompt", ""], "--initial-prompt"),
        (["--model", "demo", "--prompts", "nowhere"], "nowhere"),
        (["--model", "demo", "--embedder", "word2vec"], "--embedder"),
        (["--model", "demo", "--config", "missing.toml"], "missing.toml"),
        (["--model", "demo", "--runs-dir", "x", "--name", "../out"], "--name"),
        (["--model", "demo", "--name", ".."], "--name"),
        (["--model", "demo", "--name", "a/b"], "--name"),
        (["--model", "demo", "--name", "n" * 300], "shorter"),
        ([], "--model"),
        (["--model", "vllm/./nowhere"], "vllm/./nowhere"),
        (["--model", "vllm/some/model", "--vllm-arg", "port=9"], "port"),
        (["--model", "vllm/some/model", "--vllm-command", "no-such-program", *DEMO], "--vllm-command"),
        (["--model", "demo", "surplus"], "surplus"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_its_flag(
    shell: Shell, arguments: list[str], said: str
) -> None:
    assert said in shell.refused(2, "optimize", *arguments)
    assert not any((shell.folder / name).exists() for name in ("out", "x/../out", "run"))


def test_a_wrong_variable_is_refused_by_its_name(shell: Shell) -> None:
    shell.env.setenv("DRPO_WIDTH", "wide")
    assert "DRPO_WIDTH" in shell.refused(2, *[a for a in demo() if a not in ("--width", "1")])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("widht = 3\n", "width"),
        ("width = [\n", "TOML"),
        (b"\xff\xfe\x00", "UTF-8"),
        ('width = "many"\n', "--width"),
        ('[roles.optimiser]\nmodel = "demo"\n', "optimiser"),
    ],
)
def test_a_settings_file_that_cannot_be_used_is_refused(
    shell: Shell, content: str | bytes, said: str
) -> None:
    file = shell.write("drpo.toml", content)
    assert said in shell.refused(2, "optimize", "--model", "demo", "--config", file)


def test_flags_win_over_variables_and_these_over_the_file(shell: Shell) -> None:
    shell.write("drpo.toml", 'model = "demo"\nwidth = 3\ndepth = 3\nsamples = 2\n')
    shell.env.setenv("DRPO_WIDTH", "2")
    settings = shell.done("optimize", "--config", "drpo.toml", "--samples", "1", "--json").json["settings"]
    assert (settings["width"], settings["depth"], settings["samples"]) == (2, 3, 1)


def test_a_dotenv_file_that_is_no_text_is_refused(shell: Shell) -> None:
    shell.write(".env", b"OPENAI_API_KEY=\xff\xfe\n")
    error = shell.refused(2, *demo())
    assert ".env" in error and "UTF-8" in error


def test_without_an_optimizer_it_says_how_to_choose_one(shell: Shell) -> None:
    error = shell.refused(2, "optimize", "--model", "openai/base@http://127.0.0.1:9/v1")
    assert "--optimizer" in error and "OPENAI_API_KEY" in error
    assert nothing_was_begun(shell)


def test_a_missing_openai_key_is_refused_before_anything_is_sent(shell: Shell) -> None:
    error = shell.refused(
        2, "optimize", "--model", "demo", "--optimizer", "openai/gpt-4.1", "--run-dir", "run"
    )
    assert "OPENAI_API_KEY is not set" in error and ".env" in error


@pytest.mark.parametrize("key", ["sk-secret\nmore", "sk-secret\u00e9", "sk-secret\r"])
@pytest.mark.parametrize("flag", [("--optimizer", "gpt-4o"), ("--embedder", "openai/text-embedding-3-small")])
def test_a_key_that_no_request_can_carry_is_refused_by_its_variable(
    shell: Shell, flag: tuple[str, str], key: str
) -> None:
    shell.env.setenv("OPENAI_API_KEY", key)
    error = shell.refused(2, "optimize", "--model", "demo", *flag, "--run-dir", "run")
    assert error.startswith("OPENAI_API_KEY: expected a key of ASCII") and "secret" not in error


def test_the_default_embedder_without_its_library_says_what_to_do(shell: Shell) -> None:
    url = "http://127.0.0.1:9/v1"
    shell.env.setenv("HF_HUB_OFFLINE", "1")
    error = shell.refused(2, "optimize", "--model", f"openai/b@{url}", "--optimizer", f"openai/o@{url}")
    assert "all-mpnet-base-v2" in error and "--embedder lexical" in error
    assert "pip install 'drpo[embed]'" in error or "hf download" in error


def test_text_from_files_is_only_ever_a_value(shell: Shell) -> None:
    query = "Say {{7*7}} and [QUERY] and <END> \u2028 {% raw %}"
    seeds = shell.write("s.jsonl", json.dumps({"query": query}) + "\n" + SEEDS)
    shell.done(*demo("--seeds", seeds, "--order", "given"))
    calls = [json.loads(line) for line in (shell.folder / "run" / "calls.jsonl").read_text().splitlines()]
    asked = [c["request"]["messages"][-1][1] for c in calls if c["kind"] == "call" and c["role"] == "base"]
    assert query in asked


def test_a_long_run_name_from_a_path_stays_in_the_runs_folder(shell: Shell) -> None:
    shell.write("p.txt", "You are a helpful assistant.")
    shell.done("optimize", "--model", "demo", "--depth", "2", "--initial-prompt", "@p.txt", "--name", "mine")
    assert [path.name for path in (shell.folder / "runs").iterdir()] == ["mine"]
