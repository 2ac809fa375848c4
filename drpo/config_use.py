"""Settings of the commands that use an alignment: `generate`, `chat` and `serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from drpo.config_asking import AskingConfig
from drpo.config_common import setting


class UseConfig(AskingConfig):
    """What all of them have. A temperature of 0 is greedy, as the base model is asked in a search."""

    temperature: float = setting(0.0, "Sampling of the base model; 0: greedy.", ge=0, le=2)
    top_p: float | None = setting(None, "Sampling of the base model.", gt=0, le=1)


class GenerateConfig(UseConfig):
    """Settings of `drpo generate`."""

    queries: str = setting(..., "Queries: JSONL, JSON, CSV or plain text, or a Hugging Face dataset.")
    queries_column: str | None = setting(None, "Field of that file that holds the query.")
    limit: int | None = setting(None, "So many queries at most, the first ones.", ge=1)
    out: Path | None = setting(
        None, "File for the answers (default: answers.jsonl in the run).", identity=False
    )
    sft: Path | None = setting(
        None,
        "Also a file for supervised fine-tuning: queries and answers as TRL's prompt and completion.",
        identity=False,
    )
    sft_prompt: Literal["rewritten", "query"] = setting(
        "rewritten",
        "Which words are the prompt in it: those that the model answered, or the users' own.",
        identity=False,
    )


class RewriteConfig(UseConfig):
    """Settings of `drpo rewrite`. The base model is asked only where several rewrites are weighed."""

    alignment: str = setting(
        "none", "How the base model is asked where rewrites are weighed: a run, an alignment file or none."
    )
    queries: str | None = setting(None, "Queries: JSONL, JSON, CSV or plain text, or a Hugging Face dataset.")
    queries_column: str | None = setting(None, "Field of that file that holds the query.")
    limit: int | None = setting(None, "So many queries at most, the first ones.", ge=1)
    out: Path | None = setting(
        None, "File for the rewrites (default: answers.jsonl in the run).", identity=False
    )


class ServeConfig(UseConfig):
    """Settings of `drpo serve`. Sampling and --base-max-tokens hold where a client does not say otherwise; no
    client gets longer answers."""

    host: str = setting(
        "127.0.0.1", "Address to listen at; others than loopback need --api-key-env.", identity=False
    )
    port: int = setting(8000, "Port to listen at; 0: any that is free.", identity=False, ge=0, le=65535)
    api_key_env: str | None = setting(
        None, "Variable with the key that clients must send (a bearer token).", identity=False
    )
    client_system: Literal["append", "ignore", "refuse"] = setting(
        "append",
        "What becomes of a client's own system message: put after the alignment's, left out, or 400.",
    )
    base: Literal["none"] | None = setting(
        None, "none: the unaligned model is served too, under its own name.", identity=False
    )
    max_body_bytes: int = setting(2_000_000, "Longest request body; more is 413.", identity=False, ge=1000)
    max_waiting: int = setting(
        2000,
        "Requests that may be in work at once, however many the models take; more is 503 with Retry-After.",
        identity=False,
        ge=1,
    )
    workers: int = setting(
        1,
        "Processes that share the port; each has its part of --max-waiting.",
        identity=False,
        ge=1,
        le=64,
    )
    request_s: float = setting(30.0, "Longest a client may take to send a request.", identity=False, gt=0)
    reader_s: float = setting(
        60.0, "Longest a client may leave an answer unread before it is cut off.", identity=False, gt=0
    )
    grace_s: float = setting(
        30.0, "Longest that running answers are awaited when the server is to end.", identity=False, ge=0
    )
