"""Replies as real models sometimes send them: wrapped, untidy, or cut off."""

from __future__ import annotations

from drpo.llm.world.settings import Dice

_UNRATED = "I have read the response. It is hard to put into figures, so I would rather not rate it."


def damaged(reply: str, dice: Dice, said: str = "evaluation", instead: str = _UNRATED) -> tuple[str, str]:
    """(text, finish reason): one of five harms; the first three leave all of the reply readable.

    `said`: what the reply is called where it is announced; `instead`: what stands in its place at worst.
    """
    kind = min(4, int(dice.uniform("kind of damage") * 5))
    if kind == 0:
        return f"Here is my {said}:\n\n{reply}\n\nLet me know if you need anything else.", "stop"
    if kind == 1:
        return f"```json\n{reply}\n```", "stop"
    if kind == 2:
        return reply[: reply.rindex("}")].rstrip() + ",\n}", "stop"
    if kind == 3:
        return reply[: max(1, int(len(reply) * (0.1 + 0.3 * dice.uniform("where it is cut"))))], "length"
    return instead, "stop"
