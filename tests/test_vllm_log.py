"""What a server's log says is one sentence with the cause in it, however far up that stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from drpo.llm.vllm.log import (
    OutOfMemory,
    PortTaken,
    ServerLog,
    last_line,
    last_words,
    out_of_memory,
    stage,
    why_it_ended,
)
from tests.support import fake_vllm_words as words

WHERE = "its log: run/vllm.log"
TOO_LONG = (
    "User-specified max_model_len (999999) is greater than the derived max_model_len "
    "(max_position_embeddings=2048.0 or model_max_length=None in model's config.json). To allow overriding "
    "this maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1. VLLM_ALLOW_LONG_MAX_MODEL_LEN must be "
    "used with extreme caution. If the model uses relative position encoding (RoPE), positions exceeding "
    "derived_max_model_len lead to nan. If the model uses absolute position encoding, positions exceeding "
    "derived_max_model_len will cause a CUDA array out-of-bounds error."
)
HEADS = "Total number of attention heads (2) must be divisible by tensor parallel size (3)."
NO_CONFIG = (
    "Invalid repository ID or local directory specified: '/models/tiny'.\nPlease verify the following "
    "requirements:\n1. Provide a valid Hugging Face repository ID.\n2. Specify a local directory that "
    "contains a recognized configuration file.\n"
    "   - For Hugging Face models: ensure the presence of a 'config.json'."
)


def pydantic(setting: str, kind: str = "ModelConfig") -> str:
    """How a setting that makes no sense is reported."""
    return (
        f"pydantic_core._pydantic_core.ValidationError: 1 validation error for {kind}\n"
        f"  Value error, {setting} [type=value_error, input_value=ArgsKwargs((), {{'model': ...}}), "
        "input_type=ArgsKwargs]\n    For further information visit https://errors.pydantic.dev/2.12/v/value_error"
    )


def logged(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> str:
    """What was written to standard error so far, as drpo reads it from a log."""
    path = tmp_path / "vllm.log"
    log = ServerLog(path)
    path.write_text(capfd.readouterr().err, encoding="utf-8")
    return log.text()


def start(refused: words.Refusal) -> None:
    words.write(words.starting("org/m", 8000, 4096)[: refused.stage])
    words.write_refusal(refused)


# How far it has come


@pytest.mark.parametrize(
    ("lines", "doing"),
    [
        (0, "starting"),
        (2, "starting"),
        (4, "loading weights"),
        (5, "loading weights"),
        (7, "loading weights"),
        (8, "making room for the KV cache"),
        (10, "making room for the KV cache"),
        (13, "opening its port"),
    ],
)
def test_the_stage_is_that_of_the_latest_line_that_tells(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, lines: int, doing: str
) -> None:
    words.write(words.starting("org/m", 8000, 4096)[:lines])
    assert stage(logged(capfd, tmp_path)) == doing


@pytest.mark.parametrize(
    ("line", "doing"),
    [
        ("Fetching 12 files:   8%|#  | 1/12 [00:05<01:00,  5.1s/it]", "downloading the model"),
        ("INFO 11-21 [monitor.py:34] torch.compile: Dynamo bytecode transform time: 5.2 s", "compiling"),
        ("Capturing CUDA graphs (decode, FULL):  50%|#####     | 17/35", "capturing graphs"),
        ("INFO [gpu_model_runner.py] Graph capturing finished in 5 secs", "capturing graphs"),
    ],
)
def test_stages_that_only_a_gpu_or_a_hub_has(line: str, doing: str) -> None:
    assert stage(f"Loading weights took 1 seconds\n{line}\nsomething else") == doing


def test_of_a_progress_bar_the_latest_state_is_told(tmp_path: Path) -> None:
    path = tmp_path / "vllm.log"
    log = ServerLog(path)
    path.write_bytes(b"\rFetching 9 files: 0%" + b"\rFetching 9 files: 50%" * 40 + b"\rFetching 9 files: 99%")
    assert last_line(log.text()) == "Fetching 9 files: 99%"


# The cause


@pytest.mark.parametrize("cause", [words.KV_NONE, words.KV_SMALL, words.BUSY, words.CUDA_OOM])
def test_the_cause_is_the_engines_not_the_front_ends(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, cause: str
) -> None:
    start(words.Refusal(cause, 7, engine=True))
    said = logged(capfd, tmp_path)
    assert "Engine core initialization failed" in said.splitlines()[-1]
    assert last_words(said)[:200] == cause.removeprefix("torch.")[:200].rstrip(".")


def test_the_cause_of_a_death_is_found_behind_its_report(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words.write_death("RuntimeError: Unsupported CPU attention configuration: head_dim 16")
    said = logged(capfd, tmp_path)
    assert "EngineDeadError" in said.splitlines()[-1]
    assert last_words(said) == "RuntimeError: Unsupported CPU attention configuration: head_dim 16"
    assert out_of_memory(said, "org/m", WHERE) is None


def test_of_a_setting_the_words_are_told_and_not_its_markup() -> None:
    assert last_words(words.traceback(pydantic(HEADS), 5)) == HEADS.rstrip(".")


def test_a_log_without_exceptions_has_no_last_words() -> None:
    assert last_words("INFO:     Finished server process [1]\nnanobind: leaked 3 types!") == ""
    assert last_words("") == last_line("") == ""


@pytest.mark.parametrize(
    ("text", "engine", "exit_code", "told"),
    [
        (words.GATED.replace("MODEL", "org/m"), False, 3, "set HF_TOKEN"),
        (words.NO_SUCH_REPO.replace("MODEL", "org/m"), False, 2, "org/m is not a local folder"),
        (words.NO_SUCH_PATH.replace("MODEL", "/x/m"), False, 2, "Repo id must be in the form"),
        (pydantic(NO_CONFIG), False, 2, "no such model"),
        ("RuntimeError: Cannot find any model weights with `/models/tiny`", True, 2, "any model weights"),
        (
            "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find "
            "them in the cached files.",
            False,
            2,
            "a way to the hub",
        ),
        (
            "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate cached snapshot "
            "folder for the specified revision on the local disk and outgoing traffic has been disabled.",
            False,
            2,
            "cached snapshot folder",
        ),
        (pydantic(TOO_LONG), False, 2, "User-specified max_model_len (999999) is greater than"),
        (pydantic(HEADS, "VllmConfig"), False, 2, "divisible by tensor parallel size (3)"),
        (words.NO_GPU, False, 5, "found no GPU"),
        (words.PORT_IN_USE, False, 5, "port was taken"),
        (words.CUDA_OOM, True, 5, "--tensor-parallel-size 2"),
        (words.KV_NONE, True, 5, "max-model-len=8192"),
        (words.KV_SMALL, True, 5, "max seq len (32768)"),
        (words.BUSY, True, 5, "gpu-memory-utilization=0.7"),
        (
            "ValueError: Available memory on node 0 (6.0/8.09 GiB) on kv cache allocation is less than "
            "requested memory for kv (-0.53/0.08 GiB). Reduce CPU memory used by other processes.",
            True,
            5,
            "Shorten the context",
        ),
        (
            "ValueError: Available memory on node 0 (5.27/8.09 GiB) on startup is less than desired CPU "
            "memory utilization (1.0, 8.09 GiB).",
            True,
            5,
            "gpu-memory-utilization=0.7",
        ),
        (
            "RuntimeError: CUDA out of memory occurred when warming up sampler with 256 dummy requests.",
            True,
            5,
            "warming up sampler",
        ),
        ("KeyError: 'architectures'", False, 5, "ended with exit code 1 before it was ready: KeyError"),
        ("ImportError: libcudart.so.12: cannot open", True, 5, "libcudart.so.12"),
    ],
)
def test_a_start_that_failed_has_its_cause_and_exit_code(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, text: str, engine: bool, exit_code: int, told: str
) -> None:
    start(words.Refusal(text, 5, engine=engine))
    error = why_it_ended(logged(capfd, tmp_path), 1, "org/m", WHERE)
    said = str(error)
    assert error.exit_code == exit_code, said
    assert told in said and "the vLLM server of org/m" in said and said.endswith(WHERE)
    assert "\n" not in said and "Engine core initialization failed" not in said and len(said) < 900


def test_a_flag_that_vllm_does_not_know_is_the_users(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    start(words.Refusal(words.BAD_FLAG.replace("FLAG", "--fast"), 0, code=2))
    log = logged(capfd, tmp_path)
    error = why_it_ended(log, 2, "org/m", WHERE)
    assert error.exit_code == 2 and "unrecognized arguments: --fast. Check --vllm-arg" in str(error)
    value = "api_server.py: error: argument --max-model-len: invalid value: 'many'"
    assert "argument --max-model-len" in str(why_it_ended(value, 2, "org/m", WHERE))
    assert why_it_ended(log, 1, "org/m", WHERE).exit_code == 5  # some other program's usage, perhaps


def test_memory_and_ports_can_be_told_apart_by_their_types() -> None:
    assert isinstance(why_it_ended(words.PORT_IN_USE, 1, "m", WHERE), PortTaken)
    assert isinstance(why_it_ended(words.CUDA_OOM, 1, "m", WHERE), OutOfMemory)
    assert isinstance(out_of_memory(words.KV_NONE, "m", WHERE), OutOfMemory)


def test_a_start_that_says_nothing_is_told_too() -> None:
    assert str(why_it_ended("", 137, "m", WHERE)) == (
        f"the vLLM server of m ended with exit code 137 before it was ready; {WHERE}"
    )
    assert "was not ready in time; " in str(why_it_ended("", None, "m", WHERE))
    assert "before it was ready: Killed; " in str(why_it_ended("Killed\n", 137, "m", WHERE))


@pytest.mark.parametrize("secret", ["hf_abcDEF123456", "sk-proj-abc123456", "Bearer abcdef123456"])
def test_secrets_in_a_log_are_not_shown(secret: str) -> None:
    log = f"ERROR 11-21 09:00:00 [x.py:1] OSError: 401 for token {secret} is not a local folder"
    for said in (last_words(log), last_line(log), str(why_it_ended(log, 1, "m", WHERE))):
        assert secret not in said and "[key]" in said


# Which part of a file


def test_only_what_this_start_has_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "vllm.log"
    path.write_text(f"{words.CUDA_OOM}\n", encoding="utf-8")
    log = ServerLog(path)
    assert log.text() == ""
    with path.open("ab") as file:
        file.write(b"(EngineCore pid=7) \x1b[31mERROR\x1b[0m 11-21 09:00:00 [a.py:1] ")
        file.write(b"ValueError: caf\xc3\xa9 \xff\n")
    assert last_words(log.text()) == "ValueError: café �"


def test_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    log = ServerLog(tmp_path / "vllm.log")
    assert log.text() == "" and log.shown == f"its log: {tmp_path / 'vllm.log'}"


def test_of_a_long_log_the_end_is_read(tmp_path: Path) -> None:
    path = tmp_path / "vllm.log"
    log = ServerLog(path)
    path.write_text("first line\n" + "x" * 99 + "\n" + "noise\n" * 100_000 + "last line\n", encoding="utf-8")
    text = log.text()
    assert 200_000 < len(text) <= 256 * 1024 and "first line" not in text and last_line(text) == "last line"
