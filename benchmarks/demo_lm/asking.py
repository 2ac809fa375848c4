"""Two ways to ask demo-lm the same questions: a server's HTTP interface, or transformers in this process."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.demo_lm.text import TURNS, chat

Turns = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Question:
    """One request: the turns of a chat, or a page to continue. `schema` asks for JSON of that schema."""

    turns: tuple[tuple[str, str], ...] = ()
    page: str = ""
    temperature: float = 0.0
    seed: int = 0
    schema: dict[str, Any] | None = None
    max_tokens: int = 400


class Asks(Protocol):
    """Answers many questions, in their order."""

    def ask(self, questions: Sequence[Question]) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Server:
    """An OpenAI-compatible server such as vLLM."""

    url: str
    model: str
    key: str = ""

    def ask(self, questions: Sequence[Question]) -> list[str]:
        with ThreadPoolExecutor(32) as pool:
            return list(pool.map(self._one, questions))

    def _one(self, question: Question) -> str:
        body: dict[str, Any] = {
            "model": self.model,
            "temperature": question.temperature,
            "max_tokens": question.max_tokens,
        }
        if question.temperature:
            body["seed"] = question.seed
        if question.page:
            body |= {"prompt": question.page, "stop": ["\n# Query"]}
            return str(self._post("/completions", body)["choices"][0]["text"])
        body["messages"] = [{"role": role, "content": text} for role, text in question.turns]
        if question.schema is not None:
            schema = {"name": "reply", "schema": question.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return str(self._post("/chat/completions", body)["choices"][0]["message"]["content"])

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(self.url.rstrip("/") + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=300) as response:
            return json.load(response)


class Local:
    """The model in this process; it knows no schemas, so questions with one are asked without."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._torch: Any = torch
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder)

    def ask(self, questions: Sequence[Question]) -> list[str]:
        answers: list[str] = []
        for start in range(0, len(questions), 32):
            answers += self._batch(questions[start : start + 32])
        return answers

    def _batch(self, questions: Sequence[Question]) -> list[str]:
        first = questions[0]
        self._torch.manual_seed(first.seed)
        texts = [question.page or chat(question.turns) for question in questions]
        given = self._tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        given.pop("token_type_ids", None)
        sampling: dict[str, Any] = {"do_sample": False}
        if first.temperature:
            sampling = {"do_sample": True, "temperature": first.temperature, "top_k": 0}
        with self._torch.no_grad():
            written = self._model.generate(**given, max_new_tokens=first.max_tokens, **sampling)
        rows = self._tokenizer.batch_decode(
            written[:, given["input_ids"].shape[1] :], skip_special_tokens=True
        )
        pages = [bool(question.page) for question in questions]
        return [row.split("\n# Query")[0] if page else row for row, page in zip(rows, pages, strict=True)]


def turns(system: str, shots: Sequence[tuple[str, str]], query: str) -> tuple[tuple[str, str], ...]:
    """The chat that the base model reads."""
    shown = [turn for shot in shots for turn in (("user", shot[0]), ("assistant", shot[1]))]
    return (("system", system), *shown, ("user", query))


assert set(TURNS) == {"system", "user", "assistant"}
