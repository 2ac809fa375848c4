"""The simulated rewriters: a user's query in other words, by instruction, by habit, or after two responses.

Three that differ in what they know. `improve` mends a query, turns it away from harm and adds a few wishes
that suit. `prompter` was told little: some of its rewrites are as good, some are worse than none, so that
choosing among its samples pays. `build` sees which of two responses was preferred and asks for what made it
better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from drpo.llm.world.clarity import mended
from drpo.llm.world.features import FLAWS, MERITS, WORDING
from drpo.llm.world.features import Feature as F
from drpo.llm.world.queries import QueryReading, read_query
from drpo.llm.world.responses import read_response
from drpo.llm.world.settings import Dice, World
from drpo.llm.world.wishes import BY_NAME, CARE, EMPTY, HARMFUL, SAFELY, TURNS, USEFUL, Wish
from drpo.llm.world.writing import Writer, write_response

Slip = Literal["answered", "lost", "useless", "empty", "longer"]
# How a rewrite fails; a useless wish is twice as frequent as any other.
SLIPS: tuple[Slip, ...] = ("answered", "lost", "useless", "useless", "empty", "longer")

IMPROVE_SLIPS, PROMPTER_SLIPS, BUILD_SLIPS = 1 / 3, 1 / 2, 1 / 3  # shares of the world's slips
_STABLE, _BOLD = (1, 2, 2, 3, 3, 4), (3, 3, 4, 4, 5, 6)  # wishes that a query shall have in all
_GOOD, _LEAVES = 2, 0.85  # wishes of a query that is good as it is, and how often it is left alone
_BY_NAME, _SPREAD = 0.8, 0.5  # how much more a wish is liked that suits by name, and the chance in that
_MENDS, _TURNS, _SUITS = 0.7, 0.6, 0.55  # how often the prompter does what it should
_HABIT = (0, 1, 1, 2, 2, 3)  # wishes that the prompter adds
_OPENERS = ("", "", "", "I would like to know this: ", "Can you tell me this: ", "Help me with this: ")
_MOST_BUILT, _WORTH_BUILDING = 3, 1.0  # wishes drawn from one pair of responses; log-odds that are worth one
_LONGER = 12  # wishes of a rewrite that has lost all measure
_LOST = ("Please help me with this as well as you can.", "Can you explain it to me in a good way?")
_SAID = ("Here is the new query:", "Rewritten:")


@dataclass(frozen=True, slots=True)
class Pair:
    """What `build` is asked about: an instruction and two responses to it, the first one preferred."""

    instruction: str
    good: str
    bad: str
    protected: tuple[str, ...] = ()


def improve(world: World, text: str, bold: bool, dice: Dice) -> tuple[str, str]:
    """(what was changed, new query), as a capable model puts it that was told how. `bold`: asks for more."""
    query = read_query(text)
    slip = _slip(world, IMPROVE_SLIPS, dice)
    if slip not in (None, "useless"):
        return "I made it clearer.", _slipped(slip, query, dice)
    base = _put_right(text, query, dice)
    asked = len([name for name in query.clarity.wishes if not _is_turn(name)])
    good = base == text and asked >= _GOOD
    if good and slip is None and dice.chance(_LEAVES, "leaves"):
        return "The query says what it wants, so I leave it as it is.", text
    wanted = dice.pick(_BOLD if bold else _STABLE, "how many") - asked
    wishes = _suited(query, dice)[: max(wanted, int(good), 0)]
    if slip is not None:
        wishes = [*wishes[:1], _useless(dice)]
    return _told(base != text, query.harmful, wishes), _with(base, wishes, dice)


def prompter(world: World, text: str, dice: Dice) -> str:
    """The new query as a model puts it that was told little; samples of one query differ widely."""
    query = read_query(text)
    slip = _slip(world, PROMPTER_SLIPS, dice)
    if slip not in (None, "useless"):
        return _slipped(slip, query, dice)
    right = dice.chance(_TURNS if query.harmful else _MENDS, "puts right")
    base = _put_right(text, query, dice) if right else text
    suited, any_of = _suited(query, dice), (*USEFUL, *EMPTY, *HARMFUL)
    wishes: list[Wish] = [_useless(dice)] if slip is not None else []
    for at in range(dice.pick(_HABIT, "how many")):
        pool = suited if suited and dice.chance(_SUITS, "suits", at) else any_of
        wishes.append(dice.pick(pool, "wish", at))
    opener = dice.pick(_OPENERS, "opener") if base == text and not query.clarity.wishes else ""
    new = opener + _with(base, list({wish.name: wish for wish in wishes}.values()), dice)
    if dice.chance(world.damage, "damaged"):
        return f'{dice.pick(_SAID, "said")}\n\n"{new}"'
    return new


def build(world: World, pair: Pair, dice: Dice) -> tuple[str, str]:
    """(comparison, new instruction) that asks for what the preferred response has and the other lacks."""
    query = read_query(pair.instruction)
    good, bad = (read_response(text, query) for text in (pair.good, pair.bad))
    gained = [f for f in MERITS if f in good.features and f not in bad.features]
    spared = [f for f in FLAWS if f in bad.features and f not in good.features]
    comparison = _compared(gained, spared, bad.unsafe and not good.unsafe)
    slip = _slip(world, BUILD_SLIPS, dice)
    if slip not in (None, "useless", "longer", "answered"):
        return comparison, _slipped(slip, query, dice)
    if slip == "answered":
        return comparison, pair.good
    wishes = _asked_by(gained, spared, query, dice)[:_MOST_BUILT]
    if slip == "useless":
        wishes = [*wishes[:1], _useless(dice)]
    new = _with(_protecting(_put_right(pair.instruction, query, dice), pair), wishes, dice)
    if slip == "longer" and pair.good.strip():  # what the good response says is given away
        new += f"\nMention this: {pair.good.strip().splitlines()[0]}"
    return comparison, new


def wished(text: str, dice: Dice, most: int = 3) -> str:
    """The query put right, with one to `most` wishes that suit it, as a user with sense would write it."""
    query = read_query(text)
    count = 1 + int(dice.uniform("how many") * most)
    return _with(_put_right(text, query, dice), _suited(query, dice)[:count], dice)


def _slip(world: World, share: float, dice: Dice) -> Slip | None:
    return dice.pick(SLIPS, "slip kind") if dice.chance(share * world.slips, "slip") else None


def _slipped(slip: Slip | None, query: QueryReading, dice: Dice) -> str:
    """What is written in place of a rewrite."""
    if slip == "answered":
        return write_response({F.DIRECT, F.STRUCTURE, F.REASONS, F.REFUSAL}, query, dice)
    if slip == "lost":
        return dice.pick(_LOST, "lost")
    if slip == "longer":
        wishes = [wish for wish in (*USEFUL, *HARMFUL) if wish.name not in query.clarity.wishes]
        return _with(query.text, [*wishes[:_LONGER], *wishes[-2:]], dice)
    return ""


def _put_right(text: str, query: QueryReading, dice: Dice) -> str:
    """The query in clean words; one that asks for harm becomes what a responsible person could ask."""
    if not query.harmful or "responsible" in query.signs:
        return mended(text)
    turn = BY_NAME[CARE if "crisis" in query.signs else SAFELY]
    return Writer(query, dice).fill(dice.pick(turn.wordings, "turn"))


def _is_turn(name: str) -> bool:
    return any(turn.name == name for turn in TURNS)


def _suited(query: QueryReading, dice: Dice) -> list[Wish]:
    """Useful wishes that suit the query and are not in it, the most fitting ones first, not quite surely."""
    place = query.signs | {query.task}
    if query.harmful:
        place &= {"harmful", "crisis", "emotional", "responsible"}

    def liking(wish: Wish) -> float:
        return _BY_NAME * bool(wish.suits) + _SPREAD * dice.gauss("likes", wish.name)

    fitting = [wish for wish in USEFUL if not wish.suits or not wish.suits.isdisjoint(place)]
    left = [wish for wish in fitting if wish.name not in query.clarity.wishes]
    return sorted(left, key=lambda wish: (-liking(wish), wish.name))


def _useless(dice: Dice) -> Wish:
    return dice.pick(EMPTY + HARMFUL, "useless")


def _asked_by(gained: Sequence[F], spared: Sequence[F], query: QueryReading, dice: Dice) -> list[Wish]:
    """The wishes that would make the difference between two responses, most telling first."""

    def worth(wish: Wish) -> float:
        value = sum(wish.effects.get(f, 0.0) for f in gained) - sum(wish.effects.get(f, 0.0) for f in spared)
        return value + _SPREAD * dice.gauss("worth", wish.name) if value >= _WORTH_BUILDING else 0.0

    order = sorted(USEFUL, key=lambda wish: (-worth(wish), wish.name))
    return [wish for wish in order if worth(wish) > 0 and wish.name not in query.clarity.wishes]


def _with(base: str, wishes: Sequence[Wish], dice: Dice) -> str:
    """The query with these wishes: after it, or before it where material follows a blank line."""
    if not wishes:
        return base
    said = " ".join(dice.pick(wish.wordings, "wording", wish.name) for wish in wishes)
    if "\n\n" in base:
        return f"{said} {base}"
    return f"{base}{' ' if base.rstrip()[-1:] in ('.', '!', '?') else chr(10)}{said}"


def _protecting(base: str, pair: Pair) -> str:
    """The rewrite with every protected part; where only mending lost one, the instruction as it was."""
    missing = [part for part in pair.protected if part not in base]
    if missing and mended(pair.instruction) == base and all(p in pair.instruction for p in missing):
        return pair.instruction
    return "\n".join([base, *missing])


def _told(is_changed: bool, is_harmful: bool, wishes: Sequence[Wish]) -> str:
    put = "turned it to what can be asked responsibly" if is_harmful else "put it in clear words"
    done = [put] if is_changed else []
    done += [f"asked for {_listed([wish.name for wish in wishes])}"] if wishes else []
    return f"I {' and '.join(done)}." if done else "The query is good as it is."


def _compared(gained: Sequence[F], spared: Sequence[F], is_safer: bool) -> str:
    better = [WORDING[f][0] for f in gained[:3]] + (["it does no harm"] if is_safer else [])
    worse = [WORDING[f][0] for f in spared[:3]]
    told = f"Of the preferred response: {_listed(better)}. " if better else ""
    told += f"Of the other: {_listed(worse)}." if worse else ""
    return told.strip() or "The two hardly differ."


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
