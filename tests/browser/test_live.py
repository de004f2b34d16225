"""The live view in JupyterLab: it shows what is done in a terminal, by keys alone, in both themes, and says when the kernel has ended."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle, pairwise
from pathlib import Path

import nbconvert
import nbformat
import psutil
import pytest
from browser.test_notebooks_in_jupyterlab import (
    ROOT,
    SCREENSHOTS,
    browser,
    choose_theme,
    errors,
    menu,
    open_notebook,
    page,
    photograph,
    served,
    wait_until_idle,
)
from playwright.sync_api import Locator, Page, expect

from website import audit

__all__ = ["browser", "page", "served"]

PATIENCE = 20_000
SOURCES = [
    'from labkit import open_lab\nlab = open_lab("2.1")',
    'group = lab.cgroup("mycgroup")\nshell = lab.spawn("exec sleep 1000", name="clock")\ngroup.attach(shell)',
    "lab.live()",
]
FROZEN = re.compile(r"mycgroup +■ frozen")
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}


def notebook(sources: list[str]) -> str:
    cells = [
        {"cell_type": "code", "id": f"cell-{n}", "metadata": {}, "execution_count": None, "outputs": [], "source": source}
        for n, source in enumerate(sources)
    ]
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    return json.dumps({"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5})


@pytest.fixture(params=THEMES)
def live(request: pytest.FixtureRequest, page: Page, served: tuple[Path, str]) -> Iterator[tuple[Page, Locator, Path, str]]:
    """Open a notebook with a live view in a theme, run it, and wait for the first frame."""
    copy, url = served
    path = copy / f"live-{request.param}.ipynb"
    path.write_text(notebook(SOURCES))
    choose_theme(page, THEMES[request.param])
    with looked_at(page, url, path.name) as view:
        yield page, view, path, request.param


@contextmanager
def looked_at(page: Page, url: str, name: str) -> Iterator[Locator]:
    """Open a notebook with a live view, run it, and wait for the first frame; its kernel and its lab are gone afterwards."""
    open_notebook(page, url, name)
    menu(page, "Run", "Run All Cells")
    view = page.locator(".lk-live")
    view.wait_for(timeout=60_000)
    wait_until_idle(page, 30)
    assert errors(page) == []
    expect(view.locator(".lk-state")).to_have_text(re.compile(r"^live, \d+ a second"), timeout=PATIENCE)
    yield view
    end_kernels(page, url)
    subprocess.run([ROOT / ".venv/bin/labkit", "clean", "2.1"], check=True)  # a kernel that was killed has left its lab


def end_kernels(page: Page, url: str) -> None:
    """Have JupyterLab end the kernel of each notebook that is open."""
    page.goto("about:blank")
    server, token = url.partition("/lab?token=")[::2]
    named = {"Authorization": f"token {token}"}

    def ended() -> bool:
        for session in page.request.get(f"{server}/api/sessions", headers=named).json():
            page.request.delete(f"{server}/api/sessions/{session['id']}", headers=named)
        return not kernels()

    until(page, ended)


def until(page: Page, reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE / 1000
    while not reached():
        assert time.monotonic() < deadline
        page.wait_for_timeout(100)


def kernels() -> list[int]:
    """Return the kernels that run."""
    return programs("ipykernel_launcher")


def collectors() -> list[int]:
    """Return the collectors that run for this state directory's live views."""
    return programs("labkit.kernel.live")


def programs(word: str) -> list[int]:
    return [one.pid for one in psutil.process_iter(["cmdline"]) if word in (one.info["cmdline"] or [])]


def group() -> Path:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    roots = [Path(mount[1]) for mount in mounts if mount[2] == "cgroup2" or (mount[2] == "cgroup" and "freezer" in mount[3])]
    return next(found for root in roots if (found := root / "lab-2.1/mycgroup").is_dir())


def freeze(directory: Path, *, frozen: bool) -> str:
    """Return the line that a person types."""
    if (directory / "freezer.state").exists():
        return f"echo {'FROZEN' if frozen else 'THAWED'} > {directory}/freezer.state"
    return f"echo {int(frozen)} > {directory}/cgroup.freeze"


def expect_state(page: Page, directory: Path, *, frozen: bool) -> None:
    """Wait until the kernel says that the group has come to rest, or runs again."""
    one = directory / "freezer.state"
    if one.exists():
        until(page, lambda: one.read_text().strip() == ("FROZEN" if frozen else "THAWED"))
    else:
        until(page, lambda: f"frozen {int(frozen)}" in (directory / "cgroup.events").read_text())


def type_in_a_terminal(page: Page, line: str) -> None:
    """Type a line in a terminal of JupyterLab."""
    page.evaluate("""async () => {
        const token = JSON.parse(document.getElementById('jupyter-config-data').textContent).token;
        const made = await (await fetch('/api/terminals', {method: 'POST', headers: {Authorization: `token ${token}`}})).json();
        window.terminal = new WebSocket(`ws://${location.host}/terminals/websocket/${made.name}?token=${token}`);
        await new Promise(done => { window.terminal.onmessage = done; });
    }""")
    page.evaluate("line => window.terminal.send(JSON.stringify(['stdin', line + '\\r']))", line)


def taken(page: Page, view: Locator, name: str) -> None:
    """Keep a picture of the page with the view in it, and of the whole view."""
    view.scroll_into_view_if_needed()
    photograph(page, f"live-{name}")
    view.screenshot(path=SCREENSHOTS / f"live-{name}-whole.png")


def row(view: Locator) -> Locator:
    return view.locator("tr[data-key$='/lab-2.1/mycgroup']")


def test_a_live_view_shows_what_a_terminal_does_and_the_end_of_the_kernel(live: tuple[Page, Locator, Path, str]) -> None:
    page, view, path, theme = live
    expect(row(view)).to_contain_text("▶ running", timeout=PATIENCE)
    type_in_a_terminal(page, freeze(group(), frozen=True))
    expect(row(view)).to_contain_text("■ frozen", timeout=PATIENCE)
    expect(view.locator(".lk-news")).to_have_text(re.compile("mycgroup: running → fr"), timeout=PATIENCE)
    taken(page, view, theme)

    view.focus()
    page.keyboard.press("p")
    expect(view.locator(".lk-state")).to_have_text(re.compile("^paused at .*"))
    for _ in range(60):
        if "▶ running" in row(view).text_content():
            break
        page.keyboard.press("ArrowLeft")
    expect(row(view)).to_contain_text("▶ running")
    expect(view.locator(".lk-state")).to_have_text(re.compile("s back$"))
    taken(page, view, f"{theme}-back")
    page.keyboard.press("p")
    expect(row(view)).to_contain_text("■ frozen")

    row(view).locator("button.lk-ref").focus()
    page.keyboard.press("Enter")
    expect(view.locator(".lk-behind pre")).to_contain_text("FROZEN" if "freezer" in str(group()) else "cgroup.freeze: 1", timeout=PATIENCE)
    taken(page, view, f"{theme}-behind")
    page.keyboard.press("Escape")
    expect(view.locator(".lk-behind")).to_be_hidden()
    view.get_by_role("button", name="manual page cgroups(7)").click()
    expect(view.locator(".lk-behind pre")).to_contain_text("cgroups(7)", timeout=PATIENCE)
    page.keyboard.press("Escape")

    assert [str(one) for one in audit.look(page, ".lk-live") if one.ours and one.serious] == []
    saved(page, path)
    assert len(collectors()) == 1
    kernel = kernels()
    assert len(kernel) == 1
    os.kill(kernel[0], signal.SIGKILL)
    expect(view.locator(".lk-state")).to_have_text(re.compile("^The kernel has ended.*the last picture, of "), timeout=PATIENCE)
    expect(row(view)).to_contain_text("■ frozen")
    dismiss(page)
    taken(page, view, f"{theme}-ended")
    until(page, lambda: not collectors())
    stored = json.loads(path.read_text())["cells"][2]["outputs"]
    assert [set(output["data"]) for output in stored] == [{"text/plain", "text/html"}], "".join(stored[-1]["data"]["text/plain"])
    assert FROZEN.search("".join(stored[0]["data"]["text/plain"]))
    without_a_kernel(page, path, theme)


def saved(page: Page, path: Path) -> None:
    """Save the notebook until the picture in it is the last one: that is refreshed every two seconds."""

    def kept() -> bool:
        menu(page, "File", "Save Notebook")
        outputs = json.loads(path.read_text())["cells"][2]["outputs"]
        return any(FROZEN.search("".join(output["data"].get("text/plain", ""))) for output in outputs)

    until(page, kept)


def without_a_kernel(page: Page, path: Path, theme: str) -> None:
    """See the last picture and its text where no program of the page runs: as nbviewer and a PDF show it, and without trust."""
    (stored := nbformat.read(path, as_version=4)).cells[0].source += "  # changed by somebody else"
    page_of_nbviewer, _ = nbconvert.HTMLExporter().from_notebook_node(stored)
    still = page.context.browser.new_context(java_script_enabled=False).new_page()
    still.set_content(page_of_nbviewer)
    still.emulate_media(media="print")
    row = still.locator(".labkit-live tr", has_text="mycgroup")
    expect(row.first).to_contain_text("■ frozen")
    expect(row.first).to_be_visible()
    assert still.pdf().startswith(b"%PDF")
    still.locator(".labkit-live").screenshot(path=SCREENSHOTS / f"live-{theme}-nbviewer.png")
    still.context.close()
    tex, _ = nbconvert.LatexExporter().from_notebook_node(stored)
    assert FROZEN.search(tex)

    stranger = path.with_name(f"stranger-{path.name}")
    nbformat.write(stored, stranger)
    page.goto(page.url.replace(path.name, stranger.name).replace(f"live-{theme}-ipynb", f"stranger-{theme}") + "?reset")
    row = page.locator(".jp-NotebookPanel:visible .labkit-live tr", has_text="mycgroup")
    expect(row.first).to_contain_text("■ frozen", timeout=PATIENCE)
    assert page.locator(".lk-live").count() == 0
    taken(page, page.locator(".jp-NotebookPanel:visible .labkit-live"), f"{theme}-untrusted")


def test_who_prefers_reduced_motion_gets_a_picture_a_second_and_the_last_one_too(page: Page, served: tuple[Path, str]) -> None:
    copy, url = served
    (copy / "calm.ipynb").write_text(notebook(SOURCES))
    page.emulate_media(reduced_motion="reduce")
    with looked_at(page, url, "calm.ipynb") as view:
        view.evaluate("""view => {
            window.drawn = [];
            const note = () => { if (Date.now() - (window.drawn.at(-1) ?? 0) > 50) window.drawn.push(Date.now()); };
            const part = view.querySelector('[data-part="cgroups"]');
            new MutationObserver(note).observe(part, {childList: true, subtree: true, characterData: true});
        }""")
        for frozen in cycle((True, False)):
            subprocess.run(freeze(group(), frozen=frozen), shell=True, check=True)
            expect_state(page, group(), frozen=frozen)
            if frozen and page.evaluate("window.drawn.length") >= 3:
                break
        expect(row(view)).to_contain_text("■ frozen", timeout=PATIENCE)
        drawn = page.evaluate("window.drawn")
        assert all(later - earlier >= 900 for earlier, later in pairwise(drawn)), drawn


def test_nothing_is_collected_for_who_looks_elsewhere(page: Page, served: tuple[Path, str]) -> None:
    copy, url = served
    (copy / "away.ipynb").write_text(notebook([*SOURCES, "# a last cell"]))
    with looked_at(page, url, "away.ipynb") as view:
        assert len(collectors()) == 1
        page.locator(".jp-NotebookPanel:visible .jp-WindowedPanel-outer").evaluate("panel => panel.style.display = 'none'")
        until(page, lambda: not collectors())
        page.locator(".jp-NotebookPanel .jp-WindowedPanel-outer").evaluate("panel => panel.style.display = ''")
        until(page, lambda: len(collectors()) == 1)
        expect(view.locator(".lk-state")).to_have_text(re.compile("^live"), timeout=PATIENCE)
        page.goto("about:blank")
        until(page, lambda: not collectors())


def dismiss(page: Page) -> None:
    """Take away what JupyterLab says of it, as well."""
    page.locator(".jp-Dialog .jp-mod-accept").click(timeout=PATIENCE)
