"""A causal language model in this process, through transformers: for small models and trained rewriters."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from drpo.errors import InputError, ParameterRefused, Stopped
from drpo.llm.base import Choice, Completion, Request, Usage, request_key
from drpo.llm.faults import one_line
from drpo.llm.local_generating import Drawing, Row, Written, continue_rows, end_marks
from drpo.llm.local_scoring import log_of_either, text_log_probability
from drpo.llm.local_source import LANGUAGE_MODEL, LocalSource
from drpo.llm.vllm.tokens import Refusal

BATCH_TOKENS = 65_536
"""Prompts, answers and padding that one batch may hold, at least one request."""

_NO_TEMPLATE = Refusal(400, "the tokenizer has no chat template")


@dataclass(frozen=True, slots=True)
class _Waiting:
    request: Request
    answer: asyncio.Future[Completion]


class LocalModel:
    """A model by folder, hub name or NAME@REVISION, on the GPU if there is one, else the processor.

    A reply is a function of the request: sampled ones are drawn by a seed that the whole request gives, its
    own seed among them. Requests that wait are answered in one batch. Weights are read as safetensors only,
    at the first request, and code of a repository is never run. For one event loop; `close` ends it.
    """

    def __init__(self, name: str) -> None:
        self._source = LocalSource(name, LANGUAGE_MODEL)
        self._tokenizer: Any = None
        self._config: Any = None
        self._model: Any = None
        self._drawing = Drawing()
        self._waiting: list[_Waiting] = []
        self._working: asyncio.Task[None] | None = None
        self._closed = threading.Event()
        # One thread: torch already spreads one batch over the cores.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="drpo-local")

    async def complete(self, request: Request) -> Completion:
        """`request.n` choices. What the request leaves open of temperature and top_p, and top_k always, is as
        the model's generation settings say; a prompt that leaves no room ends as "context_length"."""
        if request.reply_schema is not None:
            said = f"local/{self._source.shown} cannot be held to a JSON schema: leave it out"
            raise ParameterRefused("reply_schema", said)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(request, loop.create_future())
        self._waiting.append(waiting)
        if self._working is None or self._working.done():
            self._working = loop.create_task(self._work())
        return await waiting.answer

    async def tokens(self, request: Request) -> tuple[int, ...] | Refusal:
        """The ids that the model reads for `request`; a `Refusal` where the chat template takes it not."""
        ids: tuple[int, ...] | Refusal = await self._run(self._ids, request)
        return ids

    async def score(self, request: Request, choice: Choice) -> float | None:
        """The log-probability that `request` is answered by `choice`, its end included where it has one; -inf
        where it cannot be drawn. None where answers are no plain samples: greedy ones, or top_p below 1."""
        found: float | None = await self._run(self._score, request, choice)
        return found

    async def context_tokens(self) -> int | None:
        """The longest prompt and answer together, None where the model does not say."""
        await self._run(self._open)
        return self._context

    def close(self) -> None:
        """End what is being written, and the thread."""
        self._closed.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def _work(self) -> None:
        await asyncio.sleep(0)  # whoever asks in the same breath comes into the same batch
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await self._answer([one for one in batch if not one.answer.done()])
            except Exception as error:  # noqa: BLE001 - whoever waits is told, whatever it is
                for one in batch:
                    if not one.answer.done():
                        one.answer.set_exception(error)

    async def _answer(self, batch: list[_Waiting]) -> None:
        rows: list[list[Row]] = []
        able: list[_Waiting] = []
        for one in batch:
            found = await self._run(self._rows, one.request)
            if isinstance(found, InputError):
                one.answer.set_exception(found)
            else:
                able.append(one)
                rows.append(found)
        for part in _parts(rows):
            chosen = [able[place] for place in part]
            written = await self._run(self._write, [rows[place] for place in part])
            for one, some, texts in zip(chosen, (rows[place] for place in part), written, strict=True):
                if not one.answer.done():
                    one.answer.set_result(_completion(one.request, some, texts))

    def _open(self) -> None:
        """Settings and tokenizer; the weights come with the first request."""
        if self._tokenizer is not None:
            return
        transformers = self._source.library()
        self._config = self._source.read(transformers.AutoConfig)
        kinds = list(getattr(self._config, "architectures", None) or [])
        if not any("CausalLM" in kind or "LMHeadModel" in kind for kind in kinds):
            came = kinds[:1] or "no kind"
            raise self._source.refusal(f"expected a model that continues text, ...ForCausalLM, came {came}")
        if not self._source.has_weights:
            raise self._source.no_safetensors()
        self._source.pinned()
        self._tokenizer = self._source.read(transformers.AutoTokenizer)

    def _load(self) -> None:
        if self._model is None:
            self._model = self._read_weights()

    def _read_weights(self) -> Any:
        transformers, torch = self._source.library(), import_module("torch")
        on_gpu = torch.cuda.is_available()
        model, told = self._source.read(
            transformers.AutoModelForCausalLM,
            config=self._config,
            use_safetensors=True,
            dtype="auto" if on_gpu else torch.float32,  # half precision is slow on a processor
            output_loading_info=True,
        )
        if missing := sorted(told["missing_keys"]):
            raise self._source.refusal(f"expected trained weights, there are none for {missing[0]}")
        self._drawing = own_drawing(model.generation_config)
        try:
            return model.eval().to("cuda" if on_gpu else "cpu")
        except torch.OutOfMemoryError as error:
            raise self._source.no_memory() from error

    @property
    def _context(self) -> int | None:
        limit = getattr(self._config.get_text_config(), "max_position_embeddings", None)
        return limit if isinstance(limit, int) and limit > 0 else None

    def _ids(self, request: Request) -> tuple[int, ...] | Refusal:
        self._open()
        if request.prompt is not None:
            return tuple(self._tokenizer(request.prompt)["input_ids"])
        if not self._tokenizer.chat_template:
            return _NO_TEMPLATE
        turns = [{"role": message.role, "content": message.content} for message in request.messages]
        try:
            text = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # noqa: BLE001 - what a template raises is its own
            return Refusal(400, one_line(str(error), None))
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _rows(self, request: Request) -> list[Row] | InputError:
        """A row per choice, none where the prompt leaves no room; what is wrong with this request alone."""
        ids = self._ids(request)
        if isinstance(ids, Refusal):
            problem = f"it cannot be asked as a chat: {ids.said}"
            return InputError(f"local/{self._source.shown}: {problem}. Give --prompt-form text")
        self._load()
        room = (self._context or 10**9) - len(ids)
        own = getattr(self._model.generation_config, "max_new_tokens", None)
        wanted = request.max_tokens or request.max_completion_tokens or own
        most = room if wanted is None else min(room, wanted)
        if most <= 0 or not ids:
            return []
        drawing = self._drawing_of(request)
        count = 1 if drawing.temperature == 0 else request.n  # greedy choices are equal
        key = request_key(request)
        return [Row(ids, drawing, most, request.stop, _seed(key, choice)) for choice in range(count)]

    def _drawing_of(self, request: Request) -> Drawing:
        return Drawing(
            self._drawing.temperature if request.temperature is None else request.temperature,
            self._drawing.top_p if request.top_p is None else request.top_p,
            self._drawing.top_k,
        )

    def _score(self, request: Request, choice: Choice) -> float | None:
        prompt = self._ids(request)
        self._load()
        drawing, settings = self._drawing_of(request), self._model.generation_config
        is_plain = drawing.temperature > 0 and drawing.top_p == 1
        if isinstance(prompt, Refusal) or not prompt or not is_plain:
            return None
        if (getattr(settings, "repetition_penalty", None) or 1.0) != 1.0:
            return None
        has_end = choice.finish_reason == "stop"
        texts = [choice.text, *(choice.text + stop for stop in request.stop if has_end)]
        ids = [self._tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        if len(prompt) + max(map(len, ids)) > (self._context or 10**9):
            return None
        ends = end_marks(self._model, self._tokenizer) if has_end else []
        if has_end and not ends and not request.stop:
            return None
        whole = [(ids[0], ends)] if ends or not has_end else []
        found = [
            text_log_probability(self._model, prompt, text, drawing, marks)
            for text, marks in (*whole, *((text, ()) for text in ids[1:]))
        ]
        return log_of_either(found)

    def _write(self, rows: list[list[Row]]) -> list[list[Written]]:
        flat = [row for some in rows for row in some]
        torch = import_module("torch")
        try:
            written = continue_rows(self._model, self._tokenizer, flat, self._closed.is_set) if flat else []
        except torch.OutOfMemoryError as error:
            raise self._source.no_memory() from error
        if self._closed.is_set():
            raise Stopped(f"local/{self._source.shown}: not written to its end, it was closed")
        turn = iter(written)
        return [[next(turn) for _ in some] for some in rows]


def own_drawing(settings: Any) -> Drawing:
    """How a model's own generation settings say that it is sampled; what they do not say is 1, 1 and all."""
    if getattr(settings, "do_sample", None) is False:
        return Drawing(0.0)

    def own(name: str, otherwise: float) -> float:
        value = getattr(settings, name, None)
        return otherwise if value is None else float(value)

    return Drawing(own("temperature", 1.0), own("top_p", 1.0), int(own("top_k", 0)))


def _seed(key: str, choice: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{key}/{choice}".encode()).digest()[:8], "big")


def _completion(request: Request, rows: list[Row], written: list[Written]) -> Completion:
    if not rows:
        return Completion((Choice("", "context_length"),))
    choices = tuple(Choice(one.text, one.finish_reason) for one in written)
    usage = Usage(len(rows[0].ids), sum(one.tokens for one in written))
    return Completion(choices * (request.n // len(choices)), usage)


def _parts(rows: list[list[Row]]) -> list[list[int]]:
    """Places of requests that are answered together, those of like length, so that little is padding."""

    def size(place: int) -> int:
        return max((len(row.ids) + row.most for row in rows[place]), default=0)

    parts: list[list[int]] = []
    taken = 0
    for place in sorted(range(len(rows)), key=lambda place: (-size(place), place)):
        widest = size(parts[-1][0]) if parts else 0
        if not parts or widest * (taken + len(rows[place])) > BATCH_TOKENS:
            parts.append([])
            taken = 0
        parts[-1].append(place)
        taken += len(rows[place])
    return parts
