"""A model is asked without what it refuses, once that is known; when it was noticed must not matter later."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpo.ask import Asker
from drpo.errors import ParameterRefused
from drpo.llm.adapt import Adapt
from drpo.llm.base import Choice, Completion, Request
from drpo.llm.limits import Stop
from drpo.llm.recorder import Record, Recorder
from tests.support.gated_llm import GatedLLM, question

FULL = question(temperature=0.2, top_p=0.9, max_tokens=7, seed=3, stop=("x",), reply_schema="{}")
UNSET: dict[str, Any] = {
    **dict.fromkeys(("temperature", "top_p", "max_tokens", "seed", "reply_schema")),
    "stop": (),
}


@dataclass
class Picky:
    """A model that refuses parameters, names one of them at a time, and answers in any order.

    since: from which call on a parameter is refused (0: always). many: whether n is honoured or ignored.
    """

    refuses: Sequence[str]
    many: bool = True
    since: dict[str, int] = field(default_factory=dict)
    chance: random.Random | None = None
    requests: list[Request] = field(default_factory=list)

    async def complete(self, request: Request) -> Completion:
        self.requests.append(request)
        number = len(self.requests)
        for _ in range(self.chance.randrange(6) if self.chance else 0):
            await asyncio.sleep(0)
        for name in self.refuses:
            value = request.n if name == "n" else getattr(request, name)
            if value not in (None, ()) and (name, value) != ("n", 1) and number > self.since.get(name, 0):
                raise ParameterRefused(name, f"{name} is not supported")
        choices = range(request.n if self.many else 1)
        said = f"{request.messages[-1].content} {request.temperature} {request.top_p} {request.seed}"
        return Completion(tuple(Choice(f"{said} {number}") for number in choices))


@pytest.fixture
async def record(tmp_path: Path) -> AsyncIterator[Record]:
    record = Record(tmp_path / "calls.jsonl")
    yield record
    await record.close()


def adapted(inner: Picky | GatedLLM | None, record: Record, catalog: Collection[str] = ()) -> Adapt:
    return Adapt(Recorder(record, inner, Stop()), record, catalog)


@pytest.mark.parametrize("name", UNSET)
async def test_a_refused_parameter_is_left_out_once_it_was_noticed(record: Record, name: str) -> None:
    picky = Picky([name])
    model = adapted(picky, record)
    await model.complete(FULL)
    await model.complete(replace(FULL, model="m", seed=4))
    first, second = (
        replace(FULL, **{"seed": seed, name: UNSET[name], "sample": seed if name == "seed" else None})
        for seed in (FULL.seed, 4)
    )
    expected = [FULL, first, second]
    assert picky.requests == expected[: 2 if expected[2] == expected[1] else 3]


async def test_two_refusals_one_after_the_other(record: Record) -> None:
    picky = Picky(["temperature", "top_p"])
    model = adapted(picky, record)
    await model.complete(FULL)
    await model.complete(replace(FULL, seed=9))
    least = replace(FULL, temperature=None, top_p=None)
    assert picky.requests == [FULL, replace(FULL, temperature=None), least, replace(least, seed=9)]


async def test_what_the_catalog_knows_is_never_sent(record: Record) -> None:
    picky = Picky(["temperature", "top_p"])
    await adapted(picky, record, ["temperature", "top_p"]).complete(FULL)
    assert picky.requests == [replace(FULL, temperature=None, top_p=None)]


async def test_what_one_model_refuses_is_still_sent_to_another(record: Record) -> None:
    await adapted(Picky(["seed"]), record).complete(FULL)
    other = GatedLLM()
    await adapted(other, record).complete(replace(FULL, model="another"))
    assert other.requests == [replace(FULL, model="another")]


async def test_a_refused_n_is_passed_on_and_asked_only_once(record: Record) -> None:
    picky = Picky(["n"])
    for text in "ab":
        with pytest.raises(ParameterRefused) as caught:
            await adapted(picky, record).complete(question(text, n=3))
        assert caught.value.parameter == "n"
    await adapted(picky, record).complete(question("b"))
    assert [(r.messages[0].content, r.n) for r in picky.requests] == [("a", 3), ("b", 1)]


async def test_a_refusal_that_nothing_can_be_done_about_is_passed_on(record: Record) -> None:
    model = adapted(GatedLLM(lambda request: ParameterRefused("messages", "no system turn")), record)
    with pytest.raises(ParameterRefused, match="no system turn"):
        await model.complete(FULL)


async def test_the_full_form_is_used_where_it_is_recorded(record: Record) -> None:
    early = Picky(["temperature"], since={"temperature": 1})
    model = adapted(early, record)
    first = await model.complete(FULL)
    await model.complete(replace(FULL, seed=9))
    assert await model.complete(FULL) == first
    assert len(early.requests) == 3


async def test_an_ignored_n_beside_a_known_refusal_replays(record: Record, tmp_path: Path) -> None:
    """The reply to the first request stands under its reduced form, in which n was still sent."""
    catalog = ["temperature"]
    first = await adapted(Picky(catalog, many=False), record, catalog).complete(replace(FULL, n=3))
    assert len(first.choices) == 1
    replayed = Record(tmp_path / "calls.jsonl", writable=False)
    assert await adapted(None, replayed, catalog).complete(replace(FULL, n=3)) == first


async def test_a_reply_recorded_before_a_second_refusal_was_noticed_is_found(
    record: Record, tmp_path: Path
) -> None:
    picky = Picky(["temperature", "top_p"], since={"top_p": 3})
    model = adapted(picky, record)
    asked = [replace(FULL, seed=seed) for seed in (1, 2, 3)]
    replies = [await model.complete(request) for request in asked]
    assert [request.top_p for request in picky.requests] == [0.9, 0.9, 0.9, 0.9, None]
    replayed = Record(tmp_path / "calls.jsonl", writable=False)
    assert [await adapted(None, replayed).complete(request) for request in asked] == replies


async def ask_all(llm: Adapt, order: random.Random | None) -> dict[str, list[Any]]:
    """Three samples for each text, as the optimizer asks for them: two texts at a time, in some order."""
    asker = Asker(llm, None, repairs=0)  # type: ignore[arg-type]  # no repair turn, no template

    async def one(text: str) -> list[Any]:
        request = question(text, temperature=0.2, top_p=0.9, seed=1, n=3)
        samples = asker.sample(request, lambda reply: reply)
        return list(await asyncio.gather(*(sample.value() for sample in samples)))

    found: dict[str, list[Any]] = {}
    for level in ("ab", "cd", "ef"):
        texts = list(level)
        if order is not None:
            order.shuffle(texts)
        found.update(zip(texts, await asyncio.gather(*(one(text) for text in texts)), strict=True))
    return dict(sorted(found.items()))


# Not `st.randoms`, whose draws would come in the order of a disk: fsync runs in a thread.
RANDOMS = st.integers(0, 2**32).map(random.Random)
SERVERS = st.fixed_dictionaries(
    {
        "refuses": st.permutations(["temperature", "top_p", "seed", "n"]).flatmap(
            lambda names: st.integers(0, 4).map(lambda count: names[:count])
        ),
        "many": st.booleans(),
        "since": st.dictionaries(st.sampled_from(["temperature", "top_p", "seed", "n"]), st.integers(0, 9)),
        "chance": RANDOMS,
    }
)
CATALOGS = st.sets(st.sampled_from(["temperature", "top_p"]))


@given(server=SERVERS, catalog=CATALOGS, order=RANDOMS)
def test_a_strict_replay_never_misses_whoever_noticed_first(
    server: dict[str, Any], catalog: set[str], order: random.Random
) -> None:
    async def live_and_replayed(path: Path) -> None:
        record = Record(path)
        lived = await ask_all(adapted(Picky(**server), record, catalog), order)
        await record.close()
        replayed = Record(path, writable=False)
        assert await ask_all(adapted(None, replayed, catalog), order) == lived
        assert replayed.missed == {}
        assert replayed.calls_by_role() == record.calls_by_role()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(live_and_replayed(Path(folder, "calls.jsonl")))


@given(server=SERVERS, catalog=CATALOGS, order=RANDOMS, share=st.floats(0, 1))
def test_a_resumed_run_sends_nothing_again_and_replays(
    server: dict[str, Any], catalog: set[str], order: random.Random, share: float
) -> None:
    async def cut_and_resumed(path: Path) -> None:
        record = Record(path)
        await ask_all(adapted(Picky(**server), record, catalog), order)
        await record.close()
        cut(path, share)
        record, picky = Record(path), Picky(**server)
        known = [request for request in _all_forms() if record.holds(request)]
        resumed = await ask_all(adapted(picky, record, catalog), order)
        await record.close()
        assert not [request for request in picky.requests if request in known]
        replayed = Record(path, writable=False)
        assert await ask_all(adapted(None, replayed, catalog), None) == resumed

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(cut_and_resumed(Path(folder, "calls.jsonl")))


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


def _all_forms() -> list[Request]:
    whole = [question(text, temperature=0.2, top_p=0.9, seed=1, n=3) for text in "abcdef"]
    return [
        replace(request, temperature=temperature, top_p=top_p, seed=seed)
        for request in whole
        for temperature in (0.2, None)
        for top_p in (0.9, None)
        for seed in (1, None)
    ]


async def test_samples_stay_samples_where_the_seed_is_refused(record: Record) -> None:
    picky = Picky(["seed"])
    model = adapted(picky, record)
    for seed in (1, 2, 1):
        await model.complete(replace(FULL, seed=seed))
    answered = [request for request in picky.requests if request.seed is None]
    assert [request.sample for request in answered] == [1, 2]
