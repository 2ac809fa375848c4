"""Embedding models: local through sentence-transformers, or behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from drpo.errors import DrpoError, InputError, ProviderDown, ProviderRefused
from drpo.llm.base import Usage
from drpo.llm.faults import GATEWAY, one_line
from drpo.llm.ledger import Ledger
from drpo.llm.metered import booked
from drpo.llm.retry import Charge, Patience, Transient, retry_after_s

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

Vectors = NDArray[np.float32]

TEXTS_A_REQUEST = 256  # endpoints take 2,048 at most, some small servers a few hundred
TOKENS_A_TEXT = 8  # what a tokenizer puts around a text: two marks in those known to us
PROBE_S = 10.0

_NAMESPACE = "sentence-transformers"
_SAMPLE_BYTES = 2**20  # of a large file: its two ends tell two sets of weights apart
_CHECK = "Check that the URL is the base of an OpenAI-compatible API"
_OTHER_EMBEDDERS = "--embedder lexical (no model at all) or --embedder openai/NAME@URL (an endpoint)"


class SentenceTransformerEmbedder:
    """A sentence-transformers model by folder or hub name, loaded at the first text, run in its own thread.

    Its identity is the name, or for a folder its name and a digest of its files: the same on every machine.
    """

    def __init__(self, name_or_path: str) -> None:
        folder = Path(name_or_path).expanduser()
        self._is_folder = folder.is_dir()
        if not self._is_folder and (name_or_path.startswith((".", "~", "/")) or name_or_path.count("/") > 1):
            raise InputError(
                f"embedding model {name_or_path}: expected a folder, there is none. Check the path"
            )
        self._name = str(folder) if self._is_folder else name_or_path
        name = f"{folder.resolve().name}-{_folder_digest(folder)}" if self._is_folder else name_or_path
        self.identity = f"{_NAMESPACE}/{name.removeprefix(f'{_NAMESPACE}/')}"
        self._model: Any = None
        # One thread: loading happens once, and torch already spreads one batch over the cores.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="drpo-embed")

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, one row per text, same order. InputError where package or model is not at hand."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._encode, list(texts))

    def _encode(self, texts: list[str]) -> Vectors:
        if self._model is None:
            self._model = self._load()
        vectors = self._model.encode(
            texts, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True
        )
        return np.asarray(vectors, np.float32)

    def _load(self) -> Any:
        try:
            from sentence_transformers import SentenceTransformer

            import_module("transformers.utils.logging").disable_progress_bar()  # it shows one for loading
        except ImportError as error:
            raise InputError(
                f"embedding model {self._name}: sentence-transformers cannot be imported ({error}). "
                f"pip install 'drpo[embed]', or choose {_OTHER_EMBEDDERS}"
            ) from error
        try:
            return SentenceTransformer(self._name, local_files_only=True)
        except Exception as error:  # the library promises no common base
            if self._is_folder:
                raise InputError(
                    f"embedding model {self._name}: expected a folder saved by sentence-transformers, but it "
                    f"cannot be loaded: {one_line(str(error), None)}. Save it again, or choose "
                    f"{_OTHER_EMBEDDERS}"
                ) from error
        repository = self._name if "/" in self._name else f"{_NAMESPACE}/{self._name}"
        try:
            _reach_hub(repository)
            logging.getLogger(__name__).warning("fetching the embedding model %s, once", self._name)
            return SentenceTransformer(self._name)
        except Exception as error:
            raise InputError(
                f"embedding model {self._name}: neither cached here nor to be had from the Hugging Face hub: "
                f"{one_line(str(error), None)}. Fetch it where there is a network "
                f"(hf download {repository}), give the path of its folder, or choose {_OTHER_EMBEDDERS}"
            ) from error


def _reach_hub(repository: str) -> None:
    """Raise at once where the hub is out of reach: loading would retry file by file, 70 s in all."""
    hub, errors = import_module("huggingface_hub"), import_module("huggingface_hub.errors")
    # An answer of any status will do: whether the model is there, loading finds out, by short names too.
    with suppress(errors.HfHubHTTPError):
        hub.HfApi().model_info(repository, timeout=PROBE_S)


def _folder_digest(folder: Path) -> str:
    """16 hex digits over the files' names, lengths and contents (of large ones the two ends)."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder)
        if any(part.startswith(".") for part in name.parts):
            continue
        size = path.stat().st_size
        digest.update(f"{name.as_posix()}\0{size}\0".encode("utf-8", "surrogateescape"))
        with path.open("rb") as file:
            digest.update(file.read(_SAMPLE_BYTES))
            file.seek(max(size - _SAMPLE_BYTES, 0))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:16]


class EmbeddingEndpoint(Protocol):
    """What is read of an endpoint: its key and its URL without secrets."""

    @property
    def api_key(self) -> str | None: ...

    @property
    def shown(self) -> str: ...


EndpointT = TypeVar("EndpointT", bound=EmbeddingEndpoint)
EndpointT_contra = TypeVar("EndpointT_contra", contravariant=True)


class HasClients(Protocol[EndpointT_contra]):
    """What is used of the shared connections: one open client per endpoint, its own retries switched off."""

    def client(self, endpoint: EndpointT_contra, /) -> AsyncOpenAI: ...


class OpenAIEmbedder(Generic[EndpointT]):
    """An embedding model behind POST /embeddings. Up to `concurrency` requests of at most 256 texts at once.

    What may pass (connection, 408, 409, 425, 429, 5xx, an unreadable reply) is tried again as `patience` says
    and is then ProviderDown; any other status is ProviderRefused.
    """

    def __init__(
        self,
        connections: HasClients[EndpointT],
        endpoint: EndpointT,
        model_name: str,
        *,
        patience: Patience,
        timeout_s: float,
        concurrency: int,
        ledger: Ledger | None = None,
    ) -> None:
        self._ledger = ledger
        self._connections, self._endpoint, self._model_name = connections, endpoint, model_name
        self._patience, self._timeout_s, self._concurrency = patience, timeout_s, concurrency
        self.identity = f"openai/{model_name}@{endpoint.shown.rstrip('/')}"

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """One row per text, same order."""
        slots = asyncio.Semaphore(self._concurrency)

        async def one(start: int) -> Vectors:
            async with slots:
                return await self._patiently(list(texts[start : start + TEXTS_A_REQUEST]))

        try:
            async with asyncio.TaskGroup() as group:  # the first failure calls the others off
                tasks = [group.create_task(one(start)) for start in range(0, len(texts), TEXTS_A_REQUEST)]
        except BaseExceptionGroup as failures:
            first = failures.exceptions[0]
        else:
            blocks = [task.result() for task in tasks]
            lengths = sorted({block.shape[1] for block in blocks})
            if len(lengths) <= 1:
                return np.concatenate(blocks) if blocks else np.zeros((0, 0), np.float32)
            first = ProviderDown(f"{self.identity}: expected vectors of one length, came {lengths}. {_CHECK}")
        raise first

    async def _patiently(self, texts: list[str]) -> Vectors:
        try:
            return await self._once(texts, again=False)
        except Transient as failure:
            first = failure
        return await self._patience.insist(first, lambda: self._once(texts, again=True))

    async def _once(self, texts: list[str], *, again: bool) -> Vectors:
        async def ask() -> tuple[Vectors, Usage]:
            result = await self._request(texts)
            if isinstance(result, DrpoError):
                raise result  # outside of any except block: an SDK exception, chained, would carry the key
            return result

        if self._ledger is None:
            return (await ask())[0]
        most = Usage(sum(len(text.encode("utf-8", "replace")) + TOKENS_A_TEXT for text in texts))
        ticket = await self._ledger.open("embedder", self.identity, most, again=again)
        return await booked(self._ledger, ticket, ask)

    async def _request(self, texts: list[str]) -> tuple[Vectors, Usage] | DrpoError:
        import openai

        body = {"model": self._model_name, "input": texts, "encoding_format": "float"}
        try:
            async with asyncio.timeout(self._timeout_s):
                reply: object = await self._connections.client(self._endpoint).post(
                    "/embeddings", body=body, cast_to=object, options={"headers": self._headers()}
                )
            return _read_vectors(reply, len(texts)), _read_usage(reply)
        except TimeoutError:
            return Transient(f"{self.identity}: no reply within {self._timeout_s:g} s. Try again later")
        except openai.APIStatusError as error:
            return self._status_error(error)
        except (openai.OpenAIError, ValueError, TypeError) as error:  # no connection, or no such reply
            reason = one_line(str(error.__cause__ or error), self._endpoint.api_key)
            return Transient(f"{self.identity}: expected a vector per text: {reason}. {_CHECK}")

    def _headers(self) -> Any:
        """The key of this endpoint and of no other: the SDK would also send what the environment holds."""
        import openai

        key = self._endpoint.api_key
        headers: dict[str, str | openai.Omit] = {"Authorization": f"Bearer {key}" if key else openai.Omit()}
        if "openai.com" not in self._endpoint.shown:
            headers |= {"OpenAI-Organization": openai.Omit(), "OpenAI-Project": openai.Omit()}
        return headers

    def _status_error(self, error: APIStatusError) -> DrpoError:
        status, came = error.status_code, one_line(str(error), self._endpoint.api_key)
        spent = error.code == "insufficient_quota"
        if (status in (408, 409, 425, 429) or status >= 500) and not spent:
            wait_s = retry_after_s(error.response.headers, time.time())
            charge: Charge = "perhaps" if status in GATEWAY else "none"
            said = f"{self.identity}: status {status}: {came}. Try again later"
            return Transient(said, wait_s, charge=charge)
        remedies = {
            401: "Check the key",
            403: "Check what the key may do",
            404: "Check the name of the model and the URL",
        }
        remedy = "Raise the quota" if spent else remedies.get(status, "Check the model and the texts")
        return ProviderRefused(f"{self.identity}: status {status}: {came}. {remedy}")


def _read_usage(reply: object) -> Usage:
    usage = reply.get("usage") if isinstance(reply, dict) else None
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return Usage(count if isinstance(count, int) and count > 0 else 0)


def _read_vectors(reply: object, wanted: int) -> Vectors:
    """The vectors of one reply in the order of its texts. Raises ValueError or TypeError for others."""
    data = reply.get("data") if isinstance(reply, dict) else None
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise ValueError(f"came {reply!r}")
    indices = [item.get("index") for item in data]
    if sorted(map(str, indices)) != sorted(map(str, range(wanted))):
        raise ValueError(f"came {len(data)}, with the indices {str(indices)[:60]}")
    rows = [item.get("embedding") for item in sorted(data, key=lambda item: int(item["index"]))]
    lengths = sorted({len(row) if isinstance(row, list) else 0 for row in rows})
    if len(lengths) != 1 or lengths[0] == 0:
        raise ValueError(f"came vectors of the lengths {str(lengths)[:60]}")
    vectors = np.asarray(rows, np.float32)
    if vectors.ndim != 2:
        raise ValueError(f"came an array of shape {vectors.shape}")
    return vectors
