"""What stands under the cells is what a person types: the lines of each lab, typed into a plain bash, change the kernel alike."""

import dataclasses
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from labkit.course import course_map
from labkit.course.canonical import canonical
from labkit.course.course_map import CourseLab
from labkit.course.lab import Lab, open_lab
from labkit.course.validate import Validation
from labkit.kernel import processes
from labkit.kernel.processes.process import Process
from labkit.kernel.snapshot import diff, snapshot
from labkit.kernel.state import Change, Snapshot

PATIENCE = 10.0


def comparable(changes: list[list[str | None]], names: set[str]) -> set[tuple[str, ...]]:
    """Return changes without what is chance, and without processes that have no name in the lab: its shells, its tools.

    A namespace is called after the first process in it, which may be the unshare(1) that was typed: its kind is compared.
    """
    kept = set()
    for word, kind, *values in changes:
        if kind == "process" and values[0] not in names:
            continue
        texts = [re.sub(r"/processes/[\w.-]+", "/processes/TRACKER", canonical(str(value))) for value in values]
        texts[0] = re.sub(r"\b(\w+) of [\w. ()-]+$", r"\1 of PROCESS", texts[0])
        kept.add((str(word), str(kind), *texts))
    return kept


class Typist:
    """A plain bash that gets the lines typed, inside the lab's part of the cgroup hierarchy so that what it starts is seen."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder, self.number = lab, folder, 0
        read, self.keys = os.pipe()
        environment = lab.environment()
        self.bash: Process = processes.start(
            ["bash", "--norc", "--noprofile"], name="typed", stdin=read, stdout=folder / "log", cwd=lab.directory, env=environment
        )
        os.close(read)

    def type(self, lines: str) -> None:
        """Type lines and wait until bash is ready for more."""
        self.number += 1
        script = self.folder / f"{self.number}.sh"
        script.write_text(lines + "\n")
        os.write(self.keys, f". {script} < /dev/null\nprintf '\\ndone-%s\\n' {self.number}\n".encode())
        self.bash.wait_output(rf"^done-{self.number}$", timeout=120)

    def close(self) -> None:
        """Let go of the keyboard, and end what was typed."""
        os.close(self.keys)
        self.bash.kill()
        del self.bash  # its pidfd goes with it

    def said(self) -> str:
        """Return the last of what bash and its commands printed."""
        return "\n".join(line for line in self.bash.output().splitlines() if not line.startswith("done-"))[-2000:]

    def pids(self, names: set[str]) -> dict[int, str]:
        """Return the pids that bash knows by the names of the lab's processes."""
        known = {}
        asked = self.folder / "pids"
        self.type("\n".join([f"> {asked}", *(f'echo "{name} ${{{name}:-}}" >> {asked}' for name in sorted(names))]))
        for line in asked.read_text().splitlines():
            name, _, pid = line.partition(" ")
            if pid.strip().isdigit():
                known[int(pid)] = name
        return known

    def snapshot(self, names: set[str]) -> Snapshot:
        """Return the kernel's state with the processes called as the lab calls them."""
        known = self.pids(names)
        now = snapshot()
        renamed = tuple(dataclasses.replace(one, name=known.get(one.pid, one.name)) for one in now.processes)
        return dataclasses.replace(now, processes=renamed)


@pytest.fixture(params=course_map.written(), ids=lambda lab: lab.id)
def recorded(request: pytest.FixtureRequest, fresh_run: Callable[[CourseLab], tuple[Validation, list[dict]]]) -> tuple[str, list[dict]]:
    """Return the lab's id and what its cells recorded."""
    _, cells_recorded = fresh_run(request.param)
    return request.param.id, cells_recorded


@pytest.fixture
def typist(recorded: tuple[str, list[dict]], tmp_path: Path) -> Iterator[Typist]:
    with open_lab(recorded[0]) as lab, closing(Typist(lab, tmp_path)) as one:
        yield one


def flat(word: str, changes: tuple[Change, ...]) -> list[list[str | None]]:
    return [[word, one.kind, one.name, one.attribute, one.before, one.after] for one in changes]


def test_the_typed_lines_change_the_kernel_alike(recorded: tuple[str, list[dict]], typist: Typist):
    _, cells_recorded = recorded
    *during, last = cells_recorded
    names = set(re.findall(r"(?m)\b(\w+)=\$[!(]", "\n".join(cell["shell"] for cell in during)))
    differing = []
    for cell in during:
        expected = comparable(cell["changes"], names)
        if not cell["shell"]:
            assert not expected, f"cell {cell['cell']} changed something, and nothing says how that is typed: {expected}"
            continue
        before = typist.snapshot(names)
        typist.type(cell["shell"])
        deadline = time.monotonic() + PATIENCE
        while (measured := changes_since(typist, before, names)) != expected and time.monotonic() < deadline:
            time.sleep(0.05)  # what was typed with & takes its time
        if measured != expected:
            differing.append((cell["cell"], cell["shell"], sorted(expected - measured), sorted(measured - expected)))
    assert differing == [], typist.said()
    assert not last["shell"], "closing is the lab's own work"


def changes_since(typist: Typist, before: Snapshot, names: set[str]) -> set[tuple[str, ...]]:
    difference = diff(before, typist.snapshot(names))
    changes = [each for word in ("appeared", "went", "changed") for each in flat(word, getattr(difference, word))]
    return comparable(changes, names)
