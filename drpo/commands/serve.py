"""drpo serve"""

from __future__ import annotations

import importlib.util
import json
import shlex
from pathlib import Path
from typing import Any

import click

from drpo.commands.running import tell
from drpo.commands.terminal import safe
from drpo.config_use import ServeConfig
from drpo.errors import InputError
from drpo.options import settings_flags
from drpo.settings import environment, resolve

_PACKAGES = ("starlette", "uvicorn", "httptools")
_NOT_OF_A_SERVER = {
    *("repairs", "structured", "max_tokens", "random_seed", "max_calls", "max_usd", "price"),
    *("name", "run_dir", "concurrency"),
}


@click.command("serve", epilog="Every flag is also a variable: --port is DRPO_PORT.")
@click.argument("alignments", nargs=-1, required=True, metavar="ALIGNMENT|NAME=ALIGNMENT...")
@click.option(
    "--config", type=click.Path(path_type=Path), envvar="DRPO_CONFIG", help="TOML file with settings."
)
@settings_flags(ServeConfig, [name for name in ServeConfig.model_fields if name not in _NOT_OF_A_SERVER])
def command(alignments: tuple[str, ...], config: Path | None, **flags: Any) -> None:
    """Serve the model as ALIGNMENT asks it, to whatever speaks OpenAI's interface.

    ALIGNMENT is a run, an alignment file, none or urial, and is served under its own name or under NAME;
    there may be several. Routes: /v1/chat/completions and /v1/completions (whose prompt is the query),
    streaming or not, /v1/models, /health, /metrics; /openapi.json describes them. The examples are chosen
    for the first turn of a chat and kept. Ctrl-C or SIGTERM ends the server once its running answers have
    ended.
    """
    if missing := [name for name in _PACKAGES if importlib.util.find_spec(name) is None]:
        raise InputError(f"drpo serve needs {missing[0]}: pip install 'drpo[serve]'")
    from drpo.serving.listening import SharedPort, listen, url_of
    from drpo.serving.plan import client_key, notices_of, serve_plans
    from drpo.serving.running import Keeper, run_loop, serve
    from drpo.serving.workers import Team, refuse_workers, serve_by_workers

    env = environment()
    settings = resolve(ServeConfig, flags, env, config)
    key = client_key(settings, env)
    plans = serve_plans(alignments, settings, env)
    refuse_workers(plans, settings)
    for said in notices_of(plans):
        tell(said)

    def ready() -> None:
        for name, plan in plans.items():
            tell(f"{name}: {plan.subject.name} at {plan.choice.identity}")
        by = f" by {settings.workers} processes" if settings.workers > 1 else ""
        click.echo(f"serving at {safe(url)}: {safe(', '.join(plans))}{by}; Ctrl-C ends it", err=True)
        click.echo(f"  {safe(_curl(url, next(iter(plans)), settings.api_key_env))}", err=True)

    if settings.workers > 1:
        port = SharedPort(settings.host, settings.port, settings.workers)
        url = port.url
        run_loop(serve_by_workers(Team(alignments, plans, settings), port, tell, ready))
    else:
        listening = listen(settings.host, settings.port)
        url = url_of(listening)
        run_loop(serve(plans, settings, env, listening, key, Keeper(tell, ready)))
    tell("ended")


def _curl(url: str, name: str, variable: str | None) -> str:
    """A command that asks the server."""
    body = json.dumps({"model": name, "messages": [{"role": "user", "content": "Hello"}]}, ensure_ascii=False)
    key = f' -H "Authorization: Bearer ${variable}"' if variable else ""
    return f"curl {url}/chat/completions -H 'Content-Type: application/json'{key} -d {shlex.quote(body)}"
