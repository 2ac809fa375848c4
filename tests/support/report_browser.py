"""Debian's Chromium without a window, and a page that notes everything it should not do."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page

FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def missing_part() -> str | None:
    """What is not there of what a browser test needs, None where all is."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed"
    return None if shutil.which("chromium") else "there is no chromium on the PATH"


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser of its own, without a profile."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=[*FLAGS])
        try:
            yield chromium
        finally:
            chromium.close()


@dataclass
class Opened:
    """A report in a browser. said: its console and errors, asked: the addresses it wanted, dialogs: those it
    opened."""

    page: Page
    address: str
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def refuse(self, dialog: Dialog) -> None:
        """Note a dialog and close it."""
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def text(self, selector: str) -> str:
        """The text of the first element, as the document has it."""
        return self.page.locator(selector).first.text_content() or ""

    def count(self, selector: str) -> int:
        """How many elements there are."""
        return self.page.locator(selector).count()

    def ask(self, script: str, argument: Any = None) -> Any:
        """What a script of the test's own says."""
        return self.page.evaluate(script, argument)

    def focused(self) -> str:
        """The id of the element that has the focus."""
        return str(self.ask("document.activeElement.id"))

    def check_quiet(self) -> None:
        """It asked for nothing but itself, and neither complained nor was refused anything."""
        assert self.asked == [self.address]
        assert (self.said, self.dialogs) == ([], [])


@contextmanager
def opened(chromium: Browser, report: Path, fragment: str = "", **context: Any) -> Iterator[Opened]:
    """`report` in a window of its own. context: as `Browser.new_context` takes it."""
    window = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
    try:
        page = window.new_page()
        page.set_default_timeout(10_000)
        here = Opened(page, report.resolve().as_uri())
        page.on("console", lambda message: here.said.append(message.text))
        page.on("pageerror", lambda error: here.said.append(str(error)))
        page.on("request", lambda request: here.asked.append(request.url))
        page.on("dialog", here.refuse)
        page.goto(here.address + fragment)
        yield here
    finally:
        window.close()
