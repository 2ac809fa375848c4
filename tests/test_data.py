from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from drpo.data import (
    ExampleSet,
    SeedQueries,
    base_examples,
    order_queries,
    read_examples,
    read_queries,
    shipped_examples,
    shipped_heldout,
    shipped_seeds,
    write_examples,
)
from drpo.errors import DrpoError, InputError, StorageError
from drpo.types import Example, Query


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def texts(seeds: SeedQueries) -> list[str]:
    return [query.text for query in seeds.queries]


def refused(path: Path | str, column: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read_queries(path, column=column)
    message = str(caught.value)
    assert "\n" not in message
    assert str(Path(path)) in message
    return message


ONE = "Why is the sky blue?"
TWO = 'Say "no, thanks" politely'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", f'{{"query": "{ONE}"}}\n{{"instruction": {json.dumps(TWO)}}}\n'),
        ("b.jsonl", f"{json.dumps(ONE)}\n{json.dumps(TWO)}"),
        ("c.JSONL", f'{{"prompt": "{ONE}"}}\n{{"question": {json.dumps(TWO)}}}\n'),
        ("d.json", json.dumps([ONE, {"text": TWO}], indent=2)),
        ("e.csv", f'query,topic\n{ONE},\n"Say ""no, thanks"" politely",x\n'),
        ("f.txt", f"{ONE}\n{TWO}\n"),
        ("g", f"{ONE}\n{TWO}"),
        ("old-mac.txt", f"{ONE}\r{TWO}\r"),
    ],
)
def test_every_kind_of_file_gives_the_same_queries(tmp_path: Path, name: str, content: str) -> None:
    path = written(tmp_path, name, content)
    seeds = read_queries(path)
    assert texts(seeds) == [ONE, TWO]
    assert seeds.source == str(path)
    assert seeds.digest == read_queries(written(tmp_path, "same.txt", f"{ONE}\n{TWO}\n")).digest
    assert len(seeds.digest) == 16
    assert seeds.cleaned == ()


def test_the_digest_is_over_the_texts_in_order(tmp_path: Path) -> None:
    one = read_queries(written(tmp_path, "a.jsonl", '{"query": "a", "topic": "x"}\n"b"'))
    assert one.digest == read_queries(written(tmp_path, "b.txt", "a\nb")).digest
    assert one.digest != read_queries(written(tmp_path, "c.txt", "b\na")).digest


def test_labels_are_taken_where_they_are_text(tmp_path: Path) -> None:
    record: dict[str, object] = {
        "query": "q",
        "style": "community",
        "topic": " STEM ",
        "task": None,
        "category": 3,
        "else": [],
    }
    assert read_queries(written(tmp_path, "a.jsonl", json.dumps(record))).queries == (
        Query("q", style="community", topic="STEM"),
    )


def test_a_named_column_comes_before_the_known_ones(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "query,asked\nwrong,right\n")
    assert texts(read_queries(path, column="asked")) == ["right"]
    assert "expected the field 'nope', came the fields 'query', 'asked'" in refused(path, "nope")


def test_what_is_cleaned_is_counted(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", b"\xef\xbb\xbf one \r\n\r\n\ttwo\r\n   \r\none\r\none\r\n")
    seeds = read_queries(path)
    assert texts(seeds) == ["one", "two"]
    assert seeds.cleaned == (
        "byte order mark removed",
        "6 CRLF line ends read as such",
        "2 blank lines skipped",
        "2 duplicates dropped (first: line 5)",
    )


def test_one_of_a_kind_is_counted_in_the_singular(tmp_path: Path) -> None:
    assert read_queries(written(tmp_path, "a.jsonl", '"x"\n\n"x"\n')).cleaned == (
        "1 blank line skipped",
        "1 duplicate dropped (first: line 3)",
    )


def test_of_equal_queries_the_first_keeps_its_labels(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", '{"query": "x", "topic": "A"}\n{"query": " x ", "topic": "B"}')
    assert read_queries(path).queries == (Query("x", topic="A"),)


@pytest.mark.parametrize(
    "inner", ["a\u2028b", "a\x0cb", "a\x85b", "two  spaces", "tab\there", "é vs e\u0301", "{{ x }}"]
)
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv"])
def test_text_inside_a_query_is_never_changed(tmp_path: Path, inner: str, name: str) -> None:
    line = json.dumps(inner, ensure_ascii=False) if name == "a.jsonl" else inner
    head = "query\n" if name == "a.csv" else ""
    assert texts(read_queries(written(tmp_path, name, f"{head} {line} \n"))) == [inner]


def test_line_ends_inside_a_quoted_cell_belong_to_the_query(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", 'id,query\r\n1,"first\r\nsecond"\r\n\r\n2,third\r\n')
    seeds = read_queries(path)
    assert texts(seeds) == ["first\r\nsecond", "third"]
    assert "1 blank line skipped" in seeds.cleaned


@pytest.mark.parametrize(
    ("name", "content", "place", "expected", "came", "remedy"),
    [
        ("a.jsonl", '"ok"\n{"query": \n', "line 2", "JSON object", "no JSON at column", "one entry a line"),
        ("a.jsonl", "[\n1\n]", "line 1", "JSON object", "no JSON", "name the file .json"),
        ("a.jsonl", '["x"]', "line 1", "a JSON object", "['x']", '{"query": "..."}'),
        ("a.jsonl", '\n{"q": "x", "id": 1}', "line 2", "'query' or 'instruction'", "'q', 'id'", "--seeds"),
        ("a.jsonl", "{}", "line 1", "the field 'query'", "no field at all", "--seeds-column"),
        ("a.jsonl", '{"query": 7}', "line 1", "text in 'query'", "7 (int)", "quotes"),
        ("a.jsonl", '{"query": null}', "line 1", "text in 'query'", "None (NoneType)", "quotes"),
        ("a.jsonl", '"x"\n"  "', "line 2", "text in 'query'", "'  '", "remove the entry"),
        ("a.jsonl", '"x"\n"\\ud83d"', "line 2", "Unicode", "'\\ud83d'", "Remove it"),
        ("a.jsonl", '"x"\n' + "[" * 100_000, "line 2", "JSON", "beyond reading", "Simplify"),
        ("a.jsonl", '"x"\n' + "7" * 5000, "line 2", "JSON", "beyond reading", "Simplify"),
        ("a.json", '{"data": []}', "line 1", "a JSON list", "{'data': []}", "[ and ]"),
        ("a.json", '"x"\n"y"', "line 2", "a JSON list", "no JSON at column 1", ".jsonl"),
        ("a.json", '["x", {"id": 3}]', "item 2", "the field 'query'", "'id'", "--seeds-column"),
        ("a.csv", "id;query\n1;x\n", "line 1", "the field 'query'", "'id;query'", "--seeds-column"),
        ("a.csv", "What is this?\n", "line 1", "the field 'query'", "'What is this?'", "--seeds-column"),
        ("a.csv", "query,id\nyes, no,3\n", "line 2", "at most 2 cells", "'3' is one too many", "quotes"),
        ("a.csv", 'id,query\n1,"a\nb"\n2\n', "line 4", "the field 'query'", "'id'", "--seeds-column"),
        ("a.csv", 'query\n"open\n', "line 2", "CSV", "unexpected end", "double quotes"),
        ("a.csv", "query,id\n,3\n", "line 2", "text in 'query'", "''", "Fill it in"),
        ("a.csv", "query\n", "", "at least one query", "none", "one query a line"),
        ("a.txt", "", "", "at least one query", "none", "one query a line"),
        ("a.json", " \n", "", "at least one query", "none", "one query a line"),
        ("a.jsonl", "\n \n", "", "at least one query", "none", "one query a line"),
        ("a.txt", b"fine\n\x89PNG\x00\x01", "line 2", "UTF-8", "a NUL byte (byte 9)", "Give a text"),
        ("a.txt", b"fine\ncaf\xe9\n", "line 2", "UTF-8", "the byte 0xe9", "iconv -f WINDOWS-1252"),
        ("a.txt", "eins\nzwei".encode("utf-16"), "line 1", "UTF-8", "in UTF-16", "-f UTF-16 -t UTF-8 a.txt"),
        ("a.txt", "eins\nzwei".encode("utf-32"), "line 1", "UTF-8", "in UTF-32", "-f UTF-32 -t UTF-8 a.txt"),
        ("a.txt", "eins\nzwei".encode("utf-16-le"), "line 1", "UTF-8", "UTF-16LE", "iconv -f UTF-16LE"),
        ("a.txt", "eins\nzwei".encode("utf-16-be"), "line 1", "UTF-8", "UTF-16BE", "iconv -f UTF-16BE"),
        ("a.txt", "eins\nzwei".encode("utf-32-be"), "line 1", "UTF-8", "UTF-32BE", "iconv -f UTF-32BE"),
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


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "there is none" in refused(tmp_path / "no.jsonl")
    assert "came a folder" in refused(tmp_path)
    assert "cannot be read" in refused("nul\0name")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root and Windows read every file")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", "x")
    path.chmod(0)
    assert "cannot be read: Permission denied" in refused(path)


class Rows:
    def __init__(self, **columns: list[object]) -> None:
        self._columns = columns
        self.column_names = list(columns)

    def __getitem__(self, name: str) -> list[object]:
        return self._columns[name]


def hub(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[str]:
    """Replaces the package `datasets`; the list holds what was asked for."""
    asked: list[str] = []

    def load_dataset(name: str) -> Any:
        asked.append(name)
        if isinstance(answer, Exception):
            raise answer
        return answer

    module = ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    return asked


def test_a_dataset_of_the_hub_is_read_by_owner_and_name(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Rows(instruction=["one", " ", "two", None, "one"], topic=["A", "B", None, "C", "D"], other=[1] * 5)
    asked = hub(monkeypatch, {"test": Rows(), "train": rows})
    seeds = read_queries("owner/name-v1.0")
    assert asked == ["owner/name-v1.0"]
    assert seeds.source == "owner/name-v1.0 (split train)"
    assert seeds.queries == (Query("one", topic="A"), Query("two"))
    assert seeds.cleaned == ("2 empty rows skipped", "1 duplicate dropped (first: row 5)")


def test_without_a_split_train_the_first_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, {"eval": Rows(asked=["x"]), "other": Rows()})
    assert read_queries("owner/name", column="asked").source == "owner/name (split eval)"
    assert "the fields 'asked'. Name the right one with --seeds-column" in refused("owner/name")


def test_a_dataset_with_other_than_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, {"train": Rows(query=["x", ["y"]])})
    assert "row 2: expected text in 'query', came ['y'] (list)" in refused("owner/name")


def test_a_dataset_that_cannot_be_loaded_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, ConnectionError("cannot\nreach it"))
    assert "cannot be loaded: 'cannot reach it'. Check the name" in refused("owner/name")


def test_without_the_package_the_way_to_install_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install 'drpo[datasets]'" in refused("owner/name")


def test_a_missing_file_is_not_looked_for_on_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = hub(monkeypatch, {"train": Rows(query=["x"])})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    for name in ("owner/name.jsonl", "here/name", "./name", "../name", "a/b/c", "name", "/owner/name"):
        assert "there is none" in refused(name)
    assert asked == []


def test_order_is_given_or_decided_by_the_seed_alone() -> None:
    queries = tuple(Query(str(number)) for number in range(20))
    assert order_queries(queries, "given", 3) == queries
    shuffled = order_queries(queries, "shuffled", 3)
    assert shuffled == order_queries(list(queries), "shuffled", 3) != queries
    assert sorted(shuffled, key=lambda query: int(query.text)) == list(queries)
    assert order_queries(queries, "shuffled", 4) != shuffled


EXAMPLES = (Example("q 1", "  a\r\nb\u2028 ", "informative"), Example("q 2", 'é "quoted" \U0001f600'))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "deep/er/a.jsonl"])
def test_written_examples_are_read_back_to_the_letter(tmp_path: Path, name: str) -> None:
    write_examples(tmp_path / name, EXAMPLES)
    found = read_examples(tmp_path / name)
    assert found.examples == EXAMPLES
    assert isinstance(found, ExampleSet)
    assert len(found.digest) == 16
    assert "é" in (tmp_path / name).read_text(encoding="utf-8")
    assert [path.name for path in (tmp_path / name).parent.iterdir()] == [Path(name).name]


def test_examples_with_other_field_names_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, "a.json", '[{"instruction": "q", "output": "r", "input": ""}]')
    assert read_examples(path).examples == (Example("q", "r"),)


def test_the_digest_of_examples_is_over_queries_and_responses(tmp_path: Path) -> None:
    def digest(text: str) -> str:
        return read_examples(written(tmp_path, "a.jsonl", text)).digest

    first = digest('{"query": "q", "response": "r"}')
    assert first == digest('{"query": "q", "response": "r", "kind": "unethical"}\n\n')
    assert first != digest('{"query": "q", "response": "s"}')


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"query": "q"}', "line 1: expected the field 'response' or 'output', came the fields 'query'"),
        ('{"query": "q", "response": 3}', "line 1: expected text in 'response', came 3 (int)"),
        ('{"query": "q", "response": " "}', "line 1: expected text in 'response', came ' '"),
        ('"q"', "line 1: expected a JSON object, came 'q'"),
        (
            '{"query": "q", "response": "r"}\n{"query": "q ", "response": "s"}',
            "line 2: expected a query that is new",
        ),
        ("", "expected at least one example, came none"),
        ("query: q", "line 1: expected one JSON object or JSON string, came what is no JSON"),
    ],
)
def test_examples_that_cannot_be_used_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = written(tmp_path, "a.jsonl", content)
    with pytest.raises(InputError) as caught:
        read_examples(path)
    assert message in str(caught.value)
    assert "--seeds-column" not in str(caught.value)


def test_examples_are_written_over_a_file_only_when_allowed(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", "precious")
    with pytest.raises(InputError, match="not written over"):
        write_examples(path, EXAMPLES)
    assert path.read_text() == "precious"
    write_examples(path, EXAMPLES, overwrite=True)
    assert read_examples(path).examples == EXAMPLES


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    path = written(tmp_path, "a.jsonl", "precious")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        write_examples(path, EXAMPLES, overwrite=True)
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


def test_examples_that_cannot_be_stored_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"example 2: .*half of a UTF-16 pair"):
        write_examples(tmp_path / "a.jsonl", [EXAMPLES[0], Example("q", "\ud83d")])
    assert list(tmp_path.iterdir()) == []
    blocked = written(tmp_path, "file", "")
    for path in (tmp_path, blocked / "a.jsonl"):
        with pytest.raises(DrpoError):
            write_examples(path, EXAMPLES, overwrite=True)


def folded(text: str) -> str:
    return " ".join(text.casefold().split())


def test_the_shipped_files_are_what_the_documentation_says() -> None:
    seeds, heldout = read_queries(shipped_seeds()), read_queries(shipped_heldout())
    assert (len(seeds.queries), len(heldout.queries)) == (180, 120)
    assert seeds.cleaned == heldout.cleaned == ()
    assert Counter(query.style for query in seeds.queries) == {
        "instruction": 86,
        "community": 52,
        "red-team": 42,
    }
    assert Counter(query.category for query in heldout.queries) == {"helpfulness": 100, "safety": 20}
    improved, base = read_examples(shipped_examples()), read_examples(base_examples())
    assert Counter(example.kind for example in improved.examples) == {"informative": 8, "unethical": 8}
    assert [example.query for example in improved.examples] == [example.query for example in base.examples]
    seen, unseen = ([folded(query.text) for query in found.queries] for found in (seeds, heldout))
    shown = [folded(example.query) for example in improved.examples]
    assert (len(set(seen)), len(set(unseen)), len(set(shown))) == (180, 120, 16)
    assert not set(unseen) & set(seen)
    assert not set(unseen) & set(shown)


def test_importing_loads_no_heavy_library() -> None:
    program = (
        "import sys, drpo.data, drpo.retrieve, drpo.llm.embed\n"
        "heavy = 'torch sentence_transformers transformers openai bm25s datasets'.split()\n"
        "print(*set(heavy) & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (run.stdout.strip(), run.stderr) == ("", "")
