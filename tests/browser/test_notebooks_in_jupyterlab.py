"""What a student sees: JupyterLab in a browser, each notebook opened and run from top to bottom."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, sync_playwright

from labkit.course import course_map

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = [path for lab in course_map.written() if (path := lab.notebook())]
SCREENSHOTS = Path(os.environ.get("LABKIT_SCREENSHOTS") or ROOT / "build/screenshots")
"""Where pictures of what was seen are put."""

EACH_NOTEBOOK = "LABKIT_SCREENSHOTS" in os.environ
"""Whether each notebook is photographed as well, from top to bottom: that takes minutes."""

NARROW = {"width": 1000, "height": 700}
OPEN_SECONDS = 60
SCROLLER = ".jp-NotebookPanel:visible .jp-WindowedPanel-outer"
RUN_SECONDS = 300
ARGUMENTS = [
    "--no-sandbox",  # it runs as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

THROWAWAY = {
    "cells": [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# A notebook of this test"},
        {
            "cell_type": "code",
            "id": "b",
            "metadata": {},
            "execution_count": None,
            "outputs": [],
            "source": "from IPython.display import HTML\n"
            "HTML('<img alt=\"a dot\" src=\"data:image/svg+xml;base64,"
            "PHN2ZyB4bWxucz0iaHR0cDovL3d3dy53My5vcmcvMjAwMC9zdmciIHdpZHRoPSI5IiBoZWlnaHQ9IjkiPjxyZWN0IHdpZHRoPSI5IiBoZWlnaHQ9IjkiLz48L3N2Zz4=\">')",
        },
    ],
    "metadata": {"kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """Start JupyterLab as `make lab` does, on a copy of the notebooks: running them saves them. Give the copy and the printed URL."""
    copy = tmp_path_factory.mktemp("served") / "notebooks"
    shutil.copytree(ROOT / "notebooks", copy, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    (copy / "throwaway.ipynb").write_text(json.dumps(THROWAWAY))
    (copy / "failing.ipynb").write_text(json.dumps({**THROWAWAY, "cells": [{**THROWAWAY["cells"][1], "source": "1 / 0"}]}))
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    argv = [ROOT / ".venv/bin/labkit", "start", "--notebooks", copy]
    server = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = next(found[0] for line in server.stdout if (found := re.search(r"http://\S+", line)))
    yield copy, url
    server.send_signal(signal.SIGINT)
    server.wait(timeout=20)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start Debian's Chromium with a profile of its own."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", headless=True, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser, served: tuple[Path, str]) -> Iterator[Page]:
    """Return a fresh page that no other test has touched, with no address yet."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    page = context.new_page()
    yield page
    context.close()


def open_notebook(page: Page, url: str, name: str) -> None:
    """Open a notebook by its address, in a workspace of its own, and wait for its kernel."""
    page.goto(url.replace("/lab?", f"/lab/workspaces/{re.sub('[^a-z0-9]', '-', name)}/tree/{name}?") + "&reset")
    page.locator(".jp-NotebookPanel:visible .jp-Notebook .jp-Cell").first.wait_for(timeout=OPEN_SECONDS * 1000)
    wait_until_idle(page, OPEN_SECONDS)


def wait_until_idle(page: Page, seconds: float) -> None:
    """Wait for what the status bar says: the indicator in the tool bar is idle already while the kernel connects."""
    page.locator("#jp-bottom-panel").get_by_text(re.compile(r"\| Idle$")).first.wait_for(timeout=seconds * 1000)


def menu(page: Page, name: str, entry: str) -> None:
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(f"^{name}$")).click()
    page.locator(".lm-Menu-item:visible", has=page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{entry}$"))).click()


def prompts(page: Page) -> list[str]:
    return page.locator(".jp-NotebookPanel:visible .jp-CodeCell .jp-InputPrompt").all_text_contents()


def run_all(page: Page) -> None:
    """Clear what was stored, run all cells by the menu, and wait until each has its number; stop early at an error."""
    menu(page, "Edit", "Clear Outputs of All Cells")
    menu(page, "Run", "Run All Cells")
    deadline = time.monotonic() + RUN_SECONDS
    while not all(re.match(r"\[\d+\]", prompt) for prompt in prompts(page)):
        if errors(page):
            break
        assert time.monotonic() < deadline, f"after {RUN_SECONDS} s: {prompts(page)}"
        page.wait_for_timeout(200)
    wait_until_idle(page, 30)


def errors(page: Page) -> list[str]:
    """Return the text of each red output: JupyterLab shows an exception as what was written to standard error."""
    red = '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"]'
    return page.locator(f".jp-NotebookPanel:visible {red}").all_text_contents()


def pictures(page: Page) -> list[tuple[str, int]]:
    """Return alt text and real width of each picture in the outputs and in the prose, once it is decoded."""
    script = """async images => {
        for (const image of images) { image.scrollIntoView(); try { await image.decode(); } catch (error) {} }
        return images.map(image => [image.alt, image.naturalWidth]);
    }"""
    found = page.locator(".jp-NotebookPanel:visible .jp-Notebook img").evaluate_all(script)
    return [(alt, width) for alt, width in found]


def take_screenshots(page: Page, name: str) -> None:
    """Photograph the notebook part by part, as one scrolls."""
    if not EACH_NOTEBOOK:
        return
    scroller = page.locator(SCROLLER)
    scroller.evaluate("panel => panel.scrollTo(0, 0)")
    part, last = 0, -1
    while (top := scroller.evaluate("panel => panel.scrollTop")) != last:
        last = top
        photograph(page, f"{name}-{part:02}")
        part += 1
        scroller.evaluate("panel => panel.scrollBy(0, panel.clientHeight - 80)")


def photograph(page: Page, name: str) -> None:
    """Keep a picture of what is seen, once the browser has painted it."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def choose(page: Page, settings: dict[str, dict[str, object]]) -> None:
    """Let JupyterLab find settings, plugin by plugin, without writing them: they would outlive the test."""

    def answer(route: Route) -> None:
        response = route.fetch()
        told = response.json()
        for plugin in told.get("settings", [told]):
            if plugin.get("id") in settings:
                plugin["raw"] = json.dumps(settings[plugin["id"]])
        route.fulfill(response=response, json=told)

    page.route("**/lab/api/settings**", answer)
    page.route("**/lab/api/settings/**", answer)


def choose_theme(page: Page, name: str) -> None:
    """Let JupyterLab find a theme in its settings."""
    choose(page, {"@jupyterlab/apputils-extension:themes": {"theme": name}})


def too_wide(page: Page) -> list[str]:
    """Return the beginning of each output, prose and picture that is wider than its place."""
    script = """async panel => {
        const found = new Set();
        for (let last = -1, top = 0; top !== last; last = top, panel.scrollBy(0, panel.clientHeight / 2), top = panel.scrollTop) {
            await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
            for (const part of panel.querySelectorAll('.jp-OutputArea-output, .jp-MarkdownOutput'))
                if (part.scrollWidth > part.clientWidth + 1) found.add(part.textContent.trim().slice(0, 60));
        }
        return [...found];
    }"""
    return [str(text) for text in page.locator(SCROLLER).evaluate(script)]


def seen(page: Page, served: tuple[Path, str], name: str) -> None:
    """Open a notebook, run it, photograph it, and assert that it ran whole, without an error, with all its pictures."""
    copy, url = served
    cells = [cell for cell in json.loads((copy / name).read_text())["cells"] if cell["cell_type"] == "code"]
    open_notebook(page, url, name)
    run_all(page)
    take_screenshots(page, Path(name).stem)
    assert errors(page) == []
    assert too_wide(page) == []
    assert prompts(page) == [f"[{number}]:" for number in range(1, len(cells) + 1)]
    shown = pictures(page)
    assert shown, "a lab without a picture"
    assert [alt for alt, width in shown if width == 0] == [], "these pictures are broken"
    assert all(alt.strip() for alt, _ in shown), "a picture without an alt text"


def test_the_notebooks_are_listed_at_the_left(page: Page, served: tuple[Path, str]) -> None:
    page.goto(served[1])
    page.locator('.lm-TabBar-tab[data-id="filebrowser"]').click(timeout=OPEN_SECONDS * 1000)
    listed = page.locator(".jp-DirListing-item .jp-DirListing-itemName")
    listed.first.wait_for(timeout=OPEN_SECONDS * 1000)
    assert {path.name for path in served[0].iterdir() if not path.name.startswith(".")} <= set(listed.all_inner_texts())


def test_a_picture_in_an_output_is_seen(page: Page, served: tuple[Path, str]) -> None:
    seen(page, served, "throwaway.ipynb")
    assert pictures(page) == [("a dot", 9)]


def test_an_error_in_a_cell_is_noticed(page: Page, served: tuple[Path, str]) -> None:
    open_notebook(page, served[1], "failing.ipynb")
    run_all(page)
    assert "ZeroDivisionError" in errors(page)[0]


def test_a_terminal_in_jupyterlab_has_the_command_labkit(page: Page, served: tuple[Path, str]) -> None:
    page.goto(served[1].replace("/lab?", "/lab/workspaces/terminal?") + "&reset")
    page.locator(".jp-LauncherCard", has_text="Terminal").click(timeout=OPEN_SECONDS * 1000)
    page.locator(".jp-Terminal .xterm-screen").click(timeout=OPEN_SECONDS * 1000)
    told = served[0] / "told"
    page.keyboard.type(f"labkit version > {told}; echo end >> {told}\n")
    deadline = time.monotonic() + 20
    while not (told.exists() and "end" in told.read_text()):
        assert time.monotonic() < deadline
        page.wait_for_timeout(100)
    assert re.match(r"labkit \d+\.\d+\.\d+\nend", told.read_text())


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_lab_runs_from_top_to_bottom(page: Page, served: tuple[Path, str], notebook: Path) -> None:
    seen(page, served, notebook.relative_to(ROOT / "notebooks").as_posix())


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_stored_lab_fits_a_narrow_page_in_the_dark(page: Page, served: tuple[Path, str], notebook: Path) -> None:
    page.set_viewport_size(NARROW)
    choose_theme(page, "JupyterLab Dark")
    open_notebook(page, served[1], notebook.relative_to(ROOT / "notebooks").as_posix())
    assert page.evaluate("document.body.dataset.jpThemeName") == "JupyterLab Dark"
    take_screenshots(page, f"{notebook.stem}-dark")
    assert too_wide(page) == []
    assert [alt for alt, width in pictures(page) if width == 0] == [], "these pictures are broken"
