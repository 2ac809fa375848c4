"""Reports in a real browser: opened from disk, by mouse, by keyboard, on a phone, on paper, under attack."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from drpo.report import write_report
from drpo.report.shown import visible
from drpo.run_view import RunView, read_view
from tests.support.report_browser import Opened, browser, missing_part, opened
from tests.support.report_runs import (
    copy_of,
    demo_examples_run,
    demo_run,
    hostile_run,
    hostile_strings,
    mixed_events,
    set_events,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(missing_part() is not None, reason=str(missing_part())),
]
PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "has_touch": True}
# The ratio of contrast of each piece of text to what is painted behind it; what is smaller than 4.5, as text.
TOO_FAINT = """() => {
  const numbers = (colour) => (colour.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => {
    const part = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const tile = at.matches('g.n') ? getComputedStyle(at.querySelector('rect')).fill : '';
      const colour = numbers(tile || getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = walk.nextNode(); text; text = walk.nextNode()) {
    const element = text.parentElement;
    if (!text.data.trim() || element.closest('script, .mark, title') || !element.checkVisibility()) continue;
    const svg = element.closest('svg');
    const ink = light(numbers(svg ? getComputedStyle(element).fill : getComputedStyle(element).color));
    const page = light(behind(element));
    const ratio = (Math.max(ink, page) + 0.05) / (Math.min(ink, page) + 0.05);
    if (ratio < 4.5) found.push(`${text.data.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return found;
}"""
# What has a role to be used or read by its name, and has none.
NAMELESS = """() => [...document.querySelectorAll('button, a, select, summary, [role]')].filter((element) => {
  if (!element.checkVisibility() || element.getAttribute('role') === 'status') return false;
  const by = element.getAttribute('aria-labelledby');
  const label = element.getAttribute('aria-label') || (by && document.getElementById(by).textContent);
  return !(label || element.textContent || (element.labels && element.labels[0].textContent)).trim();
}).map((element) => element.outerHTML.slice(0, 80))"""
# Opens a tile, asks for the whole text, and tells what then stands in the panel, and of which elements.
OPEN = """(id) => {
  document.getElementById(id).dispatchEvent(new MouseEvent('click', {bubbles: true}));
  const node = document.getElementById('node');
  const whole = [...node.querySelectorAll('button')].find((button) => button.textContent === 'Whole text');
  if (whole) whole.click();
  return [node.textContent, [...node.querySelectorAll('*')].map((element) => element.localName)];
}"""
SWITCH = "Changes to node {}Whole text"
TAGS = {"div", "h3", "h4", "p", "button", "ul", "ol", "li", "span", "bdi"}
TAGS |= {"table", "thead", "tbody", "tr", "th", "td"}
HIDDEN_WIDTH = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = demo_run(tmp_path_factory.mktemp("browser") / "demo", depth=5, max_extra_depth=1, reuse=False)
    write_report(path)
    return path


@pytest.fixture(scope="module")
def view(run: Path) -> RunView:
    return read_view(run)


@pytest.fixture(scope="module")
def report(run: Path) -> Path:
    return run / "report.html"


@pytest.fixture(scope="module")
def mixed(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = copy_of(run, tmp_path_factory.mktemp("browser") / "mixed")
    set_events(path, mixed_events())
    return write_report(path)


@pytest.fixture(scope="module")
def examples_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(demo_examples_run(tmp_path_factory.mktemp("browser") / "shots", depth=2, reuse=False))


@pytest.fixture(scope="module")
def hostile(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name = "<img src=x onerror=window.hacked=1> \u202e&lt;"
    return write_report(hostile_run(run, tmp_path_factory.mktemp("browser") / name))


def panel(page: Opened) -> str:
    """The text of the open node, without the marks for those who hear it."""
    return str(
        page.ask(
            """() => {
              const copy = document.getElementById('node').cloneNode(true);
              copy.querySelectorAll('.mark').forEach((mark) => mark.remove());
              return copy.textContent;
            }"""
        )
    )


def test_a_click_on_a_tile_opens_its_node(chromium: Browser, report: Path, view: RunView) -> None:
    (tree,) = view.trees
    with opened(chromium, report) as page:
        for node in tree.nodes:
            page.page.locator(f"#n-0-{node.id}").click()
            told = panel(page)
            assert told.startswith("\n") and page.text("#node-title") == f"Node {node.id}"
            assert node.state["query"] in told and node.state["response"] in told
            for shot in node.state["shots"]:
                assert view.examples[shot].query in told
            for aspect, entry in node.state["evaluation"].items():
                assert f"{aspect}{entry['score']}{entry['rationale']}" in told
            assert page.count('[role="treeitem"][aria-selected="true"]') == 1
            if page.count("#node .tools[role=group]"):
                page.page.locator("#node button", has_text="Whole text").click()
                assert node.state["system_prompt"] in panel(page)
                page.page.locator("#node button", has_text="Changes to").click()
        page.check_quiet()


def test_a_node_shows_how_its_prompt_differs_from_its_parents(
    chromium: Browser, report: Path, view: RunView
) -> None:
    (tree,) = view.trees
    with opened(chromium, report) as page:
        for node in tree.nodes:
            before = tree.by_id[node.parent].state["system_prompt"] if node.parent is not None else None
            if before in (None, node.state["system_prompt"]):
                continue
            page.page.locator(f"#n-0-{node.id}").click()
            made = page.ask(
                """() => {
                  const without = (tag) => {
                    const copy = document.querySelector('#node .diff').cloneNode(true);
                    copy.querySelectorAll(`${tag}, .mark`).forEach((part) => part.remove());
                    return copy.textContent;
                  };
                  return [without('ins'), without('del')];
                }"""
            )
            assert made == [before, node.state["system_prompt"]]
        inserted = page.page.locator("#node ins").first
        assert "underline" in inserted.evaluate("element => getComputedStyle(element).textDecorationLine")
        page.check_quiet()


def test_the_tree_can_be_reached_and_walked_with_the_keyboard(
    chromium: Browser, report: Path, view: RunView
) -> None:
    (tree,) = view.trees
    best = tree.best
    assert best is not None
    with opened(chromium, report) as page:
        for _ in range(40):
            page.page.keyboard.press("Tab")
            if page.focused().startswith("n-0-"):
                break
        assert page.focused() == f"n-0-{best.id}"
        ring = page.ask("getComputedStyle(document.activeElement.querySelector('rect')).strokeWidth")
        assert ring == "4.5px"
        page.page.keyboard.press("Home")
        assert page.focused() == "n-0-0"
        path = tree.path(best)
        for node in path[1:]:
            page.page.keyboard.press("ArrowDown")
            assert page.focused() == f"n-0-{node.id}"
        page.page.keyboard.press("ArrowDown")
        assert page.focused() == f"n-0-{best.id}"
        for node in reversed(path[:-1]):
            page.page.keyboard.press("ArrowUp")
            assert page.focused() == f"n-0-{node.id}"
        page.page.keyboard.press("ArrowDown")
        row = [node.id for node in tree.nodes if node.depth == 1]
        for _ in row:
            page.page.keyboard.press("ArrowLeft")
        seen = [page.focused()]
        for _ in row[1:]:
            page.page.keyboard.press("ArrowRight")
            seen.append(page.focused())
        assert seen == [f"n-0-{number}" for number in row]
        page.page.keyboard.press("Enter")
        assert page.text("#node-title") == f"Node {row[-1]}" and "is open" in page.text("#said")
        page.page.keyboard.press("End")
        page.page.keyboard.press(" ")
        assert page.text("#node-title") == f"Node {best.id}"
        assert page.count('[role="treeitem"][tabindex="0"]') == 1
        page.page.keyboard.press("Tab")
        assert page.focused() == "back"
        page.page.keyboard.press("Escape")
        assert page.focused() == f"n-0-{best.id}"
        page.check_quiet()


def test_the_keyboard_sees_its_focus_and_can_skip_to_the_result(chromium: Browser, report: Path) -> None:
    with opened(chromium, report) as page:
        page.page.keyboard.press("Tab")
        skip = page.page.locator(".skip")
        assert skip.evaluate("element => element === document.activeElement")
        assert skip.evaluate("element => element.getBoundingClientRect().top") >= 0
        page.page.keyboard.press("Enter")
        assert page.focused() == "main"
        for _ in range(12):
            page.page.keyboard.press("Tab")
            style = "getComputedStyle(document.activeElement)"
            assert page.ask(f"{style}.outlineStyle") == "solid" or page.focused().startswith("n-0-")


def test_the_parent_of_a_node_is_one_press_away(chromium: Browser, report: Path, view: RunView) -> None:
    node = next(node for node in view.trees[0].nodes if node.depth == 2)
    with opened(chromium, report, f"#n-0-{node.id}") as page:
        assert page.text("#node-title") == f"Node {node.id}"  # an address leads to its node
        page.page.locator("#parent").click()
        assert page.text("#node-title") == f"Node {node.parent}"
        assert page.ask("location.hash") == f"#n-0-{node.parent}"
        page.page.locator("#n-0-0").click()
        assert not page.page.locator("#parent").is_visible()


def test_dropped_proposals_and_failures_can_be_opened(chromium: Browser, mixed: Path) -> None:
    with opened(chromium, mixed) as page:
        page.page.locator("#x-0-0").click()
        assert "the reply holds no JSON" in panel(page) and "Here is my <b>prompt</b>:\nBe kind." in panel(
            page
        )
        assert page.text("#parent") == "Parent: node 0"
        page.page.locator("#x-0-1").click()
        assert "No text came." in panel(page)
        page.page.locator("#n-0-4").click()
        assert "no score" in panel(page) and "cut at the longest length" in panel(page)
        page.page.locator("#n-0-2").click()
        assert "Empty." in panel(page)  # an empty response
        page.check_quiet()


def test_examples_have_a_chooser_of_their_trees(chromium: Browser, examples_report: Path) -> None:
    examples = read_view(examples_report.parent).examples
    with opened(chromium, examples_report) as page:
        shown = "#tree .search:not([hidden])"
        assert page.page.locator(shown).get_attribute("id") == "search-0"
        page.page.get_by_label("Example", exact=True).select_option("2")
        assert page.page.locator(shown).get_attribute("id") == "search-2"
        assert page.count(shown) == 1 and examples[2].query in panel(page)
        page.page.locator("#n-2-0").click()
        assert examples[2].response in panel(page)
        page.check_quiet()
    with opened(chromium, examples_report, "#n-1-0") as page:
        assert page.page.locator(shown).get_attribute("id") == "search-1"
        assert page.page.get_by_label("Example", exact=True).input_value() == "1"


def test_hostile_text_runs_nothing_asks_for_nothing_and_is_shown(chromium: Browser, hostile: Path) -> None:
    with opened(chromium, hostile) as page:
        links = page.count("a")
        for number, text in enumerate(hostile_strings()):
            told, in_files = visible(text), visible(text.replace("\ud800", "").replace("\udfff", ""))
            shown, tags = page.ask(OPEN, f"n-0-{number}")
            for what in ("query", "response", "failure", "aspect", "rationale", "end"):
                assert f"{told} {what}" in shown
            assert (
                f"System prompt{'' if number == 0 else SWITCH.format((number - 1) // 10)}{told}Query" in shown
            )
            assert f"query of {in_files} shot" in shown
            dropped, more = page.ask(OPEN, f"x-0-{number}")
            assert f"{told} reason" in dropped and f"{told} raw" in dropped
            assert {*tags, *more} <= TAGS, text
            if number % 10 == 0:  # a reader points at it and presses
                page.page.mouse.move(700, 300)
                page.page.mouse.click(900, 450)
        assert page.count("script") == 2 and page.count("a") == links
        assert page.ask("[typeof window.hacked, typeof ({}).hacked, typeof hacked]") == ["undefined"] * 3
        assert page.ask("location.href").split("#")[0] == page.address
        page.check_quiet()


def test_text_of_models_cannot_reorder_or_leave_its_box(chromium: Browser, hostile: Path) -> None:
    with opened(chromium, hostile, **PHONE) as page:
        for number in range(len(hostile_strings())):
            page.page.locator(f"#n-0-{number}").dispatch_event("click")
            assert page.ask(HIDDEN_WIDTH) <= 0, hostile_strings()[number]
        outside = """() => [...document.querySelectorAll('.text')].filter((box) => {
          const style = getComputedStyle(box);
          return box.dir !== 'auto' || style.unicodeBidi !== 'plaintext' || style.contain !== 'paint';
        }).length"""
        assert page.ask(outside) == 0


def test_arabic_text_is_read_from_the_right_and_the_page_from_the_left(
    chromium: Browser, hostile: Path
) -> None:
    number = next(n for n, text in enumerate(hostile_strings()) if text.startswith("مرحبا"))
    with opened(chromium, hostile, f"#n-0-{number}") as page:
        page.page.locator("#node button", has_text="Whole text").click()
        box = page.page.locator("#node-body .text").first
        assert box.evaluate("element => getComputedStyle(element).direction") == "rtl"
        assert page.ask("getComputedStyle(document.getElementById('node')).direction") == "ltr"


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_no_page_scrolls_sideways(width: int, chromium: Browser, report: Path, examples_report: Path) -> None:
    for file in (report, examples_report):
        with opened(chromium, file, viewport={"width": width, "height": 800}) as page:
            assert page.ask(HIDDEN_WIDTH) <= 0
            page.page.locator('[role="treeitem"]:visible').last.click()
            assert page.ask(HIDDEN_WIDTH) <= 0


def test_on_a_phone_a_tap_leads_to_the_node_and_back(chromium: Browser, report: Path) -> None:
    with opened(chromium, report, **PHONE, reduced_motion="reduce") as page:
        assert page.text("#node-title") == "Nothing is open"
        page.page.locator("#n-0-1").tap()
        assert page.focused() == "node-title"
        page.page.wait_for_function(
            "Math.abs(document.getElementById('node').getBoundingClientRect().top) < 2"
        )
        assert page.ask("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
        page.page.locator("#back").tap()
        assert page.focused() == "n-0-1"
        box = page.page.locator("#n-0-1").bounding_box()
        assert box is not None and 0 <= box["y"] <= 740 and box["width"] >= 24 and box["height"] >= 24


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_in_light_and_in_dark(
    scheme: str, chromium: Browser, mixed: Path, report: Path
) -> None:
    pages: dict[str, Any] = {}
    for file in (mixed, report):
        with opened(chromium, file, color_scheme=scheme) as page:
            page.ask("document.querySelectorAll('details').forEach((element) => { element.open = true; })")
            assert page.ask(TOO_FAINT) == []
            pages[scheme] = page.ask("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, pages[scheme][4:-1].split(","))) < 150) == (scheme == "dark")


@pytest.mark.parametrize("name", ["report", "mixed", "examples_report"])
def test_everything_that_can_be_used_has_a_name(
    name: str, chromium: Browser, request: pytest.FixtureRequest
) -> None:
    with opened(chromium, request.getfixturevalue(name)) as page:
        assert page.ask(NAMELESS) == []
        roles = page.ask(
            "[...document.querySelectorAll('[role=tree] [role]')].map((e) => e.getAttribute('role'))"
        )
        assert set(roles) == {"treeitem"}
        levels = page.ask(
            "[...document.querySelectorAll('[role=treeitem]')].every((e) => e.ariaLevel && e.ariaSetSize)"
        )
        assert levels is True


def test_paper_shows_the_result_and_no_controls(
    chromium: Browser, report: Path, view: RunView, tmp_path: Path
) -> None:
    assert view.alignment is not None
    with opened(chromium, report, color_scheme="dark") as page:
        page.page.emulate_media(media="print", color_scheme="dark")
        prompt = page.page.locator(".prompt")
        assert prompt.is_visible() and prompt.text_content() == view.alignment.system_prompt
        assert page.page.locator("#tree svg[role=tree]").is_visible()
        assert not page.page.locator("nav").is_visible() and not page.page.locator("#back").is_visible()
        assert page.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.ask(TOO_FAINT) == []
        page.page.pdf(path=tmp_path / "report.pdf")
        assert (tmp_path / "report.pdf").stat().st_size > 20_000


def test_paper_shows_every_example(chromium: Browser, examples_report: Path) -> None:
    with opened(chromium, examples_report) as page:
        page.page.emulate_media(media="print")
        page.ask("window.dispatchEvent(new Event('beforeprint'))")
        texts = page.page.locator("#result details .text")
        assert texts.count() == 3 and all(texts.nth(number).is_visible() for number in range(3))


def test_without_scripts_the_result_the_tree_and_the_tables_are_there(
    chromium: Browser, report: Path
) -> None:
    with opened(chromium, report, java_script_enabled=False) as page:
        assert page.page.locator(".prompt").is_visible() and page.page.locator("#result .diff").is_visible()
        assert page.page.locator("#tree svg[role=tree]").is_visible()
        assert not page.page.locator("#node").is_visible()
        assert page.page.locator("noscript").first.is_visible()
        assert page.page.locator(".heat").is_visible() and page.page.locator(".spent").is_visible()
        page.check_quiet()


def test_a_run_without_a_level_opens(chromium: Browser, run: Path, tmp_path: Path) -> None:
    path = copy_of(run, tmp_path / "begun", without=("events.jsonl", "alignment.json", "progress.json"))
    with opened(chromium, write_report(path)) as page:
        assert "No level of the search is done yet" in page.text("#result")
        page.check_quiet()


def test_a_page_with_another_script_would_not_run_it(chromium: Browser, report: Path, tmp_path: Path) -> None:
    """What keeps the tests above honest: the policy refuses whatever would have slipped through."""
    text = report.read_text(encoding="utf-8")
    attack = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>"
    attack += "<p id=styled style='color:red'>x</p>"
    changed = tmp_path / "changed.html"
    changed.write_text(text.replace("<footer>", f"{attack}<footer>"), encoding="utf-8")
    with opened(chromium, changed) as page:
        assert page.ask("window.hacked") is None
        assert page.ask("getComputedStyle(document.getElementById('styled')).color") != "rgb(255, 0, 0)"
        assert len([line for line in page.said if "Content Security Policy" in line]) >= 3
