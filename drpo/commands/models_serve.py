"""drpo models serve"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import IO, Any

import click

from drpo.choices import managed_server
from drpo.commands.running import tell
from drpo.config import CommonConfig
from drpo.errors import InputError, Interrupted, Stopped, StorageError
from drpo.live import cache_folder, without_keys
from drpo.llm.catalog import GPU_MEMORY_GB, ModelSpec, parse_model
from drpo.llm.limits import Stop
from drpo.llm.vllm.gpus import gpus_needed, visible_gpus_gb
from drpo.llm.vllm.launch import (
    Installation,
    ServerSpec,
    find_vllm,
    ray_commands,
    server_command,
    shown_command,
)
from drpo.llm.vllm.server import Bounds, ManagedServer, Place
from drpo.options import settings_flags
from drpo.settings import environment, resolve

_SETTINGS = (
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "vllm_arg",
    "vllm_command",
    "vllm_ready_s",
    "vllm_restarts",
)
_VARIABLES = tuple(f"DRPO_{name.upper()}" for name in _SETTINGS)
_LOOK_S = 0.2
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@click.command("serve")
@click.argument("model")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535), help="Port.")
@click.option(
    "--nodes",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Machines, joined by Ray; the layers are split over them unless --pipeline-parallel-size says more.",
)
@click.option("--dry-run", is_flag=True, help="Print the exact commands, and start nothing.")
@settings_flags(CommonConfig, _SETTINGS)
def command(model: str, host: str, port: int, nodes: int, dry_run: bool, **flags: Any) -> None:
    """Run the vLLM server of MODEL in the foreground, as drpo would run it for a search.

    MODEL is an alias (`drpo models` lists them) or vllm/REPO-OR-PATH. Other runs name the server as
    vllm/NAME@http://HOST:PORT/v1. With VLLM_API_KEY set the server asks for that key, and so do runs find it;
    an address that other machines can reach needs one. Ctrl-C ends the server and everything it started.
    """
    env = environment()
    spec = parse_model(model)
    if spec.provider != "vllm" or spec.urls:
        raise InputError(
            f"{model}: expected a model that vLLM serves, such as mistral-7b or vllm/REPO-OR-PATH"
        )
    config = resolve(CommonConfig, flags, {name: env[name] for name in _VARIABLES if name in env})
    server = managed_server(spec, config, nodes)
    if dry_run:
        click.echo(_commands(spec, server, host, port, config.vllm_command, env))
        return
    key = env.get("VLLM_API_KEY") or None
    if key is None and host not in _LOOPBACK:
        raise InputError(
            f"--host {host}: other machines can reach this address, which needs a key: set VLLM_API_KEY "
            "here and where the server is used"
        )
    bounds = Bounds(config.vllm_ready_s, config.vllm_restarts)
    installation = find_vllm(config.vllm_command, env, server.label)
    place = Place(_log_file(env, port), host, port, key)
    asyncio.run(_serve(server, installation, place, without_keys(env, config), bounds))


def _log_file(env: dict[str, str], port: int) -> Path:
    """Where the server's log is kept, to read why a start has failed; it is shown all the same."""
    path = cache_folder(env) / "servers" / f"vllm-{port}.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # whoever still writes the old one goes on undisturbed
        path.touch()
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}. Set DRPO_CACHE_DIR") from None
    return path


async def _show(log: Path) -> None:
    """What is added to the log, on standard error, until cancelled; then the rest of it."""
    with log.open("rb") as stream:
        try:
            while True:
                _pass_on(stream)
                await asyncio.sleep(_LOOK_S)
        finally:
            _pass_on(stream)


def _pass_on(stream: IO[bytes]) -> None:
    if text := stream.read().decode("utf-8", "replace"):
        click.echo(text, err=True, nl=False)


def _commands(
    spec: ModelSpec, server: ServerSpec, host: str, port: int, command: str | None, env: dict[str, str]
) -> str:
    """What starts the server, as lines for a shell; what is to be known stands in comments."""
    lines: list[str] = []
    try:
        installation = find_vllm(command, env, server.label)
    except InputError:
        if command is not None:
            raise
        installation = Installation(("vllm", "serve"))
        lines.append("# vLLM is not installed here")
    gpus_gb = visible_gpus_gb(env)
    tensor = server.parallel.tensor or gpus_needed(server.weights_gb, gpus_gb)
    if server.parallel.tensor is None and not gpus_gb and not installation.cpu and spec.entry:
        tensor = max(1, spec.entry.gpus)
        lines.append(f"# no GPU to be seen here: sized for cards of {GPU_MEMORY_GB} GB")
    lines.append("# VLLM_API_KEY, where it is set, is the key that the server asks for")
    for where, text in ray_commands(server.parallel):
        lines += [f"# {where}", text]
    if server.parallel.nodes > 1:
        lines.append("# then, on the first machine")
    lines.append(shown_command(server_command(server, installation, host, port, [server.label], tensor)))
    return "\n".join(lines)


async def _serve(
    spec: ServerSpec, installation: Installation, place: Place, env: dict[str, str], bounds: Bounds
) -> None:
    """Keep the server running until a signal comes or it cannot be started again."""
    stop = Stop()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set, Interrupted("asked to end"))
    server = ManagedServer(spec, installation, place, env, stop, tell, bounds)
    shown = asyncio.create_task(_show(place.log))
    try:
        process = await server.running()
        url = process.address.endpoint.url
        tell(f"drpo: runs use this server as vllm/{spec.label}@{url}; Ctrl-C ends it")
        while not await stop.wait(1.0):
            await server.running()
    except Stopped:
        if not stop.is_set:
            raise
    finally:
        await server.aclose()
        shown.cancel()
        await asyncio.gather(shown, return_exceptions=True)
    tell("drpo: the server was ended")
