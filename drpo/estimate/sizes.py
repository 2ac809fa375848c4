"""How many tokens a call reads and writes: the templates, rendered with the run's own texts, and beside them
what models will have written, whose length is bounded by the limits of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drpo.compose import Composer, PromptForm, Sampling
from drpo.config import INITIAL_PROMPT, CommonConfig, ExamplesConfig, OptimizeConfig, ValidationConfig
from drpo.estimate.habits import Habits
from drpo.estimate.ranges import Range
from drpo.estimate.texts import (
    LEAST_REPLY,
    longest_reply,
    prompt_tokens,
    repair_tokens,
    request_tokens,
    shots_by_length,
    text_tokens,
)
from drpo.estimate.validating import aspects_of
from drpo.llm.base import Role
from drpo.parse import LONGEST_NAME
from drpo.plan import Plan, asked_of_base
from drpo.reply_schemas import evaluation_schema, rewrite_schema, selection_schema
from drpo.reward import FEWEST_ASPECTS, MOST_ASPECTS
from drpo.transition import MOST_BULLETS, MOST_NEW_BULLETS, VERSIONS_SHOWN, versions
from drpo.types import Aspect, Example

_X = "x"  # stands for a text that is not known yet
_QUERIES_LOOKED_AT = 2000


@dataclass(frozen=True, slots=True)
class Size:
    """Tokens of one call. `prompt` and `completion` of a first request; `choice`: of one choice in it;
    `repair`: what each earlier turn adds to the prompt of a repair."""

    prompt: Range
    completion: Range
    choice: Range
    repair: Range


def sizes_of(plan: Plan, habits: Habits, levels: float) -> dict[Role, Size]:
    """The sizes of each role's calls in a search over about so many levels."""
    found: dict[Role, Size] = {}
    maker = _Maker(plan, habits, levels)
    for role, choice in plan.models.items():
        if choice.provider != "reward":
            found[role] = maker.size(role)
    return found


class _Maker:
    """The sizes of one plan. Texts of the run are its own, the others by `habits`."""

    def __init__(self, plan: Plan, habits: Habits, levels: float) -> None:
        self._plan, self._habits = plan, habits
        self._config: CommonConfig = plan.config
        self._levels = max(1, round(levels) - 1)
        self._aspects = aspects_of(plan, habits, levels)
        self._queries = _queries_of(plan)

    def size(self, role: Role) -> Size:
        if role == "base":
            prompt, wanted, least = self._base(), self._habits.response, 0
        elif role == "selector":
            prompt, wanted, least = self._selector(), self._habits.selection, LEAST_REPLY
        elif role == "evaluator":
            prompt, wanted, least = self._evaluator(), self._evaluation(), LEAST_REPLY
        else:
            prompt, wanted, least = self._optimizer(), self._rewrite() + self._habits.thought, LEAST_REPLY
        longest = longest_reply(self._plan, role)
        cut = wanted if longest is None else min(wanted, longest)
        choice = Range(min(least, cut), cut, longest)
        samples = getattr(self._config, "samples", 1) if role == "optimizer" else 1
        repair = repair_tokens(self._plan.inputs.templates, self._habits, choice)
        completion = Range(choice.least * samples, choice.expected * samples, choice.most)
        return Size(prompt, completion, choice, repair)

    # What is read

    def _base(self) -> Range:
        config, plan = self._config, self._plan
        assert isinstance(config, ValidationConfig)
        base = plan.models["base"]
        form: PromptForm = "chat"
        if config.prompt_form != "auto":
            form = config.prompt_form
        elif base.entry is not None and base.entry.form == "text":
            form = "text"
        composer = Composer(plan.inputs.templates, form)

        def read(query: str, shots: Sequence[Example]) -> Range:
            return request_tokens(composer.request("", Sampling(), _X, shots, query), self._habits)

        shortest, typical, longest = self._queries
        few, usual, many = _shots_of(plan)
        if config.long_prompts == "drop-shots" and base.provider == "vllm":
            few = ()
        expected = [read(query, usual).expected for query in typical]
        fixed = Range(read(shortest, few).least, sum(expected) / len(expected), read(longest, many).most)
        return fixed + self._system_prompt()

    def _selector(self) -> Range:
        known = self._plan.inputs.templates.book.aspects
        schema = selection_schema(known, FEWEST_ASPECTS, MOST_ASPECTS)
        return self._asked(
            "selector", "choose_aspects", schema, aspects=known, fewest=FEWEST_ASPECTS, most=MOST_ASPECTS
        )

    def _evaluator(self) -> Range:
        book, habits = self._plan.inputs.templates.book, self._habits
        if self._config.reward == "static":
            fixed = self._asked(
                "evaluator",
                "evaluate",
                evaluation_schema(book.static),
                response=_X,
                aspects=book.static,
                reasoning="",
            )
            return fixed + self._response()
        ordered = sorted(book.aspects, key=lambda aspect: len(aspect.definition.encode()))
        number = len(ordered) if self._config.evaluation_aspects == "returned" else MOST_ASPECTS
        few, many = ordered[:FEWEST_ASPECTS], ordered[-number:]

        def asked(aspects: Sequence[Aspect]) -> Range:
            schema = evaluation_schema(aspects)
            return self._asked("evaluator", "evaluate", schema, response=_X, aspects=aspects, reasoning=_X)

        middle = ordered[len(ordered) // 2]
        one, two = asked([middle]).expected, asked([middle, middle]).expected
        usual = one + (two - one) * (self._aspects - 1)
        # Proposed aspects stand in the prompt twice, once as the shape of the reply.
        longest = longest_reply(self._plan, "selector")
        proposed = None if longest is None else 2.0 * longest + MOST_ASPECTS * LONGEST_NAME
        fixed = Range(min(asked(few).least, asked(ordered[:1]).least), usual, asked(many).most)
        return fixed + Range(0, habits.reason, proposed) + self._response()

    def _optimizer(self) -> Range:
        config = self._config
        longest = longest_reply(self._plan, "evaluator") if "evaluator" in self._plan.models else 0
        # Written anew with an indent, which at most doubles the tokens of the shortest entries.
        evaluation = Range(LEAST_REPLY, self._evaluation(), None if longest is None else 2.0 * longest)
        shown = versions([_X] * VERSIONS_SHOWN)
        if isinstance(config, ExamplesConfig):
            fixed = self._asked(
                "optimizer",
                "improve_response",
                rewrite_schema("new_response"),
                response=_X,
                evaluation={},
                history=shown,
            )
            earlier = self._response().times(Range(0, min(VERSIONS_SHOWN, self._levels) / 2, VERSIONS_SHOWN))
            alone = self._asked("optimizer", "improve_response", "", response=_X, evaluation={}, history="")
            fixed = Range(alone.least, fixed.expected, fixed.most)
            return fixed + self._response() + earlier + evaluation
        assert isinstance(config, OptimizeConfig)
        fixed = self._asked(
            "optimizer",
            "improve_system_prompt",
            rewrite_schema("new_system_prompt"),
            system_prompt=_X,
            response=_X,
            evaluation={},
            history=shown,
            protected=config.protect,
            most_bullets=MOST_BULLETS,
            most_new_bullets=MOST_NEW_BULLETS,
        )
        least = fixed.least - self._text(shown).least
        texts = self._system_prompt().times(Range(1, 1, 1 + VERSIONS_SHOWN))
        history = Range(0, self._history(), 0)
        return Range(least, fixed.expected, fixed.most) + texts + history + self._response() + evaluation

    def _asked(self, role: Role, job: str, schema: str, **values: object) -> Range:
        """One question, rendered for the shortest, the usual and the longest query."""
        shortest, typical, longest = self._queries
        templates = self._plan.inputs.templates
        held = self._config.structured
        sent = held == "on" or (held == "auto" and self._plan.models[role].provider == "vllm")

        def read(query: str, extra: str = "") -> Range:
            text = templates.render(job, query=query, **values)
            return self._fixed([text], 1) + Range(0, 0, len(extra.encode()))

        usual = [read(query).expected for query in typical]
        most = read(longest, schema if sent else "").most
        return Range(read(shortest).least, sum(usual) / len(usual), most)

    # What models write

    def _system_prompt(self) -> Range:
        """Of a node, on average over the levels."""
        config = self._config
        if isinstance(config, ExamplesConfig):  # which are validated under the plain prompt
            return self._text(INITIAL_PROMPT)
        assert isinstance(config, OptimizeConfig)
        initial = self._text(config.initial_prompt)
        depths = range(self._levels + 1)
        usual = [self._habits.prompt_tokens(depth, initial.expected) for depth in depths]
        longest = longest_reply(self._plan, "optimizer")
        most = None if longest is None or initial.most is None else max(longest, initial.most)
        return Range(0, sum(usual) / len(usual), most)

    def _history(self) -> float:
        """The versions that an optimizer is shown, on average over the levels."""
        config = self._config
        assert isinstance(config, OptimizeConfig)
        initial = self._text(config.initial_prompt).expected
        lengths = [self._habits.prompt_tokens(depth, initial) for depth in range(self._levels)]
        shown = [sum(lengths[max(0, d + 1 - VERSIONS_SHOWN) : d + 1]) for d in range(self._levels)]
        return sum(shown) / len(shown)

    def _response(self) -> Range:
        """What is judged: the base model's response, or that of an example."""
        habits = self._habits
        if isinstance(self._config, ExamplesConfig):
            texts = [self._text(e.response) for e in self._plan.inputs.examples.examples]
            longest = longest_reply(self._plan, "optimizer")
            given = max(text.most or 0 for text in texts)
            mean = sum(text.expected for text in texts) / len(texts)
            return Range(0, (mean + habits.improved) / 2, None if longest is None else max(longest, given))
        longest = longest_reply(self._plan, "base")
        return Range(0, habits.response if longest is None else min(longest, habits.response), longest)

    def _rewrite(self) -> float:
        """The new text of one proposal."""
        if isinstance(self._config, ExamplesConfig):
            return self._habits.improved
        return self._system_prompt().expected

    def _evaluation(self) -> float:
        static = self._config.reward == "static"
        number = len(self._plan.inputs.templates.book.static) if static else self._aspects
        return self._habits.evaluation * number

    # Counting

    def _fixed(self, texts: Sequence[str], messages: int) -> Range:
        return prompt_tokens(texts, messages, self._habits)

    def _text(self, text: str) -> Range:
        return text_tokens(text, self._habits.characters_per_token)


def _queries_of(plan: Plan) -> tuple[str, tuple[str, ...], str]:
    """The shortest, those of the levels at first, and the longest query that a search can come to."""
    config = plan.config
    if isinstance(config, OptimizeConfig):
        texts = [query.text for query in asked_of_base(plan.inputs, config)]
        usual = texts[: min(config.depth, _QUERIES_LOOKED_AT)]
    else:
        texts = [example.query for example in plan.inputs.examples.examples]
        texts += [query.text for query in asked_of_base(plan.inputs, config)]
        usual = texts[:_QUERIES_LOOKED_AT]
    ordered = sorted(texts, key=lambda text: len(text.encode("utf-8", "replace")))
    return min(texts, key=len), tuple(usual), ordered[-1]


def _shots_of(plan: Plan) -> tuple[tuple[Example, ...], ...]:
    config = plan.config
    assert isinstance(config, ValidationConfig)
    return shots_by_length(plan.inputs.examples.examples, config.shots)
