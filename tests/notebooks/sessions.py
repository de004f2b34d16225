"""A real Jupyter kernel to run cells in, and what they print."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from jupyter_client import BlockingKernelClient
from jupyter_client.manager import KernelManager

HERE = Path(__file__).parent


@dataclass
class Ran:
    """What one cell put out.

    Attributes:
        outputs: the messages, in order: (type, content).
        error: "NAME: VALUE" where the cell failed, else "".
    """

    outputs: list[tuple[str, dict]] = field(default_factory=list)
    error: str = ""

    @property
    def stdout(self) -> str:
        return "".join(content["text"] for kind, content in self.outputs if kind == "stream" and content["name"] == "stdout")

    @property
    def displays(self) -> list[dict]:
        return [content["data"] for kind, content in self.outputs if kind in ("display_data", "execute_result")]

    @property
    def text(self) -> str:
        """Everything readable, in order."""
        parts = [content.get("text") or content.get("data", {}).get("text/plain", "") for _, content in self.outputs]
        return "\n".join(parts)


class Session:
    """One kernel.

    Args:
        cwd: its working directory.
    """

    def __init__(self, cwd: Path = HERE, **environment: str) -> None:
        path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH", "")]))
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(cwd=str(cwd), env={**os.environ, "PYTHONPATH": path, **environment})
        self.client: BlockingKernelClient = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    @property
    def pid(self) -> int:
        return self.manager.provisioner.process.pid

    def run(self, source: str, timeout: float = 120) -> Ran:
        """Run a cell to its end; an error in it is in `Ran.error`."""
        return self.finish(self.begin(source), timeout)

    def ok(self, source: str, timeout: float = 120) -> Ran:
        """Run a cell that must not fail."""
        ran = self.run(source, timeout)
        assert not ran.error, f"{source}\n{ran.error}\n{ran.text}"
        return ran

    def begin(self, source: str) -> str:
        """Send a cell and do not wait."""
        return self.client.execute(source, allow_stdin=False)

    def message(self, timeout: float = 60) -> dict:
        """Return the next message that the kernel publishes."""
        return self.client.get_iopub_msg(timeout=timeout)

    def finish(self, sent: str, timeout: float = 120, ran: Ran | None = None) -> Ran:
        """Collect what a cell puts out until it is done, and its reply."""
        ran = self.collect(sent, timeout, ran)
        self.client.get_shell_msg(timeout=timeout)
        return ran

    def collect(self, sent: str, timeout: float = 120, ran: Ran | None = None) -> Ran:
        """Collect what a cell puts out until the kernel is idle."""
        ran = ran or Ran()
        while True:
            message = self.message(timeout)
            if message["parent_header"].get("msg_id") != sent:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                return ran
            if kind in ("stream", "display_data", "execute_result", "error"):
                ran.outputs.append((kind, content))
            if kind == "error":
                ran.error = f"{content['ename']}: {content['evalue']}"

    def interrupt(self) -> None:
        self.manager.interrupt_kernel()

    def kill(self) -> None:
        """End the kernel as a crash does."""
        os.kill(self.pid, signal.SIGKILL)
        self.manager.provisioner.process.wait()
        self.close()

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@contextmanager
def session(cwd: Path = HERE, **environment: str) -> Iterator[Session]:
    """Give a kernel for the `with` block."""
    one = Session(cwd, **environment)
    try:
        yield one
    finally:
        one.close()


OPEN = 'import trial_lab\nfrom labkit import expect, open_lab\nlab = open_lab("9.2")'
"""The first cell of a throw-away notebook."""


def cells(notebook: Path) -> list[str]:
    return [cell.source for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]


def sections(notebook: Path) -> list[list[str]]:
    """Return the code cells by section: a `## ` heading begins one. What stands before the first is the opening."""
    found: list[list[str]] = [[]]
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "code":
            found[-1].append(cell.source)
        elif any(line.startswith("## ") for line in cell.source.splitlines()):
            found.append([])
    return [section for section in found if section]
