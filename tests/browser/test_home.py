"""The home of the course: what JupyterLab shows when it is opened for the first time, and again."""

import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from browser.test_notebooks_in_jupyterlab import (
    OPEN_SECONDS,
    browser,
    choose,
    errors,
    open_notebook,
    page,
    photograph,
    run_all,
    served,
    too_wide,
)
from playwright.sync_api import Page, expect

from labkit.cli import cli
from labkit.course import course_map
from website import audit

__all__ = ["browser", "page", "served"]

HOME, LABS = course_map.HOME.name, course_map.written()
TERMINALS = ["student", *(["live"] if "top" in cli.list_commands(click.Context(cli)) else [])]
OURS = ".jp-OutputArea-output, .jp-MarkdownOutput"
"""What a notebook of ours shows inside JupyterLab."""


@pytest.fixture(scope="module", autouse=True)
def first_time(own_state: Path) -> None:
    """Forget what JupyterLab looked like when other tests left it."""
    shutil.rmtree(own_state / "jupyter/config/lab", ignore_errors=True)


def opened(page: Page, url: str) -> None:
    """Open the printed URL, wait for what is laid out there, and bring the home page to the front."""
    page.goto(url)
    page.locator("#jp-main-dock-panel .lm-TabBar-tabLabel", has_text=re.compile(f"^{HOME}$")).click(timeout=OPEN_SECONDS * 1000)
    shown(page, course_map.HOME)
    expect(page.locator(".jp-Terminal .xterm-screen")).to_have_count(len(TERMINALS), timeout=OPEN_SECONDS * 1000)


def shown(page: Page, notebook: Path) -> None:
    """Wait until a notebook is seen: its title, drawn."""
    title = re.search(r"# ([^\\\"]+)", notebook.read_text())[1]
    page.locator(".jp-NotebookPanel:visible .jp-MarkdownOutput h1", has_text=title).wait_for(timeout=OPEN_SECONDS * 1000)


def typed(page: Page, told: Path, command: str) -> str:
    """Type a command into the student's terminal, which is the upper one, and return what it wrote."""
    highest = min(page.locator(".jp-Terminal:visible .xterm-screen").all(), key=lambda terminal: terminal.bounding_box()["y"])
    highest.click()
    page.keyboard.type(f"{{ {command}; }} > {told}; echo end >> {told}\n")
    deadline = time.monotonic() + OPEN_SECONDS
    while not (told.exists() and told.read_text().endswith("end\n")):
        assert time.monotonic() < deadline
        page.wait_for_timeout(100)
    return told.read_text().removesuffix("end\n")


def test_the_printed_url_opens_the_home_page_with_terminals_at_its_right(page: Page, served: tuple[Path, str]) -> None:
    page.goto(served[1])
    shown(page, course_map.HOME)
    expect(page.locator(".jp-Terminal .xterm-screen")).to_have_count(len(TERMINALS), timeout=OPEN_SECONDS * 1000)
    photograph(page, "home")
    notebook = page.locator(".jp-NotebookPanel:visible").bounding_box()
    places = [terminal.bounding_box() for terminal in page.locator(".jp-Terminal:visible").all()]
    assert len(places) == len(TERMINALS)
    assert all(place["x"] >= notebook["x"] + notebook["width"] for place in places)
    assert len({round(place["x"]) for place in places}) == 1, "one above the other"
    tabs = page.locator("#jp-main-dock-panel .lm-TabBar-tabLabel").all_inner_texts()
    assert tabs[0] == HOME
    assert typed(page, served[0] / "told", "labkit labs").startswith(f"2 {course_map.CHAPTERS['2']}\n")


def test_the_map_has_a_link_for_each_lab_and_a_click_opens_it(page: Page, served: tuple[Path, str]) -> None:
    opened(page, served[1])
    links = page.locator(".jp-NotebookPanel:visible .jp-OutputArea-output table a")
    expect(links).to_have_text([lab.title for lab in LABS], timeout=OPEN_SECONDS * 1000)  # JupyterLab draws what it shows by and by
    for lab in (LABS[0], LABS[-1]):
        page.locator("#jp-main-dock-panel .lm-TabBar-tabLabel", has_text=re.compile(f"^{HOME}$")).click()
        links.get_by_text(lab.title, exact=True).click()
        shown(page, lab.notebook())
        current = page.locator("#jp-main-dock-panel .lm-mod-current .lm-TabBar-tabLabel").all_inner_texts()
        assert Path(lab.file).name in current


def test_what_was_left_is_there_again(page: Page, served: tuple[Path, str]) -> None:
    """The tests before this one opened labs beside the home page, and typed into the terminal."""
    opened(page, served[1])
    mark = typed(page, served[0] / "mark", "echo $$")
    lab = LABS[0]
    page.locator(".jp-NotebookPanel:visible .jp-OutputArea-output table a").get_by_text(lab.title, exact=True).click()
    shown(page, lab.notebook())
    workspace, deadline = served[1].replace("/lab?", "/lab/api/workspaces/default?"), time.monotonic() + OPEN_SECONDS
    while json.loads(page.request.get(workspace).text())["data"]["layout-restorer:data"]["main"]["current"] != f"notebook:{lab.file}":
        assert time.monotonic() < deadline, "JupyterLab does not keep what is open"
        page.wait_for_timeout(100)
    page.goto("about:blank")
    page.goto(served[1])
    shown(page, lab.notebook())
    expect(page.locator(".jp-Terminal .xterm-screen")).to_have_count(len(TERMINALS), timeout=OPEN_SECONDS * 1000)
    assert typed(page, served[0] / "again", "echo $$") == mark, "the same shell"


def test_the_home_page_runs_from_top_to_bottom(page: Page, served: tuple[Path, str]) -> None:
    open_notebook(page, served[1], HOME)
    run_all(page)
    photograph(page, "home-run")
    assert errors(page) == []
    assert too_wide(page) == []


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_axe_core_finds_nothing_serious_in_the_home_page_and_a_lab(
    page: Page, served: tuple[Path, str], theme: str, told: Callable[[str, str], None]
) -> None:
    whole = {"@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"}}  # axe sees what is in the page
    choose(page, {"@jupyterlab/apputils-extension:themes": {"theme": f"JupyterLab {theme}"}, **whole})
    serious = []
    for name in (HOME, LABS[0].file):
        open_notebook(page, served[1], name)
        photograph(page, f"axe-{Path(name).stem}-{theme.lower()}")
        rules = audit.CONTRAST if theme == "Dark" else ()  # the others say the same in both
        found = [one for one in audit.look(page, OURS, rules) if one.serious]
        serious += [f"{name}: {one}" for one in found if one.ours]
        theirs = sorted({one.rule for one in found if not one.ours})
        row = f"{name} {theme}: ours {len(serious)} serious; JupyterLab's own: {', '.join(theirs) or 'none'}"
        told("axe-core in the running JupyterLab", row)
    assert serious == []
