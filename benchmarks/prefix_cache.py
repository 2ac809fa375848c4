"""What the order of requests saves a vLLM server whose prefix cache is short of room.

    vllm serve MODEL --served-model-name NAME --kv-cache-memory-bytes 4194304 --max-model-len 4096
    python -m benchmarks.prefix_cache --url http://127.0.0.1:8000/v1 --model NAME

Each of P system prompts is asked Q queries, each query with its nearest examples, as text prompts through
`Limit(Slots(...))`: once with slots in order of arrival, once by prefix. Order brings something only where
the cache cannot hold all P prompts next to the requests in the air: give it a size that holds a few times
what is in the air ("KV cache size: N tokens" in the server's log). On a CPU add `--enforce-eager
--no-enable-chunked-prefill`.

The tokens are the server's own counts: asked is `vllm:prefix_cache_queries_total`, computed is that without
`vllm:prefix_cache_hits_total`. Every row has system prompts of its own, so that none finds the cache warm.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from drpo.compose import Composer, Sampling
from drpo.data import read_examples, read_queries, shipped_examples, shipped_seeds
from drpo.llm.base import Request
from drpo.llm.client import OpenAIClient
from drpo.llm.connections import Connections, Endpoint
from drpo.llm.limits import Limit, Slots, Stop
from drpo.resources import resource_folder
from drpo.retrieve import LexicalRetriever
from drpo.templates import Templates
from drpo.types import Example

HEAD = (
    "You are a careful assistant. Read the question twice, find out what is really asked, and answer that "
    "first. Say what you do not know, keep to plain words, and leave out whatever does not help."
)
FAMILY = 4
"""How many system prompts share their first two thirds, as the proposals for one node do."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", required=True, help="where the API begins: http://127.0.0.1:8000/v1")
    parser.add_argument("--model", required=True, help="the name under which it is served")
    parser.add_argument("--prompts", type=int, default=16, metavar="P")
    parser.add_argument("--queries", type=int, default=12, metavar="Q")
    parser.add_argument("--shots", type=int, default=1, metavar="K")
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=4)
    asyncio.run(measure(parser.parse_args()))


async def measure(given: argparse.Namespace) -> None:
    """Every row, then how often a prompt that is new to the server is computed when many ask it at once."""
    texts = Texts(await _shots(given.queries, given.shots))
    server = Server(given.url, given.model, given.max_tokens)
    asked = f"{given.prompts} prompts x {given.queries} queries, {given.concurrency} in the air"
    print(f"{asked}; system prompts of {len(texts.system('', 0))} characters, {given.shots} shots")
    print(f"{'arrival':<18}{'slots':<12}{'asked':>9}{'computed':>10}{'share':>8}{'seconds':>9}")
    pairs = [(prompt, query) for prompt in range(given.prompts) for query in range(given.queries)]
    shuffled = random.Random(1).sample(pairs, len(pairs))
    arrivals = {"query by query": sorted(pairs, key=lambda pair: pair[1]), "shuffled": shuffled}
    rows = [(name, by_prefix) for name in arrivals for by_prefix in (False, True)]
    for number, (name, by_prefix) in enumerate([*rows, ("prompt by prompt", False)]):
        order = arrivals.get(name, pairs)
        prompts = [texts.prompt(f"Row {number}", *pair) for pair in order]
        figures = await server.ask(prompts, Slots(given.concurrency, by_prefix=by_prefix))
        print(f"{name:<18}{'by prefix' if by_prefix else 'by arrival':<12}{figures}", flush=True)
    print("\nthe same system prompt and shots at the same moment, a query of their own each")
    for count in (1, 2, 8):
        prompts = [f"{texts.prompt(f'{count} at once', 0, 0)}\n{number}?" for number in range(count)]
        figures = await server.ask(prompts, None)
        print(f"{count:<30}{figures}", flush=True)
    await server.close()


@dataclass(frozen=True)
class Figures:
    """What the server says of one row."""

    asked: int
    hits: int
    seconds: float

    def __str__(self) -> str:
        computed = self.asked - self.hits
        return f"{self.asked:>9,}{computed:>10,}{computed / max(1, self.asked):>8.1%}{self.seconds:>9.1f}"


class Texts:
    """The prompts of every row: (row, system prompt, query) -> text."""

    def __init__(self, shots: Sequence[tuple[str, tuple[Example, ...]]]) -> None:
        self._shots = shots
        self._composer = Composer(Templates(resource_folder("prompts")), "text")
        self._rules = [q.text for q in read_queries(shipped_seeds()).queries if len(q.text) < 80]

    def system(self, row: str, prompt: int) -> str:
        """A system prompt of a row. What rows and families share, they share from the beginning."""
        family = [
            f'Asked "{rule}", you would give the reason first.' for rule in self._some(prompt // FAMILY, 5)
        ]
        own = [f'Asked "{rule}", you would give an example.' for rule in self._some(100 + prompt, 2)]
        return f"{row}. {HEAD} {' '.join(family)} {' '.join(own)}"

    def prompt(self, row: str, prompt: int, query: int) -> str:
        """What the base model reads."""
        text, shots = self._shots[query]
        return self._composer.text(self.system(row, prompt), shots, text)

    def _some(self, seed: int, count: int) -> list[str]:
        return random.Random(seed).sample(self._rules, count)


async def _shots(queries: int, shots: int) -> list[tuple[str, tuple[Example, ...]]]:
    """The first queries, each with its nearest examples."""
    examples = read_examples(shipped_examples()).examples
    texts = [query.text for query in read_queries(shipped_seeds()).queries[:queries]]
    found = await LexicalRetriever(examples).top_k(texts, shots)
    return [(text, tuple(examples[i] for i in near)) for text, near in zip(texts, found, strict=True)]


class Server:
    """A vLLM server and its counters."""

    def __init__(self, url: str, model: str, max_tokens: int) -> None:
        self._connections, self._stop = Connections(), Stop()
        self._client = OpenAIClient(self._connections, Endpoint(url), model, timeout_s=600.0)
        self._sampling = Sampling(max_tokens=max_tokens)
        parts = urlsplit(url)
        self._metrics_url = f"{parts.scheme}://{parts.netloc}/metrics"

    async def ask(self, prompts: Sequence[str], slots: Slots | None) -> Figures:
        """All prompts at once, through `slots` if there are any, and what they cost."""
        llm = self._client if slots is None else Limit(self._client, slots, self._stop)
        asked, hits = await self._counted()
        began_s = time.perf_counter()
        await asyncio.gather(*(llm.complete(self._request(prompt)) for prompt in prompts))
        took_s = time.perf_counter() - began_s
        asked_now, hits_now = await self._counted()
        return Figures(asked_now - asked, hits_now - hits, took_s)

    async def close(self) -> None:
        """Release the connections."""
        await self._connections.aclose()

    def _request(self, prompt: str) -> Request:
        return Request("m", prompt=prompt, temperature=0.0, max_tokens=self._sampling.max_tokens)

    async def _counted(self) -> tuple[int, int]:
        text = await asyncio.to_thread(self._metrics)
        return _sum(text, "vllm:prefix_cache_queries_total"), _sum(text, "vllm:prefix_cache_hits_total")

    def _metrics(self) -> str:
        with urllib.request.urlopen(self._metrics_url, timeout=60) as reply:
            return str(reply.read(), "utf-8")


def _sum(metrics: str, name: str) -> int:
    """The counter, over all engines of the server."""
    values = re.findall(rf"^{re.escape(name)}(?:\{{.*\}})? (\S+)$", metrics, re.MULTILINE)
    if not values:
        raise SystemExit(f"the server has no {name}: expected a vLLM server with its prefix cache on")
    return round(sum(map(float, values)))


if __name__ == "__main__":
    main()
