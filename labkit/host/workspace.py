"""What JupyterLab shows when it is opened: the home page at the left, the student's terminal and the live view at the right.

It is JupyterLab's own workspace: the student moves what is there, and it opens again as it was left.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labkit.host.jupyter import Server

HOME = "start.ipynb"
"""The notebook that is open at first, where the served directory has it."""

STUDENT, LIVE = "student", "live"
"""The names of the two terminals."""

_WHEN_SEEN = """
trap : INT WINCH
while [ "$(stty size)" = "24 80" ]; do sleep infinity & wait; kill $!; done
"$@"
exec "$BASH"
"""
"""Run a command once a page gives its terminal a size, and be a shell after it: what nobody sees costs nothing."""


def prepare(server: Server, live: Sequence[str] = ()) -> None:
    """Lay the default workspace out, unless there is one already, and have the terminal of the live view ready.

    Args:
        server: a JupyterLab that answers.
        live: the command of the live view; empty where there is none.
    """
    if live:
        shell = ["/bin/bash", "-c", _WHEN_SEEN, "bash", *live]
        _ask(server, "POST", "api/terminals", {"name": LIVE, "shell_command": shell})
    if (server.root / HOME).is_file() and not _ask(server, "GET", "lab/api/workspaces/default")["data"]:
        workspace = {"data": layout([STUDENT, *([LIVE] if live else [])]), "metadata": {"id": "default"}}
        _ask(server, "PUT", "lab/api/workspaces/default", workspace)


def layout(terminals: Sequence[str]) -> dict[str, Any]:
    """Return a workspace: the home page in the left part of the window, the terminals one above the other in the right part.

    Args:
        terminals: their names; JupyterLab makes those that do not run yet.
    """
    right = [_tab(f"terminal:{name}") for name in terminals]
    column = _split("vertical", right) if len(right) > 1 else right[0]
    main = {"dock": _split("horizontal", [_tab(f"notebook:{HOME}"), column], [0.58, 0.42]), "current": f"notebook:{HOME}"}
    sides = {side: {"collapsed": True, "visible": True, "widgets": []} for side in ("left", "right")}
    shown: dict[str, Any] = {f"terminal:{name}": {"data": {"name": name}} for name in terminals}
    shown[f"notebook:{HOME}"] = {"data": {"path": HOME, "factory": "Notebook"}}
    return {"layout-restorer:data": {"main": main, **sides, "relativeSizes": [0, 1, 0]}, **shown}


def _tab(widget: str) -> dict[str, Any]:
    return {"type": "tab-area", "currentIndex": 0, "widgets": [widget]}


def _split(orientation: str, children: Sequence[dict[str, Any]], sizes: Sequence[float] = ()) -> dict[str, Any]:
    even = [1 / len(children)] * len(children)
    return {"type": "split-area", "orientation": orientation, "sizes": list(sizes or even), "children": list(children)}


def _ask(server: Server, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Send a request to the server, by no proxy, and return what it answers."""
    address = f"http://127.0.0.1:{server.port}/{path}"
    headers = {"Authorization": f"token {server.token}", "Content-Type": "application/json"}
    request = urllib.request.Request(address, json.dumps(body).encode() if body else None, headers, method=method)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
        told: dict[str, Any] = json.loads(answer.read() or b"{}")
        return told
