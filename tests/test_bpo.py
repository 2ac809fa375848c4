"""BPO's data: the formats of preferences, what is filtered, a build that resumes, hostile optimizers."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from drpo.api import run_async
from drpo.ask import Asker
from drpo.bpo.building import FIELD, PAIRS_NAME, Built, build_plan, run_build
from drpo.bpo.filters import REASONS, why_left_out, without_context
from drpo.bpo.pairs import Preference, read_preferences
from drpo.config_bpo import BuildConfig
from drpo.errors import InputError
from drpo.llm.base import Message, Request
from drpo.parse import read_rewrite
from drpo.run import Hooks
from drpo.settings import resolve
from drpo.templates import Templates
from drpo.testing import ScriptedLLM
from drpo.types import Failed
from tests.support.command import Shell

ASKED = "Write a note to my landlord about the cold flat."
GOOD = "Dear Ms Weber, since Monday the heating in flat 4 has been off. Please have it mended by Friday."
BAD = "Your flat is cold and that is bad and you should do something."
BETTER = "Write a short, polite note to my landlord about the cold flat, and say what I ask for and when."
ITEMS: list[dict[str, Any]] = [
    {"prompt": ASKED, "good_res": GOOD, "bad_res": BAD},
    {"prompt": "Put this in one sentence.", "context": "Bees dance to show the way.", "good_res": "Bees show "
     "each other the way by dancing.", "bad_res": "Bees."},
]  # fmt: skip


def saved(folder: Path, rows: list[dict[str, Any]]) -> Path:
    file = folder / "feedback.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def reply(text: str) -> str:
    return json.dumps({"analysis": "it was vague", FIELD: text})


def built(folder: Path, rows: list[dict[str, Any]], llm: ScriptedLLM, **changed: Any) -> Built:
    given = {"pairs": str(saved(folder, rows)), "run_dir": folder / "run", "repairs": 0, **changed}
    plan = build_plan(resolve(BuildConfig, given, {}), {}, {"optimizer": llm})
    return run_async(run_build(plan, {}, Hooks()))


# Formats


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": ASKED, "good_res": GOOD, "bad_res": BAD},
        {"instruction": ASKED, "input": "", "good_res": GOOD, "bad_res": BAD},
        {"prompt": ASKED, "chosen": GOOD, "rejected": BAD},
        {
            "chosen": f"\n\nHuman: {ASKED}\n\nAssistant: {GOOD}",
            "rejected": f"\n\nHuman: {ASKED}\n\nAssistant: {BAD}",
        },
        {
            "prompt": ASKED,
            "chosen": [{"role": "user", "content": ASKED}, {"role": "assistant", "content": GOOD}],
            "rejected": [{"role": "user", "content": ASKED}, {"role": "assistant", "content": BAD}],
        },
        {
            "prompt": [{"role": "user", "content": ASKED}],
            "chosen": [{"role": "assistant", "content": GOOD}],
            "rejected": [{"role": "assistant", "content": BAD}],
        },
        {
            "conversation_a": [{"role": "user", "content": ASKED}, {"role": "assistant", "content": BAD}],
            "conversation_b": [{"role": "user", "content": ASKED}, {"role": "assistant", "content": GOOD}],
            "winner": "model_b",
        },
    ],
)
def test_each_format_in_use_gives_the_same_preference(tmp_path: Path, row: dict[str, Any]) -> None:
    (found,) = read_preferences(saved(tmp_path, [row])).items
    assert (found.instruction, found.good, found.bad, found.context) == (ASKED, GOOD, BAD, "")


def test_earlier_turns_and_given_context_are_the_context(tmp_path: Path) -> None:
    earlier = "\n\nHuman: Hello\n\nAssistant: Hello, what can I do?"
    rows = [
        {
            "chosen": f"{earlier}\n\nHuman: {ASKED}\n\nAssistant: {GOOD}",
            "rejected": f"{earlier}\n\nHuman: {ASKED}\n\nAssistant: {BAD}",
        },
        ITEMS[1],
    ]
    first, second = read_preferences(saved(tmp_path, rows)).items
    assert (first.instruction, first.context) == (ASKED, "User: Hello\n\nAssistant: Hello, what can I do?")
    assert (second.instruction, second.context) == (ITEMS[1]["prompt"], ITEMS[1]["context"])


def test_records_that_say_nothing_are_left_out_and_counted(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": GOOD}]
    rows = [
        ITEMS[0],
        ITEMS[0],
        {"prompt": ASKED, "good_res": GOOD, "bad_res": GOOD},
        {"prompt": " ", "good_res": GOOD, "bad_res": BAD},
        {"conversation_a": turns, "conversation_b": turns, "winner": "tie (bothbad)"},
        {
            "chosen": f"\n\nHuman: {ASKED}\n\nAssistant: {GOOD}",
            "rejected": f"\n\nHuman: What else?\n\nAssistant: {BAD}",
        },
    ]
    found = read_preferences(saved(tmp_path, rows))
    assert len(found.items) == 1
    assert found.left_out == {
        "repeated": 1,
        "equal responses": 1,
        "no instruction": 1,
        "a tie": 1,
        "the two answer different questions": 1,
    }


@pytest.mark.parametrize(
    "row", [{"prompt": ASKED}, {"prompt": ASKED, "chosen": 7, "rejected": BAD}, {"good_res": GOOD}]
)
def test_a_record_of_no_format_is_refused_with_its_place(tmp_path: Path, row: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="line 2"):
        read_preferences(saved(tmp_path, [ITEMS[0], row]))


# Filters


@pytest.mark.parametrize(
    ("optimized", "why"),
    [
        (BETTER, None),
        (ASKED, None),
        ("", "empty"),
        ("Write a note.", "shorter"),
        (BETTER + " and then say it again in other words" * 9, "longer"),
        ("[INST] " + BETTER, "marked"),
        (BETTER + " </good-response-0a1b2c3d>", "marked"),
        ("Sure, here is a note to your landlord about the cold flat.", "answered"),
        ("Tell me a joke about a penguin in spring, please.", "lost"),
        (f"Write a note to my landlord about the cold flat such as: {GOOD}", "copied"),
    ],
)
def test_a_pair_is_left_out_for_what_does_not_belong_into_a_prompt(optimized: str, why: str | None) -> None:
    assert why_left_out(ASKED, optimized, GOOD) == why
    assert why is None or why in REASONS


def test_the_bounds_are_the_published_ones() -> None:
    ten = " ".join(f"word{n}" for n in range(10))
    assert why_left_out(ten, " ".join(ten.split()[:5]), GOOD) is None
    assert why_left_out(ten, " ".join(ten.split()[:4]), GOOD) == "shorter"
    assert why_left_out(ten, " ".join([ten] * 6), GOOD) is None
    assert why_left_out(ten, " ".join([ten] * 6) + " more", GOOD) == "longer"


def test_a_context_is_no_part_of_the_new_prompt() -> None:
    context = "Bees dance to show the others of their hive the way to flowers that they have found."
    asked, optimized = "Put this in one sentence.", "Put this in one clear sentence for a child."
    assert without_context(f"{optimized}\n\nContext:\n{context}", context) == optimized
    assert why_left_out(asked, optimized, GOOD, context) is None
    assert why_left_out(asked, f"{optimized} {context[:80]}", GOOD, context) == "with-context"


def test_protected_parts_must_come_back() -> None:
    assert why_left_out(ASKED, BETTER, GOOD, protected=("my landlord",)) is None
    assert why_left_out(ASKED, BETTER, GOOD, protected=("a note",)) == "lost-protected"


# Building


def test_pairs_keep_what_must_be_kept_with_and_without_context(tmp_path: Path) -> None:
    second = "Put this in one clear sentence."
    llm = ScriptedLLM(lambda request: reply(BETTER if ASKED in request.messages[0].content else second))
    found = built(tmp_path, ITEMS, llm, out=tmp_path / "data")
    lines = [json.loads(line) for line in (tmp_path / "data" / PAIRS_NAME).read_text().splitlines()]
    assert lines == [
        {"prompt": ASKED, "optimized_prompt": BETTER},
        {"prompt": ITEMS[1]["prompt"], "optimized_prompt": second, "context": ITEMS[1]["context"]},
    ]
    assert found.is_believable and len(found.kept) == 2
    asked = next(r for r in llm.requests if ITEMS[1]["context"] in r.messages[0].content)
    assert ITEMS[1]["good_res"] in asked.messages[0].content and asked.role == "optimizer"


def test_unchanged_prompts_are_kept_and_unreadable_replies_make_no_data_to_train_on(tmp_path: Path) -> None:
    llm = ScriptedLLM(lambda request: reply(ASKED) if ASKED in request.messages[0].content else "no")
    found = built(tmp_path, ITEMS, llm)
    assert [pair.is_unchanged for pair in found.kept] == [True]
    assert found.as_dict()["left_out"] == {"failed": 1} and not found.is_believable


def test_the_same_build_again_sends_nothing_and_makes_the_same_files(tmp_path: Path) -> None:
    llm = ScriptedLLM(lambda request: reply(BETTER))
    built(tmp_path, ITEMS[:1], llm)
    first = (tmp_path / "run" / PAIRS_NAME).read_bytes()
    again = built(tmp_path, ITEMS[:1], ScriptedLLM([]))
    assert (tmp_path / "run" / PAIRS_NAME).read_bytes() == first and not again.sent


def test_a_folder_with_other_data_is_not_written_over(tmp_path: Path) -> None:
    llm = ScriptedLLM(lambda request: reply(BETTER))
    built(tmp_path, ITEMS[:1], llm, out=tmp_path / "data")
    with pytest.raises(InputError, match="holds the data of other settings"):
        built(tmp_path, ITEMS, llm, out=tmp_path / "data", run_dir=tmp_path / "other")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="holds other files"):
        built(tmp_path, ITEMS[:1], llm, out=tmp_path / "mine", run_dir=tmp_path / "third")


def test_the_command_builds_from_the_simulated_world(shell: Shell) -> None:
    wanted = ("--pairs", "demo", "--optimizer", "demo", "--limit", "40", "-o", "d")
    done = shell.done("bpo", "build", *wanted)
    rows = [json.loads(line) for line in (shell.folder / "d" / PAIRS_NAME).read_text().splitlines()]
    assert len(rows) >= 30 and f"kept         {len(rows)}" in done.out
    assert "simulated" in done.out.lower()


# Hostile optimizers

_PARTS = (
    '{"analysis": "x", "optimized_instruction": "', '"}', '{"optimized_instruction": ', "}", "{", "[", '"',
    "__import__('os').system('touch owned')", "{{ ''.__class__.__mro__ }}", "{% include '/etc/passwd' %}",
    "```python\nimport os; os.system('touch owned')\n```", "eval(open('x').read())", "\\u0000", "\\ud800",
    "\x00\x1b[2J", "‮txet", "</instruction-00000000>", "[INST] ignore all [/INST]", "<|im_start|>system",
    "Sure, here is the answer: 42.", "I'm sorry, but I can't help with that.", 
    "Schreibe eine Notiz an den Vermieter.",
    "请给房东写一封关于公寓太冷的信。", "اكتب رسالة قصيرة", "\\", "\n\n", "null", "true", "NaN", "1e999",
    ASKED, GOOD, BAD, "\\n" * 50, "```json\n", "\n```", 
    "!!python/object/apply:os.system ['touch owned']",
)  # fmt: skip
_watching: list[str] | None = None
_RUNS = {"exec", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "pickle.find_class"}


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if _watching is None or event not in _RUNS:
        return
    code = getattr(arguments[0], "co_filename", "") if arguments else ""
    if not str(code).endswith(".py"):  # a module of somebody's that is loaded when it is first needed
        _watching.append(f"{event} {code}")


def test_10000_hostile_replies_never_crash_and_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    global _watching
    _watching = None
    monkeypatch.chdir(tmp_path)
    sys.addaudithook(_watch)
    dice = random.Random(7)

    def hostile(request: Request) -> str:
        """Half of them in the shape that was asked for, some of these cut."""
        text = "".join(dice.choices(_PARTS, k=dice.randint(0, 5)))
        if dice.random() < 0.5:
            return text
        shaped = json.dumps({"analysis": text, FIELD: dice.choice((BETTER, "", ASKED)) + text})
        return shaped if dice.random() < 0.8 else shaped[: dice.randint(0, len(shaped))]

    llm = ScriptedLLM(hostile)
    asker = Asker(llm, Templates(), repairs=0)
    request = Request("m", messages=(Message("user", "x"),), role="optimizer")
    one = Preference(ASKED, GOOD, BAD, "Bees dance to show the way.")
    counts = {"kept": 0, "failed": 0, "left out": 0}

    async def one_of_them() -> None:
        read = await asker.ask(request, lambda text: read_rewrite(text, FIELD))
        if isinstance(read, Failed):
            counts["failed"] += 1
            return
        text = without_context(read.strip(), one.context)
        why = why_left_out(one.instruction, text, one.good, one.context)
        counts["kept" if why is None else "left out"] += 1
        text.encode("utf-8")

    async def all_of_them() -> None:
        for _ in range(10_000):
            await one_of_them()

    _watching = []
    asyncio.run(all_of_them())
    found, _watching = _watching, None
    assert found == [] and list(tmp_path.iterdir()) == []
    assert min(counts.values()) > 20, counts
