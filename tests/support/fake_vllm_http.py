"""The HTTP side of `fake_vllm`: paths, shapes and refusals of a vLLM server, and drpo's roles behind them."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tests.support import fake_vllm_words as words
from tests.support.mock_openai import MockServer, Reply, Seen, drpo_answers

OPENINGS = {
    "You decide by which criteria a response": "selector",
    "You are a strict and impartial judge.": "evaluator",
    "You improve the system prompt": "optimizer",
    "You improve the response": "optimizer",
}
BLOCK = 16  # tokens per block of the prefix cache, as on a GPU


@dataclass(frozen=True)
class Plan:
    """What a server was asked to be and to do wrong."""

    model: str
    names: tuple[str, ...]
    port: int
    max_model_len: int
    key: str | None
    counts_cached: bool
    generation: int
    faults: Mapping[str, str]
    state: Path | None
    requests: Path | None

    def reached(self, fault: str, completions: int) -> bool:
        """Whether `fault` is due at this completion."""
        return fault in self.faults and completions >= int(self.faults[fault])

    def is_called(self, part: str) -> bool:
        """Whether the model has `part` in its name; the folders above it do not count."""
        return any(part in name.rpartition("/")[2].lower() for name in (self.model, *self.names))


def append(path: Path, line: str) -> None:
    """One more line in a file, in a folder that need not be there yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


class PrefixCache:
    """Counts tokens, and those in blocks that an earlier prompt began with too."""

    def __init__(self) -> None:
        self.queries = self.hits = 0
        self._blocks: set[int] = set()

    def cached(self, tokens: Sequence[int]) -> int:
        """How many of the first tokens were known; the last token never is. Knows them all from now on."""
        known, chained, broken = 0, 0, False
        for end in range(BLOCK, len(tokens) + 1, BLOCK):
            chained = hash((chained, *tokens[end - BLOCK : end]))
            broken = broken or chained not in self._blocks or end == len(tokens)
            known = known if broken else end
            self._blocks.add(chained)
        self.queries += len(tokens)
        self.hits += known
        return known


def tokens_of(text: object) -> list[int]:
    """One token per word."""
    return [3 + zlib.crc32(word.encode()) % 50_000 for word in str(text).split()]


def role_of(body: Mapping[str, Any]) -> str:
    """Which of drpo's roles a request is meant for."""
    first = str(body.get("prompt") or body["messages"][0].get("content", ""))
    return next((role for opening, role in OPENINGS.items() if first.startswith(opening)), "base")


def texts_for(body: Mapping[str, Any]) -> tuple[str, ...]:
    """As many replies as asked for; the same ones to the same request, whatever the model is called."""
    asked = {name: value for name, value in body.items() if name != "model"}
    role = role_of(body)
    if role == "optimizer":
        return drpo_answers(role, asked).texts
    return tuple(
        drpo_answers(role, asked | {"choice": choice}).texts[0] for choice in range(body.get("n") or 1)
    )


def _error(status: int, message: str, param: str | None = None) -> Reply:
    kinds = {400: "BadRequestError", 404: "NotFoundError", 500: "InternalServerError"}
    error = {"message": message, "type": kinds[status], "param": param, "code": status}
    return Reply(status=status, body={"error": error})


class FrontEnd(MockServer):
    """Answers until `over` is set; `drop_dead` ends everything at once."""

    def __init__(self, plan: Plan, drop_dead: Callable[[], NoReturn]) -> None:
        super().__init__(port=plan.port, keep_log=False)
        self._plan = plan
        self._drop_dead = drop_dead
        self._cache = PrefixCache()
        self._completions = 0
        self._dead = self._sick = False
        self.over = asyncio.Event()

    def decide(self, seen: Seen) -> tuple[float, Reply]:
        if self._plan.requests:
            line = {"path": seen.path, "body": seen.body, "generation": self._plan.generation}
            append(self._plan.requests, json.dumps(line))
        return 0.0, self._route(seen)

    def _route(self, seen: Seen) -> Reply:
        plan, key = self._plan, self._plan.key
        if seen.path.startswith("/v1") and key and seen.headers.get("authorization") != f"Bearer {key}":
            return Reply(status=401, body={"error": "Unauthorized"})
        if seen.path == "/health":
            well = not (self._dead or self._sick or "never-ready" in plan.faults)
            return Reply(status=200 if well else 503, body=b"")
        if seen.path == "/version":
            return Reply(body={"version": "0.32.0"})
        if seen.path == "/metrics":
            return Reply(body=self._metrics(), headers={"Content-Type": "text/plain; version=0.0.4"})
        if seen.path == "/v1/models":
            fields = {"object": "model", "created": 0, "owned_by": "vllm", "root": plan.model, "parent": None}
            cards = [{"id": name, **fields, "max_model_len": plan.max_model_len} for name in plan.names]
            return Reply(body={"object": "list", "data": cards})
        if seen.path not in ("/tokenize", "/v1/completions", "/v1/chat/completions"):
            return Reply(status=404, body={"detail": "Not Found"})
        return self._prompted(seen)

    def _metrics(self) -> bytes:
        lines = []
        for name, value in (("queries", self._cache.queries), ("hits", self._cache.hits)):
            metric, label = (
                f"vllm:prefix_cache_{name}_total",
                f'engine="0",model_name="{self._plan.names[0]}"',
            )
            lines += [f"# TYPE {metric} counter", f"{metric}{{{label}}} {value:.1f}"]
        return ("\n".join(lines) + "\n").encode()

    def _prompted(self, seen: Seen) -> Reply:
        body, longest = seen.body, self._plan.max_model_len
        asked, names = body.get("model", self._plan.names[0]), self._plan.names
        if asked not in names:
            valid = "" if names == (self._plan.model,) else f" Valid aliases: {', '.join(names)}."
            return _error(404, f"The model `{asked}` does not exist.{valid}", "model")
        tokens = self._tokens(body)
        if isinstance(tokens, Reply):
            return tokens
        if seen.path == "/tokenize":
            counted = {"count": len(tokens), "max_model_len": longest, "tokens": tokens, "token_strs": None}
            return Reply(body=counted)
        if len(tokens) > longest:
            message = (
                f"This model's maximum context length is {longest} tokens. However, your prompt contains at"
            )
            return _error(400, f"{message} least {len(tokens)} input tokens.", "input_tokens")
        return self._misbehaving() or self._completion(seen, tokens)

    def _tokens(self, body: Mapping[str, Any]) -> list[int] | Reply:
        if "messages" not in body:
            prompt = body.get("prompt", "")
            if isinstance(prompt, list):
                return [int(token) for token in prompt]
            return [1] * bool(body.get("add_special_tokens", True)) + tokens_of(prompt)
        if body.get("chat_template"):
            return _error(400, words.UNTRUSTED_TEMPLATE)
        if self._plan.is_called("base"):
            return _error(400, words.NO_CHAT_TEMPLATE)
        if self._plan.is_called("nosystem") and any(m["role"] == "system" for m in body["messages"]):
            return _error(400, "System role not supported")
        tokens = [1]
        for turn in body["messages"]:
            tokens += [2, *tokens_of(f"{turn['role']} {turn.get('content')}")]
        return tokens + [2] * bool(body.get("add_generation_prompt", True))

    def _misbehaving(self) -> Reply | None:
        self._completions += 1
        plan, count = self._plan, self._completions
        if plan.reached("die-after", count) or plan.reached("die-always", count):
            self._drop_dead()
        for fault, cause in (("oom-later", words.CUDA_OOM), ("engine-dies", "RuntimeError: a bug")):
            if plan.reached(fault, count):
                self.lose_engine(cause)
        self._sick = self._sick or plan.reached("unhealthy-after", count)
        if self._sick:
            return Reply(fault="hang")
        return _error(500, words.ENGINE_DEAD) if self._dead else None

    def lose_engine(self, cause: str) -> None:
        """Answers with errors from now on, and soon not at all."""
        if not self._dead:
            self._dead = True
            words.write_death(cause)
            asyncio.get_running_loop().call_later(0.2, self.over.set)

    def _completion(self, seen: Seen, tokens: list[int]) -> Reply:
        texts, chat = texts_for(seen.body), seen.path.startswith("/v1/chat")
        ids = {"prompt_token_ids": tokens if seen.body.get("return_token_ids") else None}
        choices = []
        for index, text in enumerate(texts):
            said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text, **ids}
            choices.append({"index": index, "finish_reason": "stop", "stop_reason": None, **said})
        told = sum(len(tokens_of(text)) for text in texts)
        usage = {"prompt_tokens": len(tokens), "completion_tokens": told, "total_tokens": len(tokens) + told}
        cached = {"cached_tokens": self._cache.cached(tokens)}
        body = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{self._completions}",
            "object": "chat.completion" if chat else "text_completion",
            "created": 0,
            "model": self._plan.names[0],
            "choices": choices,
            "usage": {**usage, "prompt_tokens_details": cached if self._plan.counts_cached else None},
        }
        return Reply(body=body | ids if chat else body)
