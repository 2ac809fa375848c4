"""A reward model on this machine: a sequence-classification model through transformers, in its own thread."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

from drpo.errors import InputError
from drpo.llm.faults import one_line
from drpo.llm.vllm.local import model_digest

BATCH_TOKENS = 16_384  # with padding: what one batch of pairs may hold, at least one pair
PROBE_S = 10.0

_KIND = "ForSequenceClassification"
_SERVED = "or a server's: vllm/NAME@URL"


class LocalRewardModel:
    """A reward model by folder, hub name or NAME@REVISION, on the GPU if there is one, else the processor.

    Its `name` is the repository and commit, or the folder's own name and a digest of its files: the same on
    every machine. Weights are read as safetensors only, and code of a repository is never run.
    """

    def __init__(self, name: str) -> None:
        folder = _folder(name)
        self._folder = folder
        self._shown = folder.name if folder else name
        self._repository, _, revision = (str(folder), "", "") if folder else name.partition("@")
        self._revision = revision or None
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
        transformers = self._library()
        self._config = self._reading(transformers.AutoConfig)
        kinds = list(getattr(self._config, "architectures", None) or [])
        if not any(_KIND in kind for kind in kinds):
            raise self._refusal(f"expected a model of the kind ...{_KIND}, came {kinds[:1] or 'no kind'}")
        if self._config.num_labels != 1:
            raise self._refusal(f"expected one label, the reward; it has {self._config.num_labels}")
        if self._folder:
            if not any(self._folder.glob("*.safetensors")):
                raise self._no_safetensors()
            self._name = f"{self._shown}#{model_digest(self._folder)}"
        else:
            self._revision = self._commit() or self._revision  # also what follows is read of this commit
            self._name = f"{self._repository}@{self._revision}" if self._revision else self._repository
        self._tokenizer = self._reading(transformers.AutoTokenizer)
        self._tokenizer.padding_side = self._tokenizer.truncation_side = "right"

    def _commit(self) -> str | None:
        """The commit that the settings were read of, by where the cache keeps them."""
        hub = import_module("huggingface_hub")
        path = hub.try_to_load_from_cache(self._repository, "config.json", revision=self._revision)
        return Path(path).parent.name if isinstance(path, str) else None

    def _library(self) -> Any:
        try:
            transformers = import_module("transformers")
            import_module("torch")
            import_module("transformers.utils.logging").disable_progress_bar()
        except ImportError as error:
            raise InputError(
                f"reward model {self._shown}: transformers and torch are needed and cannot be imported "
                f"({error}). pip install 'drpo[reward]', {_SERVED}"
            ) from error
        return transformers

    def _reading(self, kind: Any, **options: Any) -> Any:
        """What `kind` reads of the model: from the folder or the cache, else from the hub, once."""
        options |= {"revision": self._revision, "trust_remote_code": False}
        try:
            return kind.from_pretrained(self._repository, local_files_only=True, **options)
        except Exception as error:  # the library promises no common base
            if self._folder or _is_final(error):
                raise self._unreadable(error) from error
        try:
            self._reach_hub()
            logging.getLogger(__name__).warning("fetching the reward model %s, once", self._repository)
            return kind.from_pretrained(self._repository, **options)
        except InputError:
            raise
        except Exception as error:
            if _is_final(error):
                raise self._unreadable(error) from error
            raise InputError(
                f"reward model {self._repository}: neither cached here nor to be had from the Hugging Face "
                f"hub: {one_line(str(error), None)}. Fetch it where there is a network (hf download "
                f"{self._repository}), give the path of its folder, {_SERVED}"
            ) from error

    def _reach_hub(self) -> None:
        """Raise at once where the hub is out of reach, or the repository has no safetensors."""
        hub = import_module("huggingface_hub")
        info = hub.HfApi().model_info(self._repository, revision=self._revision, timeout=PROBE_S)
        if not any(file.rfilename.endswith(".safetensors") for file in info.siblings or ()):
            raise self._no_safetensors()

    def _load(self) -> Any:
        transformers, torch = self._library(), import_module("torch")
        on_gpu = torch.cuda.is_available()
        model, told = self._reading(
            transformers.AutoModelForSequenceClassification,
            config=self._config,
            use_safetensors=True,
            dtype="auto" if on_gpu else torch.float32,  # half precision is slow on a processor
            output_loading_info=True,
        )
        if missing := sorted(told["missing_keys"]):
            raise self._refusal(f"expected trained weights, there are none for {missing[0]}")
        try:
            return model.eval().to("cuda" if on_gpu else "cpu")
        except torch.OutOfMemoryError as error:
            raise self._no_memory() from error

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
            raise self._refusal(f"its chat template takes no query and response: {said}") from error
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
            raise self._no_memory() from error
        if not all(math.isfinite(value) for value in values):
            raise self._refusal(f"expected finite rewards, came {values[0]}: its weights overflow")
        return [float(value) for value in values]

    def _refusal(self, problem: str) -> InputError:
        return InputError(f"reward model {self._shown}: {problem}. Name another one, {_SERVED}")

    def _unreadable(self, error: Exception) -> InputError:
        if isinstance(error, OSError) and "safetensors" in str(error):
            return self._no_safetensors()
        if _is_final(error):
            return self._refusal("it needs code of its own to be run, which drpo never does")
        return self._refusal(f"it cannot be read as a reward model: {one_line(str(error), None)}")

    def _no_safetensors(self) -> InputError:
        return self._refusal(
            "it has no weights as safetensors, and drpo opens no pickles, which may run code. Convert them "
            "(save_pretrained writes safetensors)"
        )

    def _no_memory(self) -> InputError:
        return self._refusal(
            "it does not fit into the GPU's free memory. Free some, or set CUDA_VISIBLE_DEVICES= for the "
            "processor"
        )


def _folder(name: str) -> Path | None:
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if name.startswith((".", "~", "/")) or name.count("/") > 1 or not name.strip():
        raise InputError(f"reward model {name}: expected a folder, there is none. Check the path")
    return None


def _is_final(error: Exception) -> bool:
    """Said of what was found: the hub would not help."""
    return isinstance(error, ValueError) and "trust_remote_code" in str(error)


def _chat(pair: tuple[str, str]) -> list[dict[str, str]]:
    query, response = pair
    return [{"role": "user", "content": query}, {"role": "assistant", "content": response}]
