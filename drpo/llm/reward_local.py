"""A reward model on this machine: a sequence-classification model through transformers, in its own thread."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

from drpo.llm.faults import one_line
from drpo.llm.local_source import LocalSource, Manner

BATCH_TOKENS = 16_384  # with padding: what one batch of pairs may hold, at least one pair

_KIND = "ForSequenceClassification"
_MANNER = Manner("reward model", "reward model ", "reward", "or a server's: vllm/NAME@URL")


class LocalRewardModel:
    """A reward model by folder, hub name or NAME@REVISION, on the GPU if there is one, else the processor.

    Its `name` is the repository and commit, or the folder's own name and a digest of its files: the same on
    every machine. Weights are read as safetensors only, and code of a repository is never run.
    """

    def __init__(self, name: str) -> None:
        self._source = LocalSource(name, _MANNER)
        self._name = ""
        self._cut = 0
        self._config: Any = None
        self._tokenizer: Any = None
        self._model: Any = None
        # One thread: loading happens once, and torch already spreads one batch over the cores.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="drpo-reward")

    @property
    def name(self) -> str:
        """Known once it is open."""
        return self._name

    @property
    def cut(self) -> int:
        return self._cut

    async def open(self) -> None:
        """Its settings and tokenizer are read and fit; its weights are not loaded yet. Else InputError."""
        await self._run(self._open)

    async def rewards(self, pairs: Sequence[tuple[str, str]]) -> tuple[float, ...]:
        """One number per (query, response), same order, the same for the same pairs in one call.

        A chat of the two where the tokenizer has a template, else the tokenizer's pair of texts. Batches hold
        pairs of like length; another batch around a pair may change its number by a rounding.
        """
        if self._model is None:
            self._model = await self._run(self._load)
        lengths = await self._run(self._lengths, pairs)
        found: dict[int, float] = {}
        for batch in self._batches(lengths):
            # One batch at a time, so that a run that is called off ends with the batch that is computed.
            values = await self._run(self._forward, [pairs[place] for place in batch])
            found.update(zip(batch, values, strict=True))
        self._cut += sum(length > self._context for length in lengths)
        return tuple(found[place] for place in range(len(pairs)))

    async def _run(self, work: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _open(self) -> None:
        transformers = self._source.library()
        self._config = self._source.read(transformers.AutoConfig)
        kinds = list(getattr(self._config, "architectures", None) or [])
        if not any(_KIND in kind for kind in kinds):
            raise self._source.refusal(
                f"expected a model of the kind ...{_KIND}, came {kinds[:1] or 'no kind'}"
            )
        if self._config.num_labels != 1:
            raise self._source.refusal(f"expected one label, the reward; it has {self._config.num_labels}")
        if not self._source.has_weights:
            raise self._source.no_safetensors()
        self._name = self._source.pinned()
        self._tokenizer = self._source.read(transformers.AutoTokenizer)
        self._tokenizer.padding_side = self._tokenizer.truncation_side = "right"

    def _load(self) -> Any:
        transformers, torch = self._source.library(), import_module("torch")
        on_gpu = torch.cuda.is_available()
        model, told = self._source.read(
            transformers.AutoModelForSequenceClassification,
            config=self._config,
            use_safetensors=True,
            dtype="auto" if on_gpu else torch.float32,  # half precision is slow on a processor
            output_loading_info=True,
        )
        if missing := sorted(told["missing_keys"]):
            raise self._source.refusal(f"expected trained weights, there are none for {missing[0]}")
        try:
            return model.eval().to("cuda" if on_gpu else "cpu")
        except torch.OutOfMemoryError as error:
            raise self._source.no_memory() from error

    @property
    def _context(self) -> int:
        """The longest pair in tokens; a tokenizer without a limit says 10**30."""
        settings = self._config.get_text_config()
        own = getattr(settings, "max_position_embeddings", None)
        limits = [limit for limit in (own, self._tokenizer.model_max_length) if limit and limit > 0]
        return int(min(limits, default=10**30))

    def _lengths(self, pairs: Sequence[tuple[str, str]]) -> list[int]:
        """Of each pair, in tokens; one more than the context for whatever is longer."""
        return [len(self._encoded([pair], self._context + 1)["input_ids"][0]) for pair in pairs]

    def _encoded(self, pairs: Sequence[tuple[str, str]], longest: int, **options: Any) -> Any:
        options |= {"truncation": True, "max_length": min(longest, 2**31)}
        if not self._tokenizer.chat_template:
            queries, responses = zip(*pairs, strict=True)
            return self._tokenizer(list(queries), list(responses), **options)
        try:
            chats = [self._tokenizer.apply_chat_template(_chat(p), tokenize=False) for p in pairs]
        except Exception as error:  # what a template raises is its own
            said = one_line(str(error), None)
            raise self._source.refusal(f"its chat template takes no query and response: {said}") from error
        return self._tokenizer(chats, add_special_tokens=False, **options)

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Places of pairs, the longest first, so that too little memory shows at once."""
        # Without a token for padding the model cannot tell where a padded pair ends.
        pads = self._config.get_text_config().pad_token_id
        can_pad = pads is not None and pads == self._tokenizer.pad_token_id
        batch: list[int] = []
        widest = 0
        for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
            if batch and (not can_pad or widest * (len(batch) + 1) > BATCH_TOKENS):
                yield batch
                batch = []
            widest = lengths[batch[0]] if batch else lengths[place]
            batch.append(place)
        if batch:
            yield batch

    def _forward(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        torch = import_module("torch")
        padding = {"padding": True} if len(pairs) > 1 else {}
        encoded = self._encoded(pairs, self._context, return_tensors="pt", **padding).to(self._model.device)
        try:
            with torch.inference_mode():
                values = self._model(**encoded).logits[:, 0].float().tolist()
        except torch.OutOfMemoryError as error:
            raise self._source.no_memory() from error
        if not all(math.isfinite(value) for value in values):
            raise self._source.refusal(f"expected finite rewards, came {values[0]}: its weights overflow")
        return [float(value) for value in values]


def _chat(pair: tuple[str, str]) -> list[dict[str, str]]:
    query, response = pair
    return [{"role": "user", "content": query}, {"role": "assistant", "content": response}]
