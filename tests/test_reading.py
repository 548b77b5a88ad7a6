"""The built book as its readers see it, in a headless browser: on a laptop (1280 × 800) and on a phone (390 × 844).

Needs the book at `_build/html` (`modlib book`), chromedriver and a Chromium; elsewhere these tests are skipped by name.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from modlib.study.reproduce import Layout

HTML = Layout.here().root / "_build" / "html"
SCREENS = {"laptop": (1280, 800), "phone": (390, 844)}
BEGINS = 100
"""Pixels of a tall first figure, at least, that the first screen of a laptop shows."""
DRAWN_LATER = ("book/executed/introduction", "book/explorer")
"""Pages whose figures are no results."""
TALL = ("book/executed/figure4", "book/executed/architectures")
"""Pages whose first figure has more rows than a screen has room for: it begins there."""
BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")
MEASURE = """
const answer = [...document.querySelectorAll("main strong, article strong")].find(e => /^Answer/.test(e.textContent));
const caveat = [...document.querySelectorAll("article strong")].find(e => /^Caveat/.test(e.textContent));
const figure = document.querySelector("article figure img");
const edge = (of, side) => of ? of.getBoundingClientRect()[side] : null;
return {
    answer: edge(answer, "top"),
    caveat: caveat ? edge(caveat.closest("p"), "bottom") : null,
    figure: edge(figure, "top"),
    whole: edge(figure, "bottom"),
    wide: document.documentElement.scrollWidth - window.innerWidth,
    broad: [...document.querySelectorAll("article table.table")]
        .filter(t => !t.closest("details") && t.scrollWidth > t.clientWidth + 1)
        .map(t => t.id || t.textContent.trim().slice(0, 60)),
    silent: [...document.querySelectorAll("article img")].filter(i => !(i.alt || "").trim()).map(i => i.src),
};
"""


def pages() -> list[str]:
    contents = yaml.safe_load((Layout.here().root / "_toc.yml").read_text())
    return [contents["root"], *(c["file"] for part in contents["parts"] for c in part["chapters"])]


@pytest.fixture(scope="module", params=SCREENS)
def browser(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A browser of one of the two sizes."""
    driver, program = shutil.which("chromedriver"), next(filter(None, map(shutil.which, BROWSERS)), None)
    if not (HTML / "index.html").exists() or driver is None or program is None:
        pytest.skip("needs the built book (modlib book), chromedriver and Chromium")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    except Exception as error:  # whatever the machine forbids
        pytest.skip(f"no browser starts here: {str(error).splitlines()[0]}")
    width, height = SCREENS[request.param]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    opened.first_screen, opened.is_phone = height, request.param == "phone"
    yield opened
    opened.quit()


@pytest.mark.parametrize("page", pages())
def test_a_page_reads_well(page: str, browser: Any) -> None:
    browser.get((HTML / f"{page}.html").as_uri())
    answers = "**Answer" in _text(page)
    found = _settled(browser, answers)
    assert found["wide"] <= 0, "the page scrolls sideways"
    if not browser.is_phone:  # there, wide tables scroll by themselves
        assert found["broad"] == [], "tables wider than their column that are not folded"
    assert found["silent"] == [], "images without an alternative text"
    severe = [line["message"] for line in browser.get_log("browser") if line["level"] == "SEVERE"]
    assert severe == []
    if answers:
        assert found["answer"] is not None
        assert found["answer"] < browser.first_screen, "the answer is below the first screen"
        if not browser.is_phone and page not in DRAWN_LATER:
            assert (found["caveat"] or 0) < browser.first_screen, "the caveat is below the first screen"
            edge, room = ("figure", browser.first_screen - BEGINS) if page in TALL else ("whole", browser.first_screen)
            assert (found[edge] or 0) < room, "the figure is below the first screen"


def _settled(browser: Any, answers: bool, seconds: float = 20.0) -> dict[str, Any]:
    """Return what is measured once the page is laid out and its formulas are set, or after some seconds."""
    end = time.monotonic() + seconds
    found: dict[str, Any] = browser.execute_script(MEASURE)
    while (found["wide"] > 0 or (answers and not found["answer"])) and time.monotonic() < end:
        time.sleep(0.2)
        found = browser.execute_script(MEASURE)
    return found


def _text(page: str) -> str:
    root: Path = Layout.here().root
    file = next(p for p in (root / f"{page}.ipynb", root / f"{page}.md") if p.exists())
    return file.read_text(encoding="utf-8")


def test_the_explorer_answers_clicks_drawing_and_keys(browser: Any) -> None:
    keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
    actions = pytest.importorskip("selenium.webdriver.common.action_chains").ActionChains
    browser.get((HTML / "book" / "explorer.html").as_uri())

    def find(selector: str) -> Any:
        found = browser.find_element("css selector", selector)
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
        return found

    def said(part: str) -> str:
        return str(find(f"#explorer-{part} [role=status]").text)

    assert said("classes").startswith("Classes 1, 7:")
    find("#explorer-classes .ticks label:nth-child(4) input").click()
    assert said("classes").startswith("Classes 1, 3, 7:")
    browser.find_element("xpath", "//div[@id='explorer-classes']//button[text()='all ten']").click()
    find("#explorer-draw button[aria-label='Draw the digit 4']").click()
    assert "the vote says 4," in said("draw")
    find("#explorer-draw .buttons button").click()
    assert said("draw") == "Draw a digit."
    canvas = find("#explorer-draw canvas")
    tall = canvas.size["height"] // 3
    pen = actions(browser).move_to_element_with_offset(canvas, 0, -tall).click_and_hold()
    for _ in range(6):
        pen = pen.move_by_offset(0, tall // 3)
    pen.release().perform()
    assert "the vote says 1," in said("draw")
    find("#explorer-draw .buttons button").click()
    find("#explorer-draw canvas").send_keys(keys.SPACE, *[keys.ARROW_DOWN] * 8, keys.SPACE)
    assert "the vote says" in said("draw")
    before, slider = said("runs"), find("#explorer-runs input[type=range]")
    slider.send_keys(keys.ARROW_RIGHT)
    assert said("runs") != before
    assert browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth") <= 0
