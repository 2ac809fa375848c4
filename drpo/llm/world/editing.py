"""The simulated optimizer at work on a system prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from drpo.llm.world.criticism import complaints
from drpo.llm.world.directives import BY_NAME, EMPTY, HARMFUL, HELPFUL, Directive
from drpo.llm.world.features import FLAWS
from drpo.llm.world.features import Feature as F
from drpo.llm.world.prompts import PromptParts, directives_in, split_prompt
from drpo.llm.world.queries import QueryReading
from drpo.llm.world.settings import Dice, World

_SPREAD = 1.1  # of the chance in what is mended first, in units of the wish itself
_GENERAL_NEED = 0.35  # what the optimizer wants of any good prompt, criticised or not
_TWO = 0.55  # share of proposals that bring two new bullets where two are allowed
_SHARPENS = 0.35
_CLEARS = 0.6  # probability that a bullet that caused a criticised flaw is recognized and removed
_LOSES = 0.05  # probability that a good bullet is lost on the way
_AFRESH = 0.3  # probability that a long introduction is written anew
_MERGED = 170  # characters up to which two bullets are merged
_ENOUGH = 0.6  # strength at which a directive needs no bullet of its own

INTRODUCTIONS = (
    "You are a helpful and honest assistant. Your aim is to give responses that are useful, clear and"
    " pleasant to"
    " read, whatever the subject. Keep to these guidelines:",
    "You are a thoughtful, ethical assistant for all kinds of queries. Understand what the user needs,"
    " give a sound"
    " answer, and stay friendly. Please observe the following:",
    "As a knowledgeable assistant you help people with questions, tasks and worries. Be accurate, take the"
    " user"
    " seriously, and care about how a response reads. In particular:",
    "You assist people in a conversational, respectful manner. A good response fits the query, is true,"
    " and leaves"
    " the user better off than before. Bear in mind:",
)
_NARROW = (
    "For questions about {}, mention the most common case first.",
    "Pay special attention to {}.",
)
_SHORT_INTRODUCTION = 14  # words
_MARK = "- "


@dataclass(frozen=True, slots=True)
class Task:
    """What an optimizer is asked: everything that stands in the request."""

    prompt: str
    query: QueryReading
    wishes: Mapping[F, float]
    protected: tuple[str, ...]
    most_bullets: int
    most_new: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """A new system prompt and the reasons for it."""

    analysis: str
    thought: str
    system_prompt: str


class _Draft:
    """The bullets of a prompt while it is edited; counts what is new and leaves protected ones alone."""

    def __init__(self, bullets: Sequence[str], task: Task) -> None:
        self.bullets = list(bullets)
        self.fixed = [b for b in bullets if any(p and (p in b or b in p) for p in task.protected)]
        self.task = task
        self.left = task.most_new
        self.done: list[str] = []
        self._read: dict[str, dict[str, float]] = {}

    def named(self, bullet: str) -> dict[str, float]:
        """What a bullet asks for, read once."""
        if bullet not in self._read:
            self._read[bullet] = directives_in(bullet)
        return self._read[bullet]

    def remove(self, bullet: str, why: str) -> bool:
        if bullet in self.fixed or bullet not in self.bullets:
            return False
        self.bullets.remove(bullet)
        self.done.append(why)
        return True

    def add(self, bullet: str, why: str) -> bool:
        if self.left <= 0 or bullet in self.bullets or len(self.bullets) >= self.task.most_bullets:
            return False
        self.bullets.append(bullet)
        self.left -= 1
        self.done.append(why)
        return True

    def replace(self, old: str, new: str, why: str) -> bool:
        if self.left <= 0 or old in self.fixed or old not in self.bullets or new in self.bullets:
            return False
        self.bullets[self.bullets.index(old)] = new
        self.left -= 1
        self.done.append(why)
        return True

    def strength(self, name: str) -> float:
        return max((self.named(bullet).get(name, 0.0) for bullet in self.bullets), default=0.0)


def propose(world: World, task: Task, dice: Dice) -> Proposal:
    """A changed system prompt under the template's rules; chance and a limited skill decide how good."""
    parts = split_prompt(task.prompt)
    draft = _Draft(parts.bullets, task)
    _clear(draft, dice)
    wanted = 2 if dice.chance(_TWO, "two") else 1
    slip = _slip(world, task, dice)
    ranked = _ranked(task, dice)
    fresh = [d for d in ranked if draft.strength(d.name) < _ENOUGH][: wanted - bool(slip)]
    for directive in fresh:
        bullet = dice.pick(directive.bullets, "wording", directive.name)
        _make_room(draft, dice)
        draft.add(bullet, f"ask for {directive.name}")
    if slip:
        _make_room(draft, dice)
        draft.add(*slip)
    if dice.chance(_SHARPENS, "sharpens"):
        _sharpen(draft, ranked)
    if dice.chance(_LOSES, "loses") and len(draft.bullets) > 3:
        draft.remove(dice.pick(draft.bullets, "lost"), "drop a point that seemed to matter less")
    text = _assembled(_introduction(parts, task, dice), draft.bullets, task.protected)
    return Proposal(_analysis(task.wishes), _thought(draft.done), text)


def _ranked(task: Task, dice: Dice) -> list[Directive]:
    """Helpful directives, first those that the criticism calls for, as far as the optimizer sees it."""

    def need(directive: Directive) -> float:
        value = _GENERAL_NEED
        for feature, effect in directive.effects.items():
            wish = task.wishes.get(feature, 0.0)
            value += wish * effect * (-0.5 if feature in FLAWS else 0.5)
        return value**0.5 + _SPREAD * dice.gauss("need", directive.name) if value > 0 else -9.0

    return sorted(HELPFUL, key=lambda directive: (-need(directive), directive.name))


def _slip(world: World, task: Task, dice: Dice) -> tuple[str, str] | None:
    if not dice.chance(world.slips, "slip"):
        return None
    kind = dice.uniform("slip kind")
    if kind < 0.3 and task.query.subjects:
        subject = task.query.subjects[0]
        return dice.pick(_NARROW, "narrow").format(subject), f"say something about {subject}"
    directive = dice.pick(EMPTY if kind < 0.6 else HARMFUL, "slip which")
    return dice.pick(directive.bullets, "slip wording"), f"ask for {directive.name}"


def _clear(draft: _Draft, dice: Dice) -> None:
    """Takes out bullets that ask for what was criticised, and anything beyond the limit."""
    for bullet in list(draft.bullets):
        for name in draft.named(bullet):
            effects = BY_NAME[name].effects
            guilty = any(
                effects.get(flaw, 0.0) > 1.0 and draft.task.wishes.get(flaw, 0.0) > 1.0 for flaw in FLAWS
            )
            if guilty and dice.chance(_CLEARS, "clear", bullet):
                draft.remove(bullet, f"no longer ask for {name}")
                break
    while len(draft.bullets) > draft.task.most_bullets:
        loose = [bullet for bullet in draft.bullets if bullet not in draft.fixed]
        if not loose:
            break
        draft.remove(loose[-1], "keep to the number of points")


def _make_room(draft: _Draft, dice: Dice) -> None:
    """Before a bullet is added to a full list: an empty one goes, or two short ones become one."""
    if len(draft.bullets) < draft.task.most_bullets or draft.left <= 0:
        return
    for bullet in draft.bullets:
        named = draft.named(bullet)
        if not any(BY_NAME[name].effects for name in named) and draft.remove(
            bullet, "drop a point that did nothing"
        ):
            return
    loose = sorted((b for b in draft.bullets if b not in draft.fixed), key=lambda b: (len(b), b))
    if len(loose) < 2:
        return
    first, second = loose[0], loose[1]
    if draft.left >= 2 and len(first) + len(second) < _MERGED and ";" not in first + second:
        merged = f"{first.rstrip('.')}; {second[:1].lower()}{second[1:]}"
        if draft.replace(first, merged, "merge two points"):
            draft.remove(second, "make room")
    else:
        draft.remove(dice.pick(loose, "makes room"), "make room for something more urgent")


def _sharpen(draft: _Draft, ranked: Sequence[Directive]) -> None:
    for directive in ranked[:6]:
        sharp = directive.bullets[-1]
        for bullet in list(draft.bullets):
            named = draft.named(bullet)
            weak = 0.0 < named.get(directive.name, 0.0) < _ENOUGH + 0.15 and len(named) == 1
            if weak and draft.replace(bullet, sharp, f"say more exactly how to go about {directive.name}"):
                return


def _introduction(parts: PromptParts, task: Task, dice: Dice) -> str:
    present = parts.introduction
    if any(passage in present for passage in task.protected if passage):
        return present
    short = len(present.split()) < _SHORT_INTRODUCTION
    if short or (len(present) < 4000 and dice.chance(_AFRESH / 3, "afresh")):
        return dice.pick(INTRODUCTIONS, "introduction")
    return present


def _assembled(introduction: str, bullets: Sequence[str], protected: Sequence[str]) -> str:
    text = "\n".join([introduction, *[_MARK + bullet for bullet in bullets]]).strip()
    missing = [passage for passage in protected if passage not in text]
    return "\n".join([*missing, text]) if missing else text


def _analysis(wishes: Mapping[F, float]) -> str:
    worst = [f for f in sorted(wishes, key=lambda f: (-wishes[f], f)) if wishes[f] > 0.5][:3]
    if not worst:
        return "The scores are high and the rationales name no serious weakness; small refinements remain."
    return (
        f"The judge's main points are: {complaints(worst)}. The current system prompt does not prevent this."
    )


def _thought(done: Sequence[str]) -> str:
    unique = list(dict.fromkeys(done))
    if not unique:
        return "The points stand as they are; I reword what surrounds them."
    return "I would " + ", ".join(unique) + ", and leave the rest as it is."
