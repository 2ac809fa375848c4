"""What requests share from their beginning, and in which order they are sent because of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from drpo.llm.base import Message, Request
from drpo.llm.prefix import CHUNK, marks, prefix_text
from drpo.llm.waiting import JOINING, ByPrefix, Waiter

TEXTS = st.text(alphabet="ab<user>\n\ud83d", max_size=12)
TURNS = st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), TEXTS), max_size=4)
NO_FUTURE: Any = None  # a line never looks at it
LETTERS = st.text(alphabet="abc", max_size=4)


def shared(one: str, two: str) -> int:
    return next(
        (i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two))
    )


@given(TURNS, TURNS, TURNS)
def test_requests_that_begin_alike_have_texts_that_do(
    common: list[Message], one: list[Message], two: list[Message]
) -> None:
    begin = prefix_text(Request("m", messages=tuple(common)))
    for more in (one, two):
        assert prefix_text(Request("m", messages=(*common, *more))).startswith(begin)


def test_the_text_of_a_prompt_is_the_prompt_and_a_role_makes_a_difference() -> None:
    assert prefix_text(Request("m", prompt="# Query\n")) == "# Query\n"
    said = Request("m", messages=(Message("user", "hi"),))
    assert prefix_text(said) != prefix_text(replace(said, messages=(Message("system", "hi"),)))
    assert prefix_text(said) == prefix_text(replace(said, seed=4, n=3, priority=2, temperature=1.0))


@given(st.text(max_size=3 * CHUNK), st.text(max_size=2 * CHUNK), st.text(max_size=2 * CHUNK))
def test_texts_share_as_many_marks_as_whole_chunks(common: str, one: str, two: str) -> None:
    one, two = common + one, common + two
    mine, other = marks(one), marks(two)
    same = next((i for i, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b), None)
    if one == two:
        assert mine == other
    elif same is None:
        assert min(len(one), len(two)) % CHUNK == 0 or not (one and two)
    else:
        assert same == shared(one, two) // CHUNK
    assert len(mine) == -(-len(one) // CHUNK)


def test_marks_are_the_same_on_every_machine() -> None:
    assert marks("a" * CHUNK + "b")[0].hex() == marks("a" * CHUNK)[0].hex() == "78b03efd0a5ea28b"
    assert marks("") == ()


class Queue:
    """A line by prefix, filled and emptied by hand."""

    def __init__(self, *prefixes: str) -> None:
        self.line, self._arrivals = ByPrefix(), 0
        for prefix in prefixes:
            self.push(prefix)

    def push(self, prefix: str, priority: int = 0, model: str = "m") -> int:
        self._arrivals += 1
        self.line.push(Waiter(priority, self._arrivals, model, NO_FUTURE, prefix))
        return self._arrivals

    def pop(self, count: int | None = None) -> list[str]:
        return [self.line.pop().prefix for _ in range(len(self.line) if count is None else count)]


def test_one_sweep_goes_up_from_the_last_one_sent_and_the_next_begins_anew() -> None:
    queue = Queue("m1")
    queue.line.sent(0, "m", "k")
    for prefix in ("b2", "z1", "m3", "b1", "m2"):
        queue.push(prefix)
    assert queue.pop(3) == ["m1", "m2", "m3"]
    queue.push("m2")  # passed already
    queue.push("n1")  # still ahead
    assert queue.pop() == ["n1", "z1", "b1", "b2", "m2"]


def test_equal_texts_go_in_order_of_arrival_and_models_one_after_the_other() -> None:
    queue = Queue()
    arrivals = [queue.push("same", model=model) for model in ("y", "x", "y", "x")]
    gone = [queue.line.pop() for _ in range(4)]
    assert [(waiter.model, waiter.arrival) for waiter in gone] == [
        ("x", arrivals[1]),
        ("x", arrivals[3]),
        ("y", arrivals[0]),
        ("y", arrivals[2]),
    ]


def test_each_priority_goes_on_where_it_was() -> None:
    queue = Queue("f", "g", "h")
    assert queue.pop(1) == ["f"]
    queue.push("z", priority=-1)
    queue.push("a", priority=-1)
    assert queue.pop() == ["a", "z", "g", "h"]


@given(st.lists(LETTERS, min_size=1, max_size=30))
def test_who_waits_at_once_is_sent_in_one_order_in_which_common_beginnings_are_adjacent(
    prefixes: list[str],
) -> None:
    assert Queue(*prefixes).pop() == sorted(prefixes)


@given(st.lists(st.tuples(st.integers(0, 2), LETTERS) | st.none(), max_size=60))
def test_lower_priority_numbers_go_first_and_nobody_is_lost(steps: list[tuple[int, str] | None]) -> None:
    """None: the next one is sent."""
    queue, waiting = Queue(), list[tuple[int, int]]()
    for step in [*steps, *[None] * len(steps)]:
        if step is not None:
            arrival = queue.push(step[1], step[0])
            waiting.append((step[0], arrival))
        elif waiting:
            gone = queue.line.pop()
            assert gone.priority == min(priority for priority, _ in waiting)
            waiting.remove((gone.priority, gone.arrival))
    assert not waiting and len(queue.line) == 0


@given(st.integers(0, 40), st.integers(1, 3), LETTERS)
def test_nobody_starves_while_others_keep_coming(others: int, per_turn: int, text: str) -> None:
    queue = Queue("b", *("a" for _ in range(others)))
    assert queue.pop(1) == ["a" if others else "b"]
    mine = queue.push(text or "c")
    for turn in range(others + 2 + 2 * JOINING + per_turn * (others + 1 + JOINING)):
        if queue.line.pop().arrival == mine:
            return
        for _ in range(per_turn):
            queue.push("b" + "c" * (turn // 100))  # always ahead, or just behind
    raise AssertionError("never sent")
