"""How models behave in a search, as it was measured: what lies between the least and the most.

The two real sets are of two published DRPO trees (beam search, W 2, M 3, 30 levels, GPT-4 as optimizer and
evaluator): one with a chat model as base, one with a base model. Shares are of the nodes that were expanded.
Tokens were counted with o200k_base, OpenAI's tokenizer. What those trees do not hold is said where it is
set. Two runs are few: `expected` is a figure to plan with, not a promise.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from drpo.choices import ModelChoice
from drpo.config import OptimizeConfig
from drpo.plan import Plan


@dataclass(frozen=True, slots=True)
class Habits:
    """Rates and sizes of one kind of run.

    about: where they are from, in a few words. above: (reward, share of expanded nodes with a reward above
    it), ascending. together: by how much each further node of a beam adds to the chance that one of them is
    kept (0: they are all kept or none). unreadable: share of replies that cannot be read. gains: share of
    levels whose best score passes all before. perfect: share of improved responses with fives only.
    distinct_prompts: share of the prompts of a level that no other one there equals. repeats: of m
    responses to one query m ** -repeats differ; lasting: the share of improved responses that differ from
    the one they were made from.

    In tokens: characters_per_token of fixed text, marks around a message; of a system prompt the first
    rewrite, what each level adds, and where that ends; thought: what an optimizer writes besides the new
    text; response of the base model, improved response of an example; evaluation per aspect; selection of
    aspects, and the reason in it that the evaluator is shown. aspects: chosen per query.
    """

    about: str
    above: tuple[tuple[float, float], ...]
    together: float
    unreadable: float
    gains: float
    perfect: float
    distinct_prompts: float
    repeats: float
    lasting: float
    aspects: float
    characters_per_token: float
    marks: float
    first_prompt: float
    prompt_growth: float
    longest_prompt: float
    thought: float
    response: float
    improved: float
    evaluation: float
    selection: float
    reason: float

    def share_above(self, reward: float) -> float:
        """The share of expanded nodes that are above `reward`, between the measured points in proportion."""
        points = ((0.0, 1.0), *self.above, (5.0, 0.0))
        for (low, there), (high, next_one) in itertools.pairwise(points):
            if low <= reward < high:
                return there + (next_one - there) * (reward - low) / (high - low)
        return 0.0

    def prompt_tokens(self, depth: float, initial: float) -> float:
        """The length of the system prompt of a node at `depth`, from a start of `initial` tokens."""
        if depth < 1:
            return initial
        grown = min(self.longest_prompt, self.first_prompt + self.prompt_growth * (depth - 1))
        return max(initial, grown)

    def repairs(self, turns: int) -> float:
        """How often a reply is asked for again on average, where it is at most so often."""
        return sum(self.unreadable**turn for turn in range(1, turns + 1))


_CHAT_ABOVE = (
    *((2.5, 1.0), (3.0, 1.0), (3.5, 0.98), (4.0, 0.93), (4.25, 0.93), (4.5, 0.87), (4.75, 0.80)),
    (4.99, 0.61),
)
_PLAIN_ABOVE = (
    *((1.5, 1.0), (2.0, 0.93), (3.0, 0.88), (3.5, 0.79), (4.0, 0.72), (4.25, 0.67), (4.5, 0.49)),
    *((4.75, 0.40), (4.99, 0.28)),
)
CHAT_BASE = Habits(
    about="a published run on a chat model (GPT-3.5)",
    above=_CHAT_ABOVE,
    together=0.15,
    unreadable=0.022,
    gains=0.05,
    perfect=0.42,
    distinct_prompts=1.0,
    repeats=0.03,
    lasting=1.0,
    aspects=4.7,
    characters_per_token=4.3,
    marks=4.0,
    first_prompt=240.0,
    prompt_growth=10.0,
    longest_prompt=320.0,
    thought=220.0,
    response=390.0,
    improved=390.0,
    evaluation=70.0,
    selection=340.0,
    reason=135.0,
)
"""From the published GPT-3.5 Turbo tree: 54 nodes expanded, 47 of them kept; sizes of the 184 evaluations and
60 selections of both trees. Of the evaluations of all nine published trees 2.2 % could not be read; the same
is taken for all replies.
`thought` was not published and is a guess (about 1,050 characters). `perfect` is the share of fives among all
evaluations of both trees, since no improvement of examples was published; `lasting` is a guess."""

PLAIN_BASE = Habits(
    about="a published run on a base model (Mistral 7B)",
    above=_PLAIN_ABOVE,
    together=0.09,
    unreadable=0.022,
    gains=0.05,
    perfect=0.42,
    distinct_prompts=1.0,
    repeats=0.07,
    lasting=1.0,
    aspects=4.8,
    characters_per_token=4.3,
    marks=4.0,
    first_prompt=220.0,
    prompt_growth=18.0,
    longest_prompt=410.0,
    thought=220.0,
    response=540.0,
    improved=390.0,
    evaluation=70.0,
    selection=340.0,
    reason=135.0,
)
"""From the published Mistral 7B tree: 57 nodes expanded, 28 of them kept; 105 of 116 responses differ. The
rest as for `CHAT_BASE`."""

_DEMO_ABOVE = (
    *((1.0, 0.99), (2.0, 0.95), (2.5, 0.92), (3.0, 0.85), (3.5, 0.75), (4.0, 0.45), (4.25, 0.38)),
    *((4.5, 0.215), (4.75, 0.09), (4.99, 0.06)),
)
DEMO = Habits(
    about="12 runs of the simulated models",
    above=_DEMO_ABOVE,
    together=0.45,
    unreadable=0.008,
    gains=0.05,
    perfect=0.11,
    distinct_prompts=0.975,
    repeats=0.17,
    lasting=0.8,
    aspects=3.8,
    characters_per_token=4.0,
    marks=0.0,
    first_prompt=61.0,
    prompt_growth=16.0,
    longest_prompt=195.0,
    thought=107.0,
    response=177.0,
    improved=200.0,
    evaluation=47.0,
    selection=146.0,
    reason=37.0,
)
"""From `drpo optimize --model demo` in the worlds 0 to 11 (622 nodes expanded, 134 of them kept) and
`optimize-examples` in the worlds 0 to 5, in the simulated tokens of four characters."""


def habits_of(plan: Plan) -> Habits:
    """What to expect of a plan's models: simulated, else by what its base model is known to be.

    An unknown one is taken for a base model, which keeps fewer prompts and so costs more.
    """
    evaluator, base = plan.models.get("evaluator"), plan.models.get("base")
    if evaluator is not None and evaluator.provider == "demo":
        return DEMO
    if not isinstance(plan.config, OptimizeConfig):
        return replace(CHAT_BASE, about="GPT-4's evaluations in two published runs")
    return habits_of_base(base, plan.config.prompt_form)


def habits_of_base(base: ModelChoice | None, prompt_form: str) -> Habits:
    """What to expect of a real base model, by what the catalog knows of it and how it is asked."""
    if prompt_form == "text":
        return PLAIN_BASE
    known = base.entry if base is not None else None
    return CHAT_BASE if known is not None and known.form == "chat" else PLAIN_BASE


def response_habits(base: ModelChoice, form: str) -> Habits:
    """What to expect of a base model's responses, and how its prompts are counted."""
    return DEMO if base.provider == "demo" else habits_of_base(base, form)
