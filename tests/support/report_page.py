"""A report as a browser without scripts would read it: its elements, and the text that they hold."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from html.parser import HTMLParser
from typing import Any

_VOID = {"meta", "link", "img", "br", "hr", "input", "base", "source", "embed", "col", "area", "track", "wbr"}


@dataclass
class Element:
    """An element. text: all that stands in it, that of the elements inside included."""

    tag: str
    attributes: dict[str, str]
    text: str = ""


@dataclass
class Document(HTMLParser):
    """A page, read at once. AssertionError where an element is closed that is not the last one opened."""

    elements: list[Element] = field(default_factory=list)
    _open: list[Element] = field(default_factory=list)

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements, self._open = [], []
        self.feed(page)
        self.close()
        assert [element.tag for element in self._open] == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1].tag == tag, f"</{tag}> in {[e.tag for e in self._open]}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """The elements of a name whose attributes are these; `class_` is one of the classes."""
        wanted = attributes.pop("class_", None)
        return [
            element
            for element in self.elements
            if element.tag == tag
            and (wanted is None or wanted in element.attributes.get("class", "").split())
            and all(element.attributes.get(name) == value for name, value in attributes.items())
        ]

    def by_id(self, name: str) -> Element:
        """The one element with that id."""
        (found,) = [element for element in self.elements if element.attributes.get("id") == name]
        return found

    def has(self, name: str) -> bool:
        """Whether there is an element with that id."""
        return any(element.attributes.get("id") == name for element in self.elements)

    @cached_property
    def data(self) -> Any:
        """What the page's script reads."""
        return json.loads(self.by_id("data").text)

    @cached_property
    def body(self) -> str:
        """The text of the page, without that of scripts."""
        (body,) = self.all("body")
        text = body.text
        for script in self.all("script"):
            text = text.replace(script.text, "")
        return text


def whole(parts: list[list[Any]]) -> str:
    """The text that a comparison in the data leads to."""
    return "".join(text for mark, text in parts if mark != -1)


def before(parts: list[list[Any]]) -> str:
    """The text that it comes from."""
    return "".join(text for mark, text in parts if mark != 1)
