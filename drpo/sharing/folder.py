"""The folder that is shared: its card, the alignment, the templates that render it, and nothing else."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from drpo.alignment import FILE_NAME, Alignment
from drpo.compose import RESPOND_TEMPLATES
from drpo.errors import InputError, StorageError
from drpo.jsonl import write_atomically
from drpo.loading import load_alignment
from drpo.sharing.private import without_private
from drpo.sharing.rendering import refuse_active
from drpo.templates import Templates

CARD_NAME = "README.md"
PROMPTS_FOLDER = "prompts"
MOST_BYTES: dict[str, int] = {  # the files of a shared alignment, and how large each may be
    CARD_NAME: 1_000_000,
    FILE_NAME: 20_000_000,
    **{f"{PROMPTS_FOLDER}/{name}": 64_000 for name in sorted(set(RESPOND_TEMPLATES.values()))},
}

Files = dict[str, bytes]


def shared_files(alignment: Alignment, templates: Templates, card: str, source: str) -> Files:
    """The files to be given away. Raises InputError for what nobody could pull. source: for errors."""
    texts = {CARD_NAME: card, FILE_NAME: alignment.as_json()}
    for name in MOST_BYTES:
        if name.startswith(f"{PROMPTS_FOLDER}/"):
            texts[name] = templates.source(name.removeprefix(f"{PROMPTS_FOLDER}/"))
    files = {name: texts[name].encode("utf-8", "backslashreplace") for name in MOST_BYTES}
    check_files(files, source)
    return files


def check_files(files: Mapping[str, bytes], source: str) -> Alignment:
    """The alignment that these files hold, each of them known, bounded, and of the form it should have.

    Raises InputError where one is not, where the templates could do more than render it or are not those it
    was searched with, and where it names an address or a folder. source: where they are from, for errors.
    """
    try:
        return _checked(files)
    except InputError as error:  # it may repeat what a stranger wrote
        raise InputError(f"{source}: {_printable(str(error))}") from None


def _checked(files: Mapping[str, bytes]) -> Alignment:
    for name, content in files.items():
        if name not in MOST_BYTES:
            raise InputError(f"{name}: no file of a shared alignment")
        refuse_large(name, len(content))
        if name.startswith(f"{PROMPTS_FOLDER}/"):
            refuse_active(name, _text_of(content, name))
    if FILE_NAME not in files:
        raise InputError(f"expected an alignment, there is no {FILE_NAME} in it")
    _text_of(files.get(CARD_NAME, b""), CARD_NAME)
    _refuse_malformed(files[FILE_NAME])
    alignment = _loaded(files)
    if without_private(alignment) != alignment:
        raise InputError(f"{FILE_NAME} names an address or a folder, which no shared alignment does")
    return alignment


def refuse_large(name: str, size: int) -> None:
    """Nothing, if a file of `size` bytes may be that large."""
    if size > MOST_BYTES[name]:
        raise InputError(
            f"{name} has more bytes ({size:,}) than a shared alignment may ({MOST_BYTES[name]:,})"
        )


def needs_prompts(folder: Path) -> bool:
    """Whether a shared folder needs `--prompts FOLDER/prompts`: this drpo does not find them by itself."""
    try:
        load_alignment(folder)
    except InputError:
        return True
    return False


def write_folder(files: Mapping[str, bytes], folder: Path) -> bool:
    """Whether the files were written: False where they lie there already, byte for byte.

    All of them or none. A folder with something else in it is left as it is (InputError).
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder}: expected a folder or nothing, it is something else; give another -o")
    try:
        if folder.exists() and any(folder.iterdir()):
            if {name: _bytes_at(folder / name) for name in files} == dict(files):
                return False
            raise InputError(f"{folder}: holds other files, which are kept; give another -o, or move it")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as made:
            new = Path(made) / "new"  # inside, so that whatever is left of it goes with the temporary folder
            for name, content in files.items():
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                write_atomically(new / name, content.decode("utf-8"))
            if folder.exists():
                folder.rmdir()
            new.rename(folder)
    except OSError as error:
        raise StorageError(
            f"{folder}: cannot be written: {error.strerror}. Free or unlock the disk"
        ) from None
    return True


def _bytes_at(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def _text_of(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{name}: expected text in UTF-8") from None


def _loaded(files: Mapping[str, bytes]) -> Alignment:
    """The alignment as `drpo.load` reads it, with the templates that lie beside it."""
    with tempfile.TemporaryDirectory(prefix="drpo-") as made:
        folder = Path(made) / "shared"
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        prompts = folder / PROMPTS_FOLDER
        try:
            return load_alignment(folder, prompts if prompts.is_dir() else None)[0]
        except InputError as error:  # without the place, which is gone when this is read
            said = str(error).replace(f"{folder}/", "").removeprefix(f"{folder}: ")
            raise InputError(said) from None


def _refuse_malformed(content: bytes) -> None:
    """Nothing, if that is the JSON of an alignment down to each value's type, all numbers finite."""
    import pydantic  # here, as everywhere: it takes a while

    try:
        data = json.loads(_text_of(content, FILE_NAME), parse_constant=_no_number)
        settings = data["found"]["settings"]["settings"]
        pydantic.TypeAdapter(Alignment).validate_json(content, strict=True)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{FILE_NAME}: expected the fields of an alignment; {where}: {first['msg']}"
        ) from None
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(f"{FILE_NAME}: expected the JSON of an alignment: {error!r}") from None
    if not isinstance(settings, dict):
        raise InputError(f"{FILE_NAME}: expected the settings of its search, came {type(settings).__name__}")


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _printable(text: str) -> str:
    """At most 400 characters of it, none of which would drive a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)[:400]
