"""The page in headless Chromium: it works by mouse and by keyboard, and runs nobody's HTML.

Needs the extra `browser` (Playwright) and a Chromium: METAKD_CHROMIUM names its program, else it
is looked for on the PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from metakd.dashboard import board as board_module
from metakd.dashboard.board import Board
from metakd.dashboard.export import export
from metakd.dashboard.server import serve_on

playwright = pytest.importorskip(
    "playwright.sync_api", reason="no Playwright: pip install 'metakd[browser]'"
)
CHROMIUM = os.environ.get("METAKD_CHROMIUM") or shutil.which("chromium")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
]

Made = Callable[..., Path]
Page = Any

PICTURES = (
    "[...document.querySelectorAll('#pictures img')].filter((one) => one.naturalWidth).length === 2"
)
ACCURACY = "a:accuracy:student:1"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Page]]:
    """Open an address; whatever the page complains of, or asks of others, fails the test."""
    complaints: list[str] = []
    opened: list[Page] = []

    def open_page(address: str, **options: Any) -> Page:
        page = browser.new_page(viewport={"width": 1400, "height": 950}, **options)
        opened.append(page)
        own = (address, "data:", "blob:")
        page.on("console", lambda m: complaints.append(f"{m.type}: {m.text}"))
        page.on("pageerror", lambda e: complaints.append(str(e)))
        page.on("dialog", lambda d: complaints.append("a dialog was opened"))
        page.on(
            "request",
            lambda r: None if r.url.startswith(own) else complaints.append(f"asks {r.url}"),
        )
        page.goto(address)
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_page
    for page in opened:
        assert page.evaluate("window.pwned") is None
        page.close()
    assert complaints == []


@pytest.fixture
def address(evil: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(board_module, "REST_S", 0.1)
    with serve_on(0, Board(evil)) as server:
        thread = threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True)
        thread.start()
        yield server.url
        server.shutdown()
        thread.join()


def until(page: Page, condition: str) -> None:
    """Wait; Playwright's own way evaluates text in the page, which the page's policy refuses."""
    for _ in range(300):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never came true: {condition}")


def shown(page: Page) -> list[str]:
    """Return the runs that the table shows, in order."""
    return page.evaluate("metakd.table.getRows('active').map((row) => row.getData().path)")


def series(page: Page) -> list[dict[str, Any]]:
    """Return the lines of the chart that is shown."""
    return page.evaluate(
        """() => {
          const place = [...document.querySelectorAll('[role=tabpanel] .chart')]
            .find((one) => one.clientWidth);
          return echarts.getInstanceByDom(place).getOption().series
            .map((one) => ({ type: one.type, name: one.name, data: one.data }));
        }"""
    )


def choose(page: Page, *paths: str) -> None:
    page.click("#clear-selection")
    for path in paths:
        page.check(f'input[aria-label="select {path}"]')


def test_sorts_filters_and_groups(visit: Callable[..., Page], address: str) -> None:
    page = visit(address)
    assert len(shown(page)) == 7
    assert shown(page)[0] == "sweep/3"  # the best one of the largest set
    head = page.locator(f'.tabulator-col[tabulator-field="{ACCURACY}"]')
    assert head.get_attribute("aria-sort") == "descending"
    head.focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    # Runs evaluated on the same tasks stand together, whichever way; what has no figure comes last.
    assert shown(page)[-3:] == ["sweep/3", "elsewhere", "failed"]
    assert page.evaluate("metakd.table.getSorters().length") == 1
    page.keyboard.press("Enter")
    assert shown(page)[-1] == "failed"

    page.fill("#search", "MAML")
    until(page, "metakd.shown.length === 2")
    assert page.inner_text("#shown") == "2 of 7 runs"
    page.locator('input[aria-label="filter by 1-shot, % student"]').press_sequentially(">72")
    until(page, "metakd.shown.length === 1")
    assert shown(page) == ["sweep/3"]
    page.click("#clear-filters")
    until(page, "metakd.shown.length === 7")
    page.select_option("#status", "failed")
    until(page, "metakd.shown.length === 1")
    assert shown(page) == ["failed"]
    page.click("#clear-filters")

    page.select_option("#group-by", label="algorithm")
    page.wait_for_selector(".tabulator-group")
    groups = page.locator(".tabulator-group").all_inner_texts()
    maml = next(text for text in groups if "algorithm maml" in text)
    assert "2 runs, 2 seeds: 0, 1" in maml
    calculated = page.locator(".tabulator-calcs").all_inner_texts()
    assert any("not comparable" in text for text in calculated)  # one of them on other tasks
    assert any("sd" in text and "(2)" in text for text in calculated)
    button = page.locator(".tabulator-group button").first
    assert button.get_attribute("aria-expanded") == "false"
    button.focus()
    page.keyboard.press("Enter")
    assert page.locator('.tabulator-group button[aria-expanded="true"]').count() == 1


def test_means_over_different_numbers_of_tasks_say_so(
    visit: Callable[..., Page], made_up: Made, tmp_path: Path
) -> None:
    figures = [0.5, 0.7, 0.6, 0.8]
    made_up(tmp_path / "runs" / "few", {"student": {1: figures}})
    made_up(tmp_path / "runs" / "many", {"student": {1: figures * 2}}, seed=1)
    export(tmp_path / "runs", tmp_path / "page.html")
    page = visit((tmp_path / "page.html").as_uri())
    page.select_option("#group-by", label="status")
    page.wait_for_selector(".tabulator-group")
    calculated = page.locator(".tabulator-calcs").all_inner_texts()
    assert any("65.00 (2; 4 and 8 tasks)" in text for text in calculated)


def test_overlays_two_curves_with_smoothing(visit: Callable[..., Page], address: str) -> None:
    page = visit(address)
    choose(page, "sweep/0", "sweep/3")
    page.select_option("#metric", "loss")
    until(page, "metakd.drawn?.length === 2")
    lines = series(page)
    assert len(lines) == 4  # as measured, and smoothed
    assert len({line["name"] for line in lines}) == 2
    measured, smoothed = lines[0]["data"], lines[1]["data"]
    assert measured[1] == [1, 1.0]
    assert smoothed[1][1] > measured[1][1]
    page.fill("#smooth", "0")
    until(page, "document.querySelector('#curves output').textContent === 'none'")
    assert len(series(page)) == 2
    page.select_option("#across", "time")
    page.wait_for_timeout(50)
    assert series(page)[0]["data"][6][0] == pytest.approx(0.1)  # minutes
    page.select_option("#metric", label="<img src=x onerror='window.pwned=2'>")
    page.wait_for_timeout(50)
    assert [line["data"][0][1] for line in series(page)] == [1.0, 1.0]


def test_validation_is_the_first_curve_in_percent(
    visit: Callable[..., Page], address: str, evil: Path
) -> None:
    metrics = evil / "sweep" / "3" / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    lines[9]["metrics"] |= {"validate/accuracy": 0.25, "student/accuracy": 0.5}
    lines[19]["metrics"] |= {"validate/accuracy": 0.375, "student/accuracy": 0.5}
    metrics.write_text("".join(json.dumps(one) + "\n" for one in lines))
    page = visit(address)
    until(page, "metakd.drawn?.length === 1")
    assert page.input_value("#metric") == "validate/accuracy"
    assert series(page)[0]["data"] == [[9, 25], [19, 37.5]]
    assert page.is_disabled("#smooth")
    assert "validate/accuracy (%)" in page.inner_text("#metric")
    assert "37.50" in page.inner_text("#curves table")
    page.select_option("#metric", "loss")  # a loss stays as it was logged
    assert page.is_enabled("#smooth")
    until(page, "metakd.drawn?.length > 1")
    assert max(value for line in series(page) for _, value in line["data"]) == 2.0


def test_accuracies_are_percent_in_the_details_too(
    visit: Callable[..., Page], address: str
) -> None:
    page = visit(address)
    choose(page, "sweep/0", "sweep/3")
    page.click("#tab-details")
    page.wait_for_selector("#details .differs")
    text = page.inner_text("#details")
    # 0.5, 0.7, 0.6, 0.8 and 0.74, 0.85, 0.6, 0.8 over the tasks
    assert "student.fewshot.accuracy\t65.00 %\t74.75 %" in text
    assert "student.fewshot.ci95\t12.65 %\t" in text
    assert "student.cost.parameters\t1000\t1030" in text


def test_parallel_coordinates_say_when_there_is_nothing_to_see(
    visit: Callable[..., Page], address: str, evil: Path
) -> None:
    page = visit(address)
    page.click("#tab-parallel")
    assert page.is_visible("#parallel .chart")
    for run in (evil / "sweep" / "0", evil / "sweep" / "1", *evil.iterdir()):
        if run.name != "sweep":  # what is left are two runs of other rates
            shutil.rmtree(run)
    page.reload()
    page.wait_for_selector("html[data-ready]")
    page.click("#tab-parallel")
    assert not page.is_visible("#parallel .chart")
    assert "These runs differ in one, meta_train.lr" in page.inner_text("#parallel")
    page.click("#parallel summary")
    page.locator("#parallel details label", has_text="teacher").click()
    assert page.is_visible("#parallel .chart")
    assert "2 runs of the table" in page.inner_text("#parallel")


def test_latencies_within_noise_make_no_front(visit: Callable[..., Page], address: str) -> None:
    page = visit(address)
    points = "[{cost: 0.204, good: 40, spread: S}, {cost: 0.207, good: 41, spread: S}]"
    front = f"metakd.front({points}).map((point) => point.good)"
    assert page.evaluate(front.replace("S", "0.002")) == [41]
    assert page.evaluate(front.replace("S", "0.001")) == [40, 41]
    assert page.evaluate(front.replace("S", "0")) == [40, 41]


def test_names_are_wrapped_on_a_narrow_page(
    visit: Callable[..., Page], address: str, evil: Path
) -> None:
    page = visit(address)
    page.set_viewport_size({"width": 400, "height": 900})
    page.reload()
    page.wait_for_selector("html[data-ready]")
    inside = """[...document.querySelectorAll('.tabulator-cell[tabulator-field="path"]')]
      .every((cell) => cell.scrollWidth <= cell.clientWidth + 1)"""
    assert page.evaluate(inside)
    cell = page.locator('.tabulator-cell[tabulator-field="path"]', has_text="onerror")
    assert cell.bounding_box()["height"] > 40  # several lines
    assert cell.bounding_box()["width"] <= 140
    until(page, "metakd.drawn?.length")
    for name in page.locator("#curves td.name").all():
        assert name.bounding_box()["width"] >= 100
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_charts_of_all_runs(visit: Callable[..., Page], address: str) -> None:
    page = visit(address)
    page.click("#tab-parallel")
    (lines,) = series(page)
    assert (lines["type"], len(lines["data"])) == ("parallel", 5)  # of the first set of tasks
    page.fill("#search", "maml")
    until(page, "metakd.shown.length === 2")
    page.wait_for_timeout(200)
    assert len(series(page)[0]["data"]) == 2
    page.click("#clear-filters")
    page.click("#tab-costs")
    page.wait_for_timeout(200)
    front = next(one for one in series(page) if one["name"] == "front")
    costs = [cost for cost, _ in front["data"]]
    assert costs == sorted(costs)
    values = [value for _, value in front["data"]]
    assert values == sorted(values)
    assert len(front["data"]) >= 2
    page.click("#tab-game")
    choose(page, "sweep/0", "sweep/1")
    until(page, "document.querySelectorAll('#game .chart canvas').length === 1")
    assert [one["name"].split(": ")[-1] for one in series(page)] == ["adversarial/kl"] * 2
    page.click("#tab-pictures")
    until(page, PICTURES)


def test_details_show_differences_and_names_as_text(
    visit: Callable[..., Page], address: str
) -> None:
    page = visit(address)
    choose(page, "sweep/0", "sweep/3")
    page.click("#tab-details")
    page.wait_for_selector("#details .differs")
    text = page.inner_text("#details")
    assert "algorithm.name\tprotonet\tmaml" in text
    assert "task.ways" not in text
    assert "points" in text  # the paired difference
    page.uncheck("#only")
    until(page, "document.querySelector('#details').innerText.includes('task.ways')")
    page.get_by_role("button", name="<b>bold<img src=x onerror=alert(1)>").first.click()
    until(page, "document.querySelector('#details').innerText.includes('window.pwned=1')")
    assert "<script>window.pwned=1</script>" in page.inner_text("#details")
    assert page.locator("#details img, #table img, #table b").count() == 0


def test_runs_on_other_tasks_are_said_to_be(visit: Callable[..., Page], address: str) -> None:
    page = visit(address)
    said = page.inner_text("#notices")
    assert said == "4 notices: these runs were evaluated on 2 different sets of tasks"
    page.click("#notices summary")
    said = page.inner_text("#notices")
    assert "B cannot be compared with A: other evaluation seed (evaluate.seed): 12345 and 7" in said
    assert "6 finished, 1 failed" in page.inner_text("#counts")


def test_themes(visit: Callable[..., Page], address: str) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = visit(address, color_scheme="dark")
    assert dark.evaluate("document.documentElement.dataset.theme") == "dark"
    before = dark.evaluate(ground)
    dark.select_option("#theme", "light")
    assert dark.evaluate("document.documentElement.dataset.theme") == "light"
    assert dark.evaluate(ground) != before
    dark.reload()
    dark.wait_for_selector("html[data-ready]")
    assert dark.evaluate("document.documentElement.dataset.theme") == "light"  # it is kept
    dark.select_option("#theme", "auto")
    assert dark.evaluate(ground) == before


def test_keyboard_alone(visit: Callable[..., Page], address: str) -> None:
    page = visit(address)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(200):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.role") == "tab":
            break
    assert page.evaluate("document.activeElement.id") == "tab-curves"
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("#tab-parallel", "aria-selected") == "true"
    assert page.is_visible("#parallel")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    unnamed = """[...document.querySelectorAll('input, select, button, summary')].filter((one) =>
      one.offsetParent && !one.labels?.length && !one.textContent.trim()
      && !one.getAttribute('aria-label')).map((one) => one.outerHTML)"""
    for tab in page.locator('[role="tab"]').all():
        tab.click()
        page.wait_for_timeout(50)
        assert page.evaluate(unnamed) == []


def test_follows_runs_that_go_on(
    visit: Callable[..., Page], address: str, evil: Path, made_up: Made
) -> None:
    page = visit(address)
    asked: list[str] = []
    page.on("response", lambda r: asked.append(r.text()) if "api/runs" in r.url else None)
    run = made_up(evil / "new", status="running", info={"stage": "meta_train", "stage_steps": 50})
    until(page, "metakd.shown.some((row) => row.path === 'new')")
    choose(page, "new")
    with (run / "metrics.jsonl").open("w") as file:
        for step in range(20):
            line = {"stage": "meta_train", "step": step, "time": 1.0 * step, "metrics": {"loss": 1}}
            file.write(json.dumps(line) + "\n")
    until(page, "metakd.drawn?.length === 1")
    until(page, "document.querySelector('#table').innerText.includes('running: meta train 20/50')")
    assert [row["path"] for row in json.loads(asked[-1])["rows"]] in ([], ["new"])


def test_an_exported_page_needs_no_server(
    visit: Callable[..., Page], evil: Path, tmp_path: Path
) -> None:
    export(evil, tmp_path / "page.html")
    page = visit((tmp_path / "page.html").as_uri())
    assert len(shown(page)) == 7
    assert "as of " in page.inner_text("#state")
    choose(page, "sweep/0", "sweep/3")
    until(page, "metakd.drawn?.length === 2")
    page.fill("#search", "maml")
    until(page, "metakd.shown.length === 2")
    page.click("#tab-details")
    page.wait_for_selector("#details .differs")
    assert "points" in page.inner_text("#details")
    page.click("#tab-pictures")
    until(page, PICTURES)
    page.click("#clear-filters")
    page.get_by_role("button", name="<b>bold<img src=x onerror=alert(1)>").first.click()
    until(page, "document.querySelector('#details').innerText.includes('window.pwned=1')")
