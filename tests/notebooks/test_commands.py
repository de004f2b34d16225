"""Every command line of the course's labs is run in a notebook, or the data says in one line why not. Prints the table.

`tests/data/course/ID.txt` has a lab's command lines as the course writes them, one a line;
`COMMAND  ## REASON` is not run. No kernel runs here.
"""

import ast
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

from labkit.course import course_map

DATA = Path(__file__).parents[1] / "data/course"
IDS = ("4.5", "5.1", "5.2", "5.3", "6.1", "6.2", "6.3", "6.4", "7.1", "7.2", "8.1", "8.2", "9.1", "9.2")
"""The labs that run every command of the course, once they are written."""

LEAVE = "Ctrl p + Ctrl q"
"""How the course writes the keys that leave a container running: what `detach("^P^Q")` of a terminal presses."""

ENDS = frozenset(("\n", *"| || & && ; ;; ( ) < > >> << { } ! if then else until while do".split()))
"""Between two of these stands a command."""

NAME = re.compile(r"<[a-z_]+>")
"""In the data: what may be called otherwise. In a word it stands for a part of it; alone, for a `$(...)` too."""

HEADER = f"{'lab':<4} {'cell':<10} command"


@dataclass(frozen=True)
class Command:
    """A line of the data: what the course types, and why it is not run, or ""."""

    line: str
    reason: str


def read(file: Path) -> list[Command]:
    """Return the commands of a lab's data; lines that begin with `#` are remarks."""
    lines = [line for line in file.read_text().splitlines() if line.strip() and not line.startswith("#")]
    parts = [line.partition("  ## ") for line in lines]
    return [Command(line.strip(), reason.strip()) for line, _, reason in parts]


def words(script: str) -> list[str]:
    """Return the words of shell lines, and the signs between them; `sudo` is none, and a name that was given does not count."""
    script = re.sub(r"`([^`]*)`", r"$(\1)", script.replace("\\\n", " "))
    found: list[str] = []
    pending = ""
    for line in script.splitlines():
        pending += line
        try:
            found += [*_split(pending), "\n"]
        except ValueError:  # a quotation goes on in the next line
            pending += "\n"
        else:
            pending = ""
    return _without_names(found)


def _split(line: str) -> list[str]:
    lexer = shlex.shlex(re.sub(r"(^|\s)#\s.*$", "", line), posix=True, punctuation_chars=True)
    lexer.commenters, lexer.whitespace_split = "", True
    return list(lexer)


def _without_names(found: list[str]) -> list[str]:
    """Leave out `sudo`, and the option by which a container is given the name that the course leaves to chance."""
    kept: list[str] = []
    for before, word in zip(["", *found], found, strict=False):
        if word not in ("sudo", "--name") and before != "--name" and not word.startswith("--name="):
            kept.append(word)
    return kept


def is_run(wanted: list[str], typed: list[str]) -> bool:
    """Tell whether a command stands in the words, whole: between two signs, with what follows it or leads to it left aside."""
    starts = [at for at in range(len(typed)) if at == 0 or typed[at - 1] in ENDS or re.fullmatch(r"\w+=.*", typed[at - 1])]
    return any(_ends(wanted, typed, at) for at in starts)


def _ends(wanted: list[str], typed: list[str], at: int) -> bool:
    for word in wanted:
        if at >= len(typed):
            return False
        if word == "<>" and typed[at : at + 2] == ["$", "("]:
            at = _closed(typed, at + 1)
        elif not re.fullmatch(".+".join(map(re.escape, word.split("<>"))), typed[at]):
            return False
        at += 1
    return at >= len(typed) or typed[at] in ENDS or typed[at].isdigit()  # 2> is two words


def _closed(typed: list[str], at: int) -> int:
    depth = 0
    for place in range(at, len(typed)):
        depth += {"(": 1, ")": -1}.get(typed[place], 0)
        if depth == 0:
            return place
    return len(typed)


def pattern(line: str) -> list[str]:
    """Return the words of a line of the data; `<>` is a name that may be another."""
    return [word.replace("\0", "<>") for word in words(NAME.sub("\0", line))[:-1]]


def typed(cell: nbformat.NotebookNode) -> list[str]:
    """Return the words that a code cell types: its shell lines, or each text in its Python; keys that leave a container, too."""
    if cell.source.startswith("%%"):
        return words(cell.source.partition("\n")[2])
    found: list[str] = []
    for node in ast.walk(ast.parse(cell.source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += ["\n", *(words(LEAVE) if node.value == "^P^Q" else words(node.value))]
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "leave" and not node.args:
            found += ["\n", "exit"]
    return found


def places(lab: course_map.CourseLab) -> Iterator[tuple[Command, str]]:
    """Yield each command of a lab with the cell that runs it, or ""."""
    notebook = nbformat.read(lab.notebook(), as_version=4)
    cells = [(cell.id, typed(cell)) for cell in notebook.cells if cell.cell_type == "code"]
    for command in read(DATA / f"{lab.id}.txt"):
        yield command, next((name for name, found in cells if is_run(pattern(command.line), found)), "")


def test_every_command_of_the_course_is_run_or_has_its_reason(told: Callable[[str, str], None]):
    missing, idle = [], []
    for lab in course_map.written():
        if lab.id not in IDS and not (DATA / f"{lab.id}.txt").is_file():
            continue
        for command, cell in places(lab):
            told(HEADER, f"{lab.id:<4} {cell or '-':<10} {command.line}" + (f"   not run: {command.reason}" if not cell else ""))
            missing += [f"{lab.id}: {command.line}"] if not cell and not command.reason else []
            idle += [f"{lab.id}: {command.line}"] if cell and command.reason else []
    assert missing == [], "no cell runs it, and no reason is given"
    assert idle == [], "a cell runs it: its reason is to be struck"


@pytest.mark.parametrize(
    ("line", "cell", "found"),
    [
        ("sudo docker image ls", "%%lab\ndocker image ls | grep nginx", True),
        ("sudo docker image ls", "%%lab\ndocker image ls --all", False),
        ("sudo docker image ls", "%%lab\necho docker image ls", False),
        ("sudo docker image ls", "%%lab\n# docker image ls\ntrue", False),
        ("docker image ls", "%%lab --fails\nsudo docker image ls > list 2>&1 || true", True),
        ("docker container create nginx", "%%lab\nid=$(docker container create --name web nginx)", True),
        ("docker container start <name>", "%%lab\ndocker container start \\\n  $(docker container ls -q)", True),
        ("docker container start <name>", "%%lab\ndocker container start web more", False),
        ("docker container rm -f `docker container ls -q`", "%%lab\ndocker container rm -f $(docker container ls -q)", True),
        ("docker image push <host>:5000/alpine:training", "%%lab\ndocker image push localhost:5000/alpine:training", True),
        ("docker image push <host>:5000/alpine:training", "%%lab\ndocker image push localhost:5001/alpine:training", False),
        ("docker run alpine sh -c 'echo a; echo b'", '%%lab\ndocker run alpine sh -c "echo a; echo b"', True),
        ("docker run -it alpine sh", 'with lab.terminal("docker run -it alpine sh", name="one") as t:\n    t.run("ls")', True),
        ("ls", 'with lab.terminal("docker run -it alpine sh", name="one") as t:\n    t.run("ls")', True),
        (LEAVE, 't.detach("^P^Q")', True),
        (LEAVE, "t.detach()", False),
        ("exit", "t.leave()", True),
        ("docker container top <name>", "%%lab\nuntil docker container top web | grep -q worker; do true; done", True),
    ],
)
def test_a_command_is_found_where_it_is_typed_whole(line: str, cell: str, found: bool):
    assert is_run(pattern(line), typed(nbformat.v4.new_code_cell(cell))) is found
