"""`labkit cri`: any call of the CRI from a terminal, its request and its answer as JSON with the interface's field names."""

from __future__ import annotations

import difflib
import json
import sys
from pathlib import Path
from typing import Any

import click

from labkit.errors import LabError


@click.command()
@click.option("--socket", envvar="CONTAINER_RUNTIME_ENDPOINT", help="Whom to ask; crictl's variable is taken, too. [default: containerd]")
@click.option("--timeout", type=float, default=60.0, show_default=True, help="Seconds that the answer may take.")
@click.argument("call")
@click.argument("fields", default="{}")
def cri(call: str, fields: str, socket: str | None, timeout: float) -> None:
    """Make a CALL of the CRI, such as Version, and print the answer.

    FIELDS is the request as JSON; - reads it from standard input.
    """
    from labkit.host.services import places
    from labkit.runtimes.cri.client import Client

    request = _request(_known(call), sys.stdin.read() if fields == "-" else fields)
    with Client(Path(socket.removeprefix("unix://")) if socket else places().containerd) as client:
        answer = client.call(call, timeout, **request)
    click.echo(json.dumps(answer, indent=2, ensure_ascii=False))


def _known(call: str) -> str:
    """Return the name of a call, if there is one.

    Raises:
        LabError: there is none of this name.
    """
    from labkit.runtimes.cri.messages import CALLS

    names = [name for calls in CALLS.values() for name in calls]
    if call not in names:
        near = difflib.get_close_matches(call, names, 1)
        raise LabError(f"the labs know no call {call!r} of the CRI", remedy=f"{near[0]}?" if near else f"one of {', '.join(names)}")
    return call


def _request(call: str, text: str) -> dict[str, Any]:
    try:
        request = json.loads(text)
    except ValueError as error:
        raise LabError(f"{call}: the request is not JSON: {error}") from error
    if not isinstance(request, dict):
        raise LabError(f"{call}: the request must be an object of JSON", remedy='such as \'{"verbose": true}\'')
    return request
