"""Continuations by a causal language model in this process: a batch of rows, each with settings of its own.

The draws of a row come from its own seed, so that what stands beside it in a batch decides nothing but the
rounding of its probabilities.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

_TAIL_TOKENS = 8  # beside the length of a stop sequence: where a sequence that has just been completed stands


@dataclass(frozen=True, slots=True)
class Drawing:
    """How the next token is drawn. temperature 0: the likeliest. top_k 0, top_p 1: among all of them."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt to continue by at most `most` tokens, up to a stop sequence or the model's end mark."""

    ids: tuple[int, ...]
    drawing: Drawing
    most: int
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Written:
    """What was written behind a row. tokens: how many, the end mark among them."""

    text: str
    tokens: int
    finish_reason: str


def continue_rows(
    model: Any, tokenizer: Any, rows: Sequence[Row], is_over: Callable[[], bool] = lambda: False
) -> list[Written]:
    """The continuation of each row, same order; of all in one batch, padded at the left.

    is_over: asked at each token; once it is true all rows end where they are.
    """
    torch, transformers = import_module("torch"), import_module("transformers")
    longest = max(len(row.ids) for row in rows)
    ends = end_marks(model, tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (ends or [0])[0]
    ids = torch.full((len(rows), longest), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, longest - len(row.ids) :] = torch.tensor(row.ids)
        mask[number, longest - len(row.ids) :] = 1
    ending = _Ending(tokenizer, rows, longest, ends, is_over)
    settings = transformers.GenerationConfig(
        max_new_tokens=max(row.most for row in rows),
        do_sample=False,  # `_Draws` leaves one token to choose
        pad_token_id=pad,
        eos_token_id=ends or None,
        repetition_penalty=getattr(model.generation_config, "repetition_penalty", None) or 1.0,
    )
    with torch.inference_mode(), _silence():
        found = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=settings,
            logits_processor=transformers.LogitsProcessorList([_Draws(rows)]),
            stopping_criteria=transformers.StoppingCriteriaList([ending]),
        )
    new = found[:, longest:].tolist()
    return [ending.written(number, new[number]) for number in range(len(rows))]


def end_marks(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer, by the model's generation settings, else by its tokenizer."""
    own = getattr(model.generation_config, "eos_token_id", None)
    if own is None:
        own = tokenizer.eos_token_id
    return [] if own is None else list(own) if isinstance(own, Sequence) else [int(own)]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The library's remarks on settings and kernels are left out; they mean developers."""
    logs = import_module("transformers.utils.logging")
    before = logs.get_verbosity()
    logs.set_verbosity_error()
    try:
        yield
    finally:
        logs.set_verbosity(before)


class _Draws:
    """Leaves, of each row's next tokens, the one that is drawn by the row's settings and seed."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self._random = [random.Random(row.seed) for row in rows]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        torch = import_module("torch")
        drawn = [number for number, row in enumerate(self._rows) if row.drawing.temperature > 0]
        if not drawn:
            return scores
        settings = [self._rows[number].drawing for number in drawn]

        def column(values: list[float]) -> Any:
            return torch.tensor(values, device=scores.device, dtype=torch.float32).unsqueeze(1)

        hot = scores[drawn].float() / column([s.temperature for s in settings])
        ordered, places = hot.sort(dim=-1, descending=True, stable=True)
        ranks = torch.arange(ordered.shape[1], device=scores.device).unsqueeze(0)
        ordered = ordered.masked_fill(
            ranks >= column([s.top_k or ordered.shape[1] for s in settings]), -torch.inf
        )
        shares = ordered.softmax(dim=-1)
        before = shares.cumsum(dim=-1) - shares
        shares = shares.masked_fill(before >= column([s.top_p for s in settings]), 0.0)
        sums = shares.cumsum(dim=-1)
        thrown = column([self._random[number].random() for number in drawn]) * sums[:, -1:]
        chosen = (sums <= thrown).sum(dim=-1, keepdim=True).clamp(max=ordered.shape[1] - 1)
        left = torch.full_like(hot, -torch.inf).scatter_(1, places.gather(1, chosen), 0.0)
        scores = scores.clone()
        scores[drawn] = left.to(scores.dtype)
        return scores


class _Ending:
    """Notes of each row where and why it ends."""

    def __init__(
        self,
        tokenizer: Any,
        rows: Sequence[Row],
        start: int,
        ends: Sequence[int],
        is_over: Callable[[], bool],
    ) -> None:
        self._tokenizer, self._rows, self._start = tokenizer, rows, start
        self._ends, self._is_over = set(ends), is_over
        self._known: dict[int, tuple[int, str]] = {}

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        torch = import_module("torch")
        count = input_ids.shape[1] - self._start
        over = self._is_over()
        for number, row in enumerate(self._rows):
            if number not in self._known:
                reason = self._reason(row, input_ids[number], count)
                if reason or over:
                    self._known[number] = (count, reason or "length")
        done = [number in self._known for number in range(len(self._rows))]
        return torch.tensor(done, device=input_ids.device, dtype=torch.bool)

    def _reason(self, row: Row, ids: Any, count: int) -> str:
        if int(ids[-1]) in self._ends:
            return "stop"
        if row.stop:
            tail = min(count, _TAIL_TOKENS + max(len(text.encode()) for text in row.stop))
            written = self._decoded(ids[-tail:].tolist())
            if any(text in written for text in row.stop):
                return "stop"
        return "length" if count >= row.most else ""

    def written(self, number: int, ids: list[int]) -> Written:
        """The text of a row, without its end mark or stop sequence."""
        count, reason = self._known.get(number, (len(ids), "length"))
        kept = ids[:count]
        text = self._decoded(kept[:-1] if kept and kept[-1] in self._ends else kept)
        found = [text.index(stop) for stop in self._rows[number].stop if stop in text]
        return Written(text[: min(found)] if found else text, count, reason)

    def _decoded(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text
