"""A language model of a few words, every probability of it known: as an object, and as vLLM serves one."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from drpo.llm.base import Choice, Completion, Request
from tests.support.mock_openai import MockServer, Reply, Seen

BETTER = " in better words"
WORDS = ("rockets", "fly", "by", "fire")
PLAIN = ({"rockets": 0.5, "fly": 0.3, "by": 0.15, "fire": 0.05}, 0.9)
OTHER = ({"rockets": 0.2, "fly": 0.3, "by": 0.1, "fire": 0.4}, 0.6)
"""The words of an answer as they are drawn, each by itself, and how likely it ends behind each of them."""
LONGEST = 3
"""Words of an answer at most; one of so many is cut off and has no end."""


def shares_of(query: str) -> tuple[dict[str, float], float]:
    """By what a query is answered."""
    return OTHER if query.endswith(BETTER) else PLAIN


def log_probability(query: str, words: Sequence[str], *, has_end: bool) -> float:
    """log P of an answer of these words to a query."""
    shares, end = shares_of(query)
    found = math.fsum(math.log(shares[word]) for word in words)
    found += math.log1p(-end) * max(0, len(words) - 1)
    return found + (math.log(end) if has_end else 0.0)


def answer_to(query: str, dice: random.Random) -> Choice:
    """A plain sample."""
    shares, end = shares_of(query)
    words = dice.choices(list(shares), list(shares.values()))
    while len(words) < LONGEST:
        if dice.random() < end:
            return Choice(" ".join(words), "stop")
        words += dice.choices(list(shares), list(shares.values()))
    return Choice(" ".join(words), "length")


def all_answers() -> list[tuple[tuple[str, ...], bool]]:
    """Every answer: its words, and whether it has an end."""
    found: list[tuple[tuple[str, ...], bool]] = []
    for length in range(1, LONGEST + 1):
        found += [(words, length < LONGEST) for words in itertools.product(WORDS, repeat=length)]
    return found


class ToyLM:
    """The model as an object that scores its own answers. `scored` is what it was asked to."""

    name = "toy"

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.scored: list[tuple[Request, Choice]] = []

    async def complete(self, request: Request) -> Completion:
        """Plain samples; the same ones to the same request."""
        self.requests.append(request)
        query = request.messages[-1].content
        dice = random.Random(f"{query} {request.seed}")
        return Completion(tuple(answer_to(query, dice) for _ in range(request.n)))

    async def score(self, request: Request, choice: Choice) -> float | None:
        """The exact log-probability."""
        self.scored.append((request, choice))
        query, words = request.messages[-1].content, choice.text.split()
        return log_probability(query, words, has_end=choice.finish_reason == "stop")


START, END, USER, ASSISTANT = 0, 1, 2, 3
_MARKS = 4


class ToyServer(MockServer):
    """The same model behind the paths of a vLLM server: a token per word, a mark behind each turn of a chat.

    tells: whether it tells log-probabilities of a prompt. ends: whether it ends its answers by the mark that
    its chats have behind them.
    """

    def __init__(self, *, tells: bool = True, ends: bool = True) -> None:
        super().__init__()
        self.tells, self.ends = tells, ends
        self._words: list[str] = list(WORDS)

    def decide(self, seen: Seen) -> tuple[float, Reply]:
        self.requests.append(seen)
        return 0.0, self._reply(seen)

    def asked(self, path: str) -> list[dict[str, Any]]:
        """The bodies that came to a path."""
        return [seen.body for seen in self.requests if seen.path == path]

    def _reply(self, seen: Seen) -> Reply:
        body = seen.body
        if seen.path == "/v1/models":
            return Reply(body={"data": [{"id": "toy", "max_model_len": 4096}]})
        if seen.path == "/tokenize":
            ids = self._chat(body) if "messages" in body else self._ids(body["prompt"])
            return Reply(body={"count": len(ids), "max_model_len": 4096, "tokens": ids})
        if seen.path == "/v1/chat/completions":
            return self._answers(body)
        return self._continued(body)

    def _ids(self, text: str) -> list[int]:
        for word in text.split():
            if word not in self._words:
                self._words.append(word)
        return [_MARKS + self._words.index(word) for word in text.split()]

    def words_of(self, ids: Sequence[int]) -> list[str]:
        """The words among these tokens."""
        return [self._words[n - _MARKS] for n in ids if n >= _MARKS]

    def _chat(self, body: Mapping[str, Any]) -> list[int]:
        ids = [START]
        for turn in body["messages"]:
            mark = ASSISTANT if turn["role"] == "assistant" else USER
            kind = self._ids("system:") if turn["role"] == "system" else []
            ids += [mark, *kind, *self._ids(turn["content"]), END]
        return ids + [ASSISTANT] * bool(body.get("add_generation_prompt"))

    def _answers(self, body: Mapping[str, Any]) -> Reply:
        query = body["messages"][-1]["content"]
        dice = random.Random(f"{query} {body.get('seed')}")
        made = [answer_to(query, dice) for _ in range(body.get("n") or 1)]
        choices = [
            {
                "index": n,
                "finish_reason": one.finish_reason,
                "message": {"role": "assistant", "content": one.text},
            }
            for n, one in enumerate(made)
        ]
        return Reply(body={"id": "x", "object": "chat.completion", "model": "toy", "choices": choices})

    def _continued(self, body: Mapping[str, Any]) -> Reply:
        ids = body["prompt"]
        ended = self.ends and body.get("allowed_token_ids") == [END]
        choice: dict[str, Any] = {"index": 0, "text": "", "finish_reason": "stop" if ended else "length"}
        if self.tells and body.get("prompt_logprobs") is not None:
            choice["prompt_logprobs"] = self.told(ids)
        return Reply(body={"id": "x", "object": "text_completion", "model": "toy", "choices": [choice]})

    def told(self, ids: Sequence[int]) -> list[dict[str, Any] | None]:
        """Per token its log-probability by those before it; in a prompt any number will do."""
        start = len(ids) - 1 - list(reversed(ids)).index(ASSISTANT)
        query = " ".join(self.words_of(ids[:start]))
        shares, end = shares_of(query)
        rows: list[dict[str, Any] | None] = [None]
        for place in range(1, len(ids)):
            told, token = -7.0, ids[place]
            if place > start:
                before = 0.0 if place == start + 1 else math.log1p(-end)
                word = self._words[token - _MARKS] if token >= _MARKS else ""
                told = math.log(end) if token == END else before + math.log(shares.get(word, 1e-9))
            rows.append({str(token): {"logprob": told, "rank": 1, "decoded_token": "x"}})
        return rows
