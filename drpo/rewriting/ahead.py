"""What a rewriter has yet to ask, over the record of a run: its rounds or draws, and what weighs them.

A rewrite that is not known yet is supposed: its query stands for it, its length is a range.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from drpo.ask import Asker
from drpo.config_rewriting import RewritingConfig
from drpo.errors import ReplayMissed
from drpo.estimate.habits import response_habits
from drpo.estimate.pending import NOTHING, ONCE, Noted, Pending
from drpo.estimate.ranges import Range
from drpo.estimate.rewriting_habits import RewritingHabits, rewriting_habits_of
from drpo.estimate.texts import LEAST_REPLY, longest_reply, text_tokens
from drpo.live import Resources
from drpo.llm.base import Request
from drpo.over_record import Missed, form_by_catalog, model_over, note_trial, over
from drpo.plan import RunPlan
from drpo.problems import Response
from drpo.rewriting.asking import LEAST_TOKENS, TOKENS_A_WORD, Left, Writer
from drpo.rewriting.bpo import BpoRewriter
from drpo.rewriting.checks import SHORT_WORDS, TIMES_LONGER, word_count
from drpo.rewriting.contract import Rewrite
from drpo.rewriting.opening import left_by, open_writer
from drpo.rewriting.plan import Rewriting
from drpo.rewriting.weighing import WeighedPrompter, drawn
from drpo.rewriting.weights_ahead import WeightsAhead, open_weights_ahead
from drpo.types import Failed

_X = "x"  # stands for a text that is not known yet


@dataclass(frozen=True, slots=True)
class RewriteSize:
    """text: the tokens of a rewrite that is not known yet. added: by how many it is expected to be longer
    than its query."""

    text: Range
    added: float


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What is known of the rewrite of a query. rewrite: None where it is still to be made or chosen. size: of
    it then. is_answered: whether the base model's answer to it is among those that weigh the rewrites, and
    noted. is_certain: whether what follows from it is still to come for sure."""

    query: str
    rewrite: Rewrite | None
    size: RewriteSize
    is_answered: bool = False
    is_certain: bool = True


class Answering(Protocol):
    """The base model, asked over the record; what is missing is noted."""

    async def look_up(self, texts: Sequence[str], *, free: bool = False) -> None: ...

    async def answer(self, text: str, calls: Range = ONCE) -> Response | Failed | None: ...

    async def suppose(
        self, key: Hashable, query: str, size: RewriteSize, calls: Range = ONCE, *, may_equal: bool = False
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class RewriterAhead:
    """A rewriter asked over the record. weights: what weighs several rewrites, None where one is drawn."""

    plan: RunPlan
    writer: Writer
    left: Left
    habits: RewritingHabits
    weights: WeightsAhead | None
    resources: Resources
    noted: Noted
    is_bpo: bool
    embedder: str

    async def all(
        self, queries: Sequence[str], base: Answering, *, may_equal: bool = False
    ) -> tuple[Foreseen, ...]:
        """What becomes of each query, with the shots found of what the base model will read."""
        await base.look_up(queries, free=True)
        found = [await self.rewrite(query, base, may_equal=may_equal) for query in queries]
        await base.look_up([one.query if one.rewrite is None else one.rewrite.text for one in found])
        return tuple(found)

    async def rewrite(self, query: str, base: Answering | None, *, may_equal: bool = False) -> Foreseen:
        """What becomes of the query. base: asked where rewrites are weighed; may_equal: see
        `BaseAhead.suppose`."""
        if self.is_bpo:
            return await self._rounds(query)
        if self.weights is None:
            found = await over(self.resources.record, drawn(self.writer, self.left, query, "", 1))
            if not isinstance(found, Missed):
                return Foreseen(query, found[0], self._size(query))
            self._note_first(query, found)
            return Foreseen(query, None, self._size(query))
        assert base is not None
        return await self._weighed(query, base, may_equal=may_equal)

    async def _rounds(self, query: str) -> Foreseen:
        """Round by round, as far as the record goes; a later one follows where the one before can stand and
        has changed anything."""
        config, rewrite = self._config, None
        for rounds in range(1, config.rounds + 1):
            rewriter = BpoRewriter(self.writer, rounds, self.left)
            found = await over(self.resources.record, rewriter.rewrite(query))
            if isinstance(found, Missed):
                await self._note_rounds(query, rounds, self._note_first(query, found))
                return Foreseen(query, None, self._size(query))
            rewrite = found[0]
        return Foreseen(query, rewrite, self._size(query))

    async def _note_rounds(self, query: str, rounds: int, first: Request | None) -> None:
        """Note the rounds that may follow the one of this number, which `first` asks for."""
        config, size = self._config, self._size(query)
        shortest = await self._request(_X, f" round {rounds}")
        for number in range(rounds + 1, config.rounds + 1):
            expected = self.habits.goes_on ** (number - rounds)
            template = first or shortest
            pending = Pending(
                "rewriter",
                template,
                self._reply(query, is_later=True),
                Range(0, expected, 1),
                Range(0, size.added, size.text.most),
                self._repairs(template),
                shortest=shortest,
                longest=shortest,
            )
            self.noted.supposed(("round", number, query), pending)
            self._embed(query, size)

    async def _weighed(self, query: str, base: Answering, *, may_equal: bool) -> Foreseen:
        """N draws, an answer to each that is another text, and what weighs the answers."""
        record, count, weights = self.resources.record, self._config.samples, self.weights
        assert weights is not None
        size = self._size(query)
        found = await over(record, drawn(self.writer, self.left, query, "", count))
        if isinstance(found, Missed):
            is_begun = self._note_draws(query, found)
            kinds = max(1.0, count * self.habits.distinct)
            calls = Range(0 if is_begun else 1, kinds, count)
            await base.suppose(("weighed", query), query, size, calls, may_equal=may_equal)
            await weights.suppose(query, calls, self.habits.distinct)
            return Foreseen(query, None, size, is_answered=True)
        texts = list(dict.fromkeys(one.text for one in found))
        await base.look_up(texts)
        answers = {text: await base.answer(text) for text in texts}
        rewards = await weights.of(query, answers, self.habits.distinct)
        if rewards is None:
            sure = weights.is_known or any(answer is None for answer in answers.values())
            return Foreseen(query, None, size, is_answered=True, is_certain=sure)
        known = rewards

        async def reward(query: str, text: str) -> float | None:
            return known[text]

        config = self._config
        weighed = WeighedPrompter(
            self.writer, reward, count, config.lambda_, config.pick, config.random_seed, self.left
        )
        return Foreseen(query, (await weighed.rewrite(query))[0], size)

    # What is noted

    def _note_first(self, query: str, missed: Missed) -> Request | None:
        """Note the request, or the repair, that comes next; None where only vectors are missing."""
        self._embed(query, self._size(query))
        if not missed:
            return None
        request = missed[0]
        self.noted.known(Pending("rewriter", request, self._reply(query), repairs=self._repairs(request)))
        return request

    def _note_draws(self, query: str, missed: Sequence[Request]) -> bool:
        """Note what draws the rewrites: one request for all, or one for each that is missing. Returns whether
        some are there."""
        count, reply = self._config.samples, self._reply(query)
        for _ in range(count):
            self._embed(query, self._size(query))
        shared = next((request for request in missed if request.n > 1), None)
        if shared is None:
            for request in missed:
                self.noted.known(Pending("rewriter", request, reply))
            return True
        times = Range(count, count, count)
        self.noted.known(Pending("rewriter", shared, reply.times(times)))
        # An endpoint that gives one choice a request is asked for each of the others; it writes no more.
        alone = Pending("rewriter", shared, NOTHING, Range(0, 0, count - 1))
        self.noted.supposed(("draws", query), alone)
        return False

    async def _request(self, text: str, place: str) -> Request:
        missed = await over(self.resources.record, self.writer.rewrite(text, place))
        return missed[0] if isinstance(missed, Missed) else Request(self.writer.model, role="rewriter")

    def _embed(self, query: str, size: RewriteSize) -> None:
        """How much of a query is left in a rewrite is told by vectors of both."""
        if self.embedder.startswith(("openai/", "vllm/")):
            self.noted.embedded.append((query, query))
            self.noted.embedded_unknown += Range(0, size.added, size.text.most)

    # Sizes

    @property
    def _config(self) -> RewritingConfig:
        config = self.plan.config
        assert isinstance(config, RewritingConfig)
        return config

    def _repairs(self, request: Request) -> int:
        turns = max(0, len(request.messages) - 1) // 2
        return max(0, self.writer.asker.repairs - turns)

    def _size(self, query: str) -> RewriteSize:
        own, longest = self._tokens(query), self._longest(query, is_later=self._config.rounds > 1)
        most = None if longest is None or own.most is None else max(longest, own.most)
        return RewriteSize(Range(0, own.expected + self.habits.added, most), self.habits.added)

    def _reply(self, query: str, *, is_later: bool = False) -> Range:
        """The tokens of one reply: the rewrite, in JSON with the thought before it."""
        is_json, longest = self.writer.format == "improve", self._longest(query, is_later=is_later)
        usual = self._tokens(query).expected + self.habits.added + (self.habits.thought if is_json else 0)
        cut = usual if longest is None else min(usual, longest)
        return Range(min(LEAST_REPLY if is_json else 0, cut), cut, longest)

    def _longest(self, query: str, *, is_later: bool) -> float | None:
        """Plain replies are cut where they would be refused; what a later round reads may have grown."""
        limit = longest_reply(self.plan, "rewriter")
        if limit is None or self.writer.format == "improve":
            return limit
        words = word_count(query)
        if is_later:
            words = TIMES_LONGER * max(words, SHORT_WORDS)
        return limit - max(0, self.plan.config.max_tokens - LEAST_TOKENS - TOKENS_A_WORD * words)

    def _tokens(self, text: str) -> Range:
        habits = response_habits(self.plan.models["rewriter"], "auto")
        return text_tokens(text, habits.characters_per_token)


async def open_rewriter_ahead(
    plan: RunPlan, rewriting: Rewriting, resources: Resources, noted: Noted
) -> RewriterAhead:
    """The rewriter of a plan, ready to be asked over the record. What only its server knows is supposed as
    the catalog has it; no reward model is loaded or asked."""
    config, choice = plan.config, rewriting.choice
    assert isinstance(config, RewritingConfig)
    llm = await model_over(choice, resources)
    try:
        writer = await open_writer(rewriting, config, plan.inputs.templates, resources, llm)
    except ReplayMissed:
        writer = Writer(
            Asker(llm, plan.inputs.templates, 0),
            choice.identity,
            rewriting.format,
            rewriting.templates,
            rewriting.sampling,
            form_by_catalog(choice),
            config.rewriter_mode,
            config.random_seed,
        )
        note_trial("base" if "base" in plan.models else "rewriter", choice, "auto", noted)
    embedder = getattr(config, "embedder", None) or ""
    weights = None
    if config.samples > 1:
        weights = await open_weights_ahead(plan, rewriting.reward_model, resources, noted)
    return RewriterAhead(
        plan,
        writer,
        left_by(embedder, resources),
        rewriting_habits_of(choice),
        weights,
        resources,
        noted,
        rewriting.kind != "align-pro",
        embedder,
    )
