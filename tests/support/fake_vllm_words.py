"""What a vLLM server writes while it starts, fails and dies, shortened but in vLLM's words and shapes."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import Literal

Process = Literal["APIServer", "EngineCore"]

ENGINE_DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
NO_CHAT_TEMPLATE = (
    "As of transformers v4.44, default chat template is no longer allowed, so you must provide a chat "
    "template if the tokenizer does not define one."
)
UNTRUSTED_TEMPLATE = (
    "Chat template is passed with request, but --trust-request-chat-template is not set. Refused request "
    "with untrusted chat template."
)
CUDA_OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 224.00 MiB. GPU 0 has a total capacity of "
    "23.64 GiB of which 93.81 MiB is free. Including non-PyTorch memory, this process has 23.54 GiB memory "
    "in use. Of the allocated memory 23.12 GiB is allocated by PyTorch, and 20.11 MiB is reserved by PyTorch "
    "but unallocated."
)
NO_LOAD = (
    "Failed to load model - not enough GPU memory. Try lowering --gpu-memory-utilization to free memory for "
    "weights, increasing --tensor-parallel-size, or using --quantization."
)
KV_NONE = (
    "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when "
    "initializing the engine (this flag also controls CPU memory reservation on the CPU backend, despite its "
    "name)."
)
KV_SMALL = (
    "ValueError: To serve at least one request with the model's max seq len (32768), (4.0 GiB KV cache is "
    "needed, which is larger than the available KV cache memory (1.52 GiB). Based on the available memory, "
    "the estimated maximum model length is 12448. Try increasing `gpu_memory_utilization` (which also "
    "controls CPU memory on the CPU backend) or decreasing `max_model_len` when initializing the engine."
)
BUSY = (
    "ValueError: Free memory on device cuda:0 (3.21/23.64 GiB) on startup is less than desired GPU memory "
    "utilization (0.92, 21.75 GiB). Decrease GPU memory utilization or reduce GPU memory used by other "
    "processes."
)
NO_GPU = (
    "RuntimeError: Failed to infer device type, please set the environment variable "
    "`VLLM_LOGGING_LEVEL=DEBUG` to turn on verbose logging to help debug the issue."
)
GATED = """OSError: You are trying to access a gated repo.
Make sure to have access to it at https://huggingface.co/MODEL.
401 Client Error. (Request ID: Root=1-0)

Cannot access gated repo for url https://huggingface.co/MODEL/resolve/main/config.json.
Access to model MODEL is restricted. You must have access to it and be authenticated to access it. \
Please log in."""
NO_SUCH_REPO = """OSError: MODEL is not a local folder and is not a valid model identifier listed on \
'https://huggingface.co/models'
If this is a private repository, make sure to pass a token having permission to this repo either by \
logging in with `hf auth login` or by passing `token=<your_token>`"""
NO_SUCH_PATH = (
    "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or "
    "'namespace/repo_name': 'MODEL'. Use `repo_type` argument if needed."
)
BAD_FLAG = """usage: api_server.py [-h] [--headless] [--api-server-count API_SERVER_COUNT]
                     [--enable-log-requests | --no-enable-log-requests]
                     [model_tag]
api_server.py: error: unrecognized arguments: FLAG"""
PORT_IN_USE = "OSError: [Errno 98] Address already in use"


@dataclass(frozen=True)
class Refusal:
    """Why a server does not come up. `stage` counts the lines of `starting` that are written before."""

    text: str
    stage: int = 1
    engine: bool = False
    code: int = 1


def refusal(fault: str, model: str, value: str) -> Refusal | None:
    """The failing start that is called `fault`; `value` is the flag of `bad-flag`, `small` for `oom-kv`."""
    missing = NO_SUCH_PATH if model.startswith(("/", ".")) else NO_SUCH_REPO
    refusals = {
        "oom-weights": Refusal(CUDA_OOM, 5, engine=True),
        "oom-kv": Refusal(KV_SMALL if value == "small" else KV_NONE, 7, engine=True),
        "oom-busy": Refusal(BUSY, 3, engine=True),
        "gated": Refusal(GATED.replace("MODEL", model)),
        "no-such-model": Refusal(missing.replace("MODEL", model)),
        "no-gpu": Refusal(NO_GPU),
        "bad-flag": Refusal(BAD_FLAG.replace("FLAG", value or "--x"), 0, code=2),
        "port-in-use": Refusal(PORT_IN_USE),
    }
    return refusals.get(fault)


def log(process: Process, where: str, text: str, level: str = "INFO") -> None:
    """Lines as vLLM's logger writes them."""
    stamp = time.strftime("%m-%d %H:%M:%S")
    for line in text.split("\n"):
        say(f"({process} pid={os.getpid()}) {level} {stamp} [{where}] {line}")


def say(text: str) -> None:
    """Lines as uvicorn and Python write them."""
    print(text, file=sys.stderr, flush=True)


def starting(model: str, port: int, max_model_len: int) -> list[tuple[Process | None, str, str]]:
    """The lines of a start in order: which process, where in its source (or nowhere: no prefix), the text."""
    loading = "Loading safetensors checkpoint shards:"
    return [
        ("APIServer", "api_utils.py:286", f"non-default args: {{'port': {port}, 'model': '{model}'}}"),
        ("APIServer", "model.py:2152", f"Using max model len {max_model_len}"),
        ("EngineCore", "core.py:133", f"Initializing a V1 LLM engine (v0.32.0) with config: model='{model}'"),
        ("EngineCore", "gpu_model_runner.py:5039", f"Starting to load model {model}..."),
        (None, "", f"{loading}   0% Completed | 0/2 [00:00<?, ?it/s]"),
        (None, "", f"{loading} 100% Completed | 2/2 [00:01<00:00,  1.91it/s]"),
        ("EngineCore", "default_loader.py:501", "Loading weights took 1.05 seconds"),
        ("EngineCore", "kv_cache_utils.py:2327", "GPU KV cache size: 262,144 tokens"),
        ("EngineCore", "core.py:402", "init engine (profile, create kv cache, warmup model) took 0.26 s"),
        ("APIServer", "entry.py:140", f"Starting vLLM server on http://127.0.0.1:{port}"),
        (None, "", f"INFO:     Started server process [{os.getpid()}]"),
        (None, "", "INFO:     Waiting for application startup."),
        (None, "", "INFO:     Application startup complete."),
    ]


def write(lines: list[tuple[Process | None, str, str]]) -> None:
    """Lines of `starting`, to stderr."""
    for process, where, text in lines:
        if process is None:
            say(text)
        else:
            log(process, where, text)


def traceback(last: str, frames: int) -> str:
    """A traceback of so many frames, ending in `last`, which names the exception and what it says."""
    middle = (f'  File "vllm/module_{n}.py", line {n}, in step_{n}\n    step_{n}()' for n in range(frames))
    return "\n".join(("Traceback (most recent call last):", *middle, last))


def write_refusal(refused: Refusal) -> None:
    """The end of a log: the front end's traceback, behind the engine's, twice, where that is what failed.

    The distances are those of a real log: the cause stands about sixty lines above the last line.
    """
    if refused.code == 2:
        say(refused.text)
    elif not refused.engine:
        say(traceback(refused.text, 20))
    else:
        if refused.text == CUDA_OOM:
            original = CUDA_OOM.removeprefix("torch.OutOfMemoryError: ")
            log("EngineCore", "gpu_model_runner.py:5147", f"{NO_LOAD} (original error: {original})", "ERROR")
        failed = "EngineCore failed to start.\n" + traceback(refused.text, 10)
        log("EngineCore", "core.py:1510", failed, "ERROR")
        say("Process EngineCore:\n" + traceback(refused.text, 12))
        last = (
            "Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}"
        )
        say(traceback(f"RuntimeError: {last}", 28))


def write_death(cause: str) -> None:
    """The log of an engine that dies of an exception while it serves."""
    fatal = "EngineCore encountered a fatal error.\n" + traceback(cause, 12)
    log("EngineCore", "core.py:1512", fatal, "ERROR")
    dead = traceback(f"vllm.v1.engine.exceptions.EngineDeadError: {ENGINE_DEAD}", 2)
    log("APIServer", "async_llm.py:906", "AsyncLLM output_handler failed.\n" + dead, "ERROR")
