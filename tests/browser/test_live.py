"""The live view in JupyterLab: it shows what is done in a terminal, by keys alone, in both themes, and says when the kernel has ended."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

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
    served,
    wait_until_idle,
)
from playwright.sync_api import Locator, Page, expect

__all__ = ["browser", "page", "served"]

PATIENCE = 20_000
SOURCES = [
    'from labkit import open_lab\nlab = open_lab("2.1")',
    'group = lab.cgroup("mycgroup")\nshell = lab.spawn("exec sleep 1000", name="clock")\ngroup.attach(shell)',
    "lab.live()",
]
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
    open_notebook(page, url, path.name)
    menu(page, "Run", "Run All Cells")
    view = page.locator(".lk-live")
    view.wait_for(timeout=60_000)
    wait_until_idle(page, 30)
    assert errors(page) == []
    expect(view.locator(".lk-state")).to_have_text(re.compile(r"^live, \d+ a second"), timeout=PATIENCE)
    yield page, view, path, request.param
    page.keyboard.press("Escape")
    if kernels():
        menu(page, "Kernel", "Shut Down Kernel")
    deadline = time.monotonic() + 20
    while kernels():
        assert time.monotonic() < deadline
        page.wait_for_timeout(100)
    subprocess.run([ROOT / ".venv/bin/labkit", "clean", "2.1"], check=True)  # a kernel that was killed has left its lab


def kernels() -> list[int]:
    """Return the kernels that run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"ipykernel_launcher" in command:
                found.append(int(entry.name))
    return found


def group() -> Path:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    roots = [Path(mount[1]) for mount in mounts if mount[2] == "cgroup2" or (mount[2] == "cgroup" and "freezer" in mount[3])]
    return next(found for root in roots if (found := root / "lab-2.1/mycgroup").is_dir())


def freeze(directory: Path, *, frozen: bool) -> str:
    """Return the line that a person types."""
    if (directory / "freezer.state").exists():
        return f"echo {'FROZEN' if frozen else 'THAWED'} > {directory}/freezer.state"
    return f"echo {int(frozen)} > {directory}/cgroup.freeze"


def type_in_a_terminal(page: Page, line: str) -> None:
    """Type a line in a terminal of JupyterLab."""
    page.evaluate("""async () => {
        const token = JSON.parse(document.getElementById('jupyter-config-data').textContent).token;
        const made = await (await fetch('/api/terminals', {method: 'POST', headers: {Authorization: `token ${token}`}})).json();
        window.terminal = new WebSocket(`ws://${location.host}/terminals/websocket/${made.name}?token=${token}`);
        await new Promise(done => { window.terminal.onmessage = done; });
    }""")
    page.evaluate("line => window.terminal.send(JSON.stringify(['stdin', line + '\\r']))", line)


def photograph(page: Page, view: Locator, name: str) -> None:
    if SCREENSHOTS:
        Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
        view.scroll_into_view_if_needed()
        page.screenshot(path=f"{SCREENSHOTS}/live-{name}.png")
        view.screenshot(path=f"{SCREENSHOTS}/live-{name}-whole.png")


def row(view: Locator) -> Locator:
    return view.locator("tr[data-key$='/lab-2.1/mycgroup']")


def test_a_live_view_shows_what_a_terminal_does_and_the_end_of_the_kernel(live: tuple[Page, Locator, Path, str]) -> None:
    page, view, path, theme = live
    expect(row(view)).to_contain_text("▶ running", timeout=PATIENCE)
    type_in_a_terminal(page, freeze(group(), frozen=True))
    expect(row(view)).to_contain_text("■ frozen", timeout=PATIENCE)
    expect(view.locator(".lk-news")).to_have_text(re.compile("mycgroup: running → fr"), timeout=PATIENCE)
    photograph(page, view, theme)

    view.focus()
    page.keyboard.press("p")
    expect(view.locator(".lk-state")).to_have_text(re.compile("^paused at .*"))
    for _ in range(60):
        if "▶ running" in row(view).text_content():
            break
        page.keyboard.press("ArrowLeft")
    expect(row(view)).to_contain_text("▶ running")
    expect(view.locator(".lk-state")).to_have_text(re.compile("s back$"))
    photograph(page, view, f"{theme}-back")
    page.keyboard.press("p")
    expect(row(view)).to_contain_text("■ frozen")

    row(view).locator("button.lk-ref").focus()
    page.keyboard.press("Enter")
    expect(view.locator(".lk-behind pre")).to_contain_text("FROZEN" if "freezer" in str(group()) else "cgroup.freeze: 1", timeout=PATIENCE)
    photograph(page, view, f"{theme}-behind")
    page.keyboard.press("Escape")
    expect(view.locator(".lk-behind")).to_be_hidden()
    view.get_by_role("button", name="manual page cgroups(7)").click()
    expect(view.locator(".lk-behind pre")).to_contain_text("cgroups(7)", timeout=PATIENCE)
    page.keyboard.press("Escape")

    page.wait_for_timeout(2500)  # the picture that is saved is refreshed every two seconds
    menu(page, "File", "Save Notebook")
    kernel = kernels()
    assert len(kernel) == 1
    os.kill(kernel[0], signal.SIGKILL)
    expect(view.locator(".lk-state")).to_have_text(re.compile("^The kernel has ended.*the last picture, of "), timeout=PATIENCE)
    expect(row(view)).to_contain_text("■ frozen")
    dismiss(page)
    photograph(page, view, f"{theme}-ended")
    stored = json.loads(path.read_text())["cells"][2]["outputs"]
    assert [set(output["data"]) for output in stored] == [{"text/plain", "text/html"}], "".join(stored[-1]["data"]["text/plain"])
    assert re.search(r"mycgroup +■ frozen", "".join(stored[0]["data"]["text/plain"]))


def dismiss(page: Page) -> None:
    """Take away what JupyterLab says of it, as well."""
    page.locator(".jp-Dialog .jp-mod-accept").click(timeout=PATIENCE)
