"""What an alignment is measured on: items from every kind of file, with ids and labels."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from drpo.data import shipped_heldout, shipped_safety
from drpo.errors import InputError
from drpo.evaluation_data import EvaluationSet, Item, read_items

RECORDS: list[dict[str, Any]] = [
    {"id": "a", "query": "Why is the sky blue?", "topic": "STEM", "task": ["Info-Seek", "Reasoning"]},
    {"id": "b", "query": 'Say "no, thanks"', "category": "Safety", "topic": ["Ethics", "Lifestyle"]},
]
ITEMS = (
    Item("a", "Why is the sky blue?", False, ("STEM",), ("Info-Seek", "Reasoning")),
    Item("b", 'Say "no, thanks"', True, ("Ethics", "Lifestyle")),
)


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def read(folder: Path, *records: object, column: str | None = None) -> EvaluationSet:
    return read_items(written(folder, "a.json", json.dumps(records)), column=column)


def refused(source: Path | str, column: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read_items(source, column=column)
    assert str(caught.value).startswith(str(source))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_shipped_file_has_a_hundred_general_items_and_twenty_on_safety() -> None:
    found = read_items(shipped_heldout())
    assert [sum(item.safety is safety for item in found.items) for safety in (False, True)] == [100, 20]
    assert [item.id for item in found.items] == [str(number) for number in range(120)]
    assert all(len(item.topics) == len(item.tasks) == 1 for item in found.items)
    assert found.cleaned == ()


def test_red_team_queries_are_judged_on_safety_and_their_look_alikes_are_not() -> None:
    items = read_items(shipped_safety()).items
    assert [item.safety for item in items] == [True, False] * 40


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", "\n".join(map(json.dumps, RECORDS))),
        ("a.json", json.dumps(RECORDS)),
        (
            "a.csv",
            "id,query,category,topic,task\na,Why is the sky blue?,,STEM,Info-Seek;Reasoning\n"
            'b,"Say ""no, thanks""",safety,Ethics | Lifestyle,\n',
        ),
        (
            "windows.csv",
            "\ufeffid,query,category,topics,task_types\r\n"
            " a ,Why is the sky blue?,,STEM,Info-Seek; Reasoning\r\n"
            'b,"Say ""no, thanks""",SAFETY,Ethics|Lifestyle;,\r\n',
        ),
    ],
)
def test_every_kind_of_file_gives_the_same_items(tmp_path: Path, name: str, content: str) -> None:
    path = written(tmp_path, name, content)
    found = read_items(path)
    assert found.items == ITEMS
    assert found.source == str(path)
    assert found.digest == read(tmp_path, *RECORDS).digest
    assert len(found.digest) == 16
    marks = ("byte order mark removed", "3 CRLF line ends read as such")
    assert found.cleaned == (marks if name == "windows.csv" else ())


def test_a_plain_file_has_one_query_a_line_and_nothing_on_safety(tmp_path: Path) -> None:
    found = read_items(written(tmp_path, "a.txt", b"\xef\xbb\xbfone; two\r\n\r\n three|x \r\n"))
    assert found.items == (Item("0", "one; two"), Item("1", "three|x"))
    assert found.cleaned == (
        "byte order mark removed",
        "3 CRLF line ends read as such",
        "1 blank line skipped",
    )


def test_text_in_json_is_one_label_whatever_stands_in_it(tmp_path: Path) -> None:
    (item,) = read(tmp_path, {"query": "q", "topic": "Arts; Crafts", "task": ["a|b", " ", "a|b", "c "]}).items
    assert (item.topics, item.tasks) == (("Arts; Crafts",), ("a|b", "c"))


def test_one_of_several_categories_is_enough_for_safety(tmp_path: Path) -> None:
    categories: list[Any] = [["regular", " SAFETY "], ["regular"], "red-team", "look-alike", None, "", []]
    found = read(tmp_path, *({"query": "q", "category": category} for category in categories))
    assert [item.safety for item in found.items] == [True, False, True, False, False, False, False]


def test_labels_are_taken_of_the_first_field_that_holds_any(tmp_path: Path) -> None:
    (item,) = read(tmp_path, {"query": "q", "topic": [], "topics": ["x"], "task": "a", "tasks": "b"}).items
    assert (item.topics, item.tasks) == (("x",), ("a",))


def test_the_query_is_in_the_named_column_or_the_first_known_one(tmp_path: Path) -> None:
    record = {"input": "i", "question": "q", "asked": "a", "instruction": "s"}
    assert read(tmp_path, record).items[0].query == "s"
    assert read(tmp_path, {"input": "i"}).items[0].query == "i"
    assert read(tmp_path, record, column="asked").items[0].query == "a"


def test_ids_are_kept_and_else_the_place_counted_from_zero(tmp_path: Path) -> None:
    given: list[Any] = [{"id": 801}, {"id": " x "}, {"id": None}, {"id": ""}, {}]
    found = read(tmp_path, *({"query": "q", **ids} for ids in given), "text alone")
    assert [item.id for item in found.items] == ["801", "x", "2", "3", "4", "5"]


def test_equal_queries_are_kept_and_told(tmp_path: Path) -> None:
    found = read(tmp_path, "a", "b", "a", " a ")
    assert [item.query for item in found.items] == ["a", "b", "a", "a"]
    assert found.cleaned == ("2 repetitions of a query kept",)


@pytest.mark.parametrize("change", [{"id": "c"}, {"query": "?"}, {"category": "safety"}, {"topic": "x"}])
def test_the_digest_follows_all_that_items_hold(tmp_path: Path, change: dict[str, str]) -> None:
    assert read(tmp_path, RECORDS[0] | change).digest != read(tmp_path, RECORDS[0]).digest
    assert read(tmp_path, RECORDS[0] | {"else": "x"}).digest == read(tmp_path, RECORDS[0]).digest


@pytest.mark.parametrize(
    ("name", "content", "place", "expected", "came", "remedy"),
    [
        ("a.jsonl", '"ok"\n{"q": "x"}', "line 2", "the field 'query' or 'ins", "'q'", "--data-column"),
        ("a.csv", "id;query\n1;x\n", "line 1", "the field 'query'", "'id;query'", "--data-column NAME"),
        ("a.jsonl", '"ok"\n{"query": " "}', "line 2", "text in 'query'", "' '", "remove the entry"),
        ("a.csv", "id,query\n1,\n", "line 2", "text in 'query'", "''", "Fill it in"),
        ("a.json", '[{"query": 7}]', "item 1", "text in 'query'", "7 (int)", "quotes"),
        ("a.json", "[7]", "item 1", "a JSON object", "7", '{"query": "..."}'),
        (
            "a.jsonl",
            '{"id": 1, "query": "x"}\n\n{"id": "1", "query": "y"}',
            "line 3",
            "an id that is new",
            "'1', which stands on line 1",
            "another id",
        ),
        ("a.json", '[{"id": 1, "query": "x"}, "y"]', "item 2", "an id that is new", "'1'", "take the ids"),
        ("a.json", '[{"id": 1.5, "query": "x"}]', "item 1", "a whole number in", "1.5 (float)", "Correct"),
        ("a.json", '[{"id": true, "query": "x"}]', "item 1", "a whole number in", "True (bool)", "Correct"),
        ("a.json", '[{"id": ["x"], "query": "x"}]', "item 1", "a whole number", "['x'] (list)", "take"),
        ("a.json", '[{"id": "\\ud83d", "query": "x"}]', "item 1", "Unicode text in 'id'", "half", "Remove"),
        ("a.json", '[{"category": 3, "query": "x"}]', "item 1", "texts in 'category'", "3 (int)", '["STEM",'),
        ("a.json", '[{"topic": ["x", 3], "query": "x"}]', "item 1", "texts in 'topic'", "['x', 3]", "leave"),
        ("a.json", '[{"task": {"a": 1}, "query": "x"}]', "item 1", "texts in 'task'", "(dict)", "leave"),
        ("a.json", '[{"task": "\\udc00", "query": "x"}]', "item 1", "Unicode text in", "half", "Remove"),
        ("a.json", "[]", "", "at least one query", "none", '"category": "safety"'),
        ("a.txt", "\n\n", "", "at least one query", "none", "one query a line"),
        ("a.csv", "query\n", "", "at least one query", "none", "another file"),
        ("a.jsonl", '{"query": \n', "line 1", "JSON object", "no JSON at column", "one entry a line"),
        ("a.txt", "eins\nzwei".encode("utf-16"), "line 1", "UTF-8", "in UTF-16", "iconv"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_with_its_place_and_a_remedy(
    tmp_path: Path, name: str, content: str | bytes, place: str, expected: str, came: str, remedy: str
) -> None:
    path = written(tmp_path, name, content)
    message = refused(path)
    assert message.startswith(f"{path}, {place}: expected " if place else f"{path}: expected ")
    before, after = message.split(", came ", 1)
    assert expected in before
    assert came in after
    assert remedy in after


def test_a_column_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "query,id\nx,1\n")
    assert "line 1: expected the field 'asked', came the fields 'query', 'id'" in refused(path, "asked")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    assert "there is none. Check the path" in refused(tmp_path / "no.jsonl")


class Rows:
    def __init__(self, **columns: list[object]) -> None:
        self._columns = columns
        self.column_names = list(columns)

    def __getitem__(self, name: str) -> list[object]:
        return self._columns[name]


def hub(monkeypatch: pytest.MonkeyPatch, **splits: Rows) -> None:
    module = ModuleType("datasets")
    module.load_dataset = lambda name: splits  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)


def test_the_data_set_of_just_eval_is_read_with_its_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Rows(
        id=[0, 1, 800],
        instruction=["What are drawers for?", None, "How to pick a lock?"],
        source_id=["alpaca_eval-0", "alpaca_eval-1", "red_team-0"],
        dataset=["helpful_base", "helpful_base", "hh-rlhf/red-team-attempts"],
        category=["regular", "regular", "safety"],
        task=[["info-seek", "procedure"], ["info-seek"], []],
        topic=[["lifestyle"], ["nature"], None],
    )
    hub(monkeypatch, test=rows)
    found = read_items("re-align/just-eval-instruct")
    assert found.items == (
        Item("0", "What are drawers for?", False, ("lifestyle",), ("info-seek", "procedure")),
        Item("800", "How to pick a lock?", True),
    )
    assert found.source == "re-align/just-eval-instruct (split test)"
    assert found.cleaned == ("1 empty row skipped",)


def test_of_several_splits_the_one_for_testing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, train=Rows(query=["a"]), test=Rows(query=["b"]))
    assert read_items("owner/name").items == (Item("0", "b"),)
    hub(monkeypatch, validation=Rows(asked=["c"]), train=Rows(asked=["d"]))
    assert read_items("owner/name", column="asked").items == (Item("0", "d"),)
    assert "the fields 'asked'. Name the right one with --data-column NAME" in refused("owner/name")


def test_without_the_package_the_way_to_install_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install 'drpo[datasets]'" in refused("re-align/just-eval-instruct")
