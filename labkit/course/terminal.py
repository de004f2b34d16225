"""An interactive session on a real pseudo-terminal, driven from a cell as by the hands of a person."""

from __future__ import annotations

import os
import re
import shlex
import termios
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pexpect
import pexpect.fdpexpect

from labkit import trace
from labkit.course.presenting import say
from labkit.errors import LabError
from labkit.kernel import processes

if TYPE_CHECKING:
    from labkit.course.workplace import Workplace
    from labkit.kernel.processes.process import Process

SHELLS = ("bash", "sh", "dash", "ash", "busybox")
PROMPT = "lab# "
ANY_PROMPT = r"[#$] (?:\x1b\[[0-9;?]*[A-Za-z])*$"
"""What shells print when they wait for a line, unless somebody has told them what to print; some ask then where the cursor is."""
INSIST = ("docker", "podman", "runc")
"""Programs that run nothing interactive where there is no terminal: where what they are told comes from a pipe, script(1) makes one."""
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[=>()][A-Z0-9]?)")


class Terminal:
    """One session. Leaving its `with` block ends it, unless it was detached.

    Args:
        process: what runs in it, on a pseudo-terminal.
        master: descriptor of our side of the pseudo-terminal.
        prompt: regular expression of what it prints when it waits for a line; "" where it has none.
    """

    def __init__(self, process: Process, master: int, prompt: str) -> None:
        self.process = process
        self.prompt = prompt
        self.detached = False
        # poll(2): select(2) knows no descriptor above 1023, and readings of cgroups keep many open
        self._child = pexpect.fdpexpect.fdspawn(master, encoding="utf-8", codec_errors="replace", timeout=10, use_poll=True)

    @classmethod
    def open(
        cls,
        place: Workplace,
        command: str,
        name: str,
        *,
        prompt: str | None = None,
        patience: float = 60,
        typed: str = "",
        wake: str = "",
        **options: Any,
    ) -> Terminal:
        """Start `command` on a new pseudo-terminal and wait at most `patience` seconds until it asks for a line.

        Args:
            place: the lab.
            command: what to run; a shell reads it first where it has a `$`: a variable of the lab, or `$(cat pod.uuid)`.
            name: how lab and shell lines call it.
            prompt: regular expression of what it prints when it waits for a line; None for a shell's.
            patience: seconds.
            typed: how a person types the command, where `options` do a part of it.
            wake: keys to press first, where what is there already waits in silence: "^M" for a shell that somebody left.
            options: of `kernel.processes.start`.
        """
        program = os.path.basename(shlex.split(command)[0])
        argv, typed = (["sh", "-c", f"exec {command}"], typed or command) if "$" in command else (shlex.split(command), typed)
        environment = {**place.environment(), "PS1": PROMPT, "HISTFILE": ""}
        if os.path.basename(argv[0]) == "bash" and len(argv) == 1:
            argv = ["bash", "--norc", "--noprofile", "--noediting", "-i"]
        line = f"exec {{{name}_in}}> >({_typed(argv, typed, options.get('cwd'), place)} > $LAB/{name}.log 2>&1); {name}=$!"
        if "pid" in options.get("new", ()):  # unshare(1) stays outside
            line += f"; until {name}=$(pgrep -P $!); do sleep 0.1; done"
        if program in INSIST and prompt != "":  # what is typed before the prompt may be taken by nobody
            press = f"; {_pressed(wake, name)}" if wake else ""
            line = f": > $LAB/{name}.log; {line}{press}; until grep -q '[]#$] ' $LAB/{name}.log; do sleep 0.1; done"
        options = {"cwd": place.directory, "env": environment, **options}
        process = processes.start(argv, name=name, tty=True, shell_line=line, **options)
        if process.master is None:
            raise LabError(f"{name} has no pseudo-terminal")
        terminal = cls(process, process.master, re.escape(PROMPT) if prompt is None else prompt)
        if wake:
            terminal.press(wake)
        if prompt is None and os.path.basename(argv[0]) != "bash":
            terminal.expect(ANY_PROMPT, patience)  # what is typed before that may be thrown away
            awake = "; echo awa''ke" if wake else ""
            terminal.send(f"PS1='{PROMPT[:2]}''{PROMPT[2:]}'{awake}")  # in two parts, so that its echo is not taken for the prompt
            if wake:  # it may have been given this prompt before, and have shown it twice: once woken, once told its new width
                terminal.expect(r"awake\r?\n", patience)
        if terminal.prompt:
            terminal.expect(terminal.prompt, patience)
        if os.path.basename(argv[0]) == "bash":
            _without_echo(process.master)
        return terminal

    @property
    def name(self) -> str:
        """How lab and shell lines call it."""
        return self.process.name

    @property
    def pid(self) -> int:
        """The process that reads what is typed."""
        return self.process.pid

    def output(self) -> str:
        """Return all that was printed since the last `expect` or `run`; neither waits nor forgets it.

        What was typed is there only where the terminal echoes it (bash is run without); prompts are left out.
        """
        while self._child.isalive():
            try:
                self._child.buffer += self._child.read_nonblocking(size=4096, timeout=0)
            except (pexpect.TIMEOUT, pexpect.EOF, OSError):
                break
        return re.sub(rf"(?m)^(?:{self.prompt})+", "", clean(self._child.buffer)) if self.prompt else clean(self._child.buffer)

    @property
    def alive(self) -> bool:
        """Whether what runs in it still does."""
        return bool(self.process.alive)

    def send(self, line: str) -> None:
        """Type a line and press Enter."""
        self._must_be_alive()
        self._child.send(line + "\n")

    def press(self, keys: str) -> None:
        """Press keys without Enter; "^C" stands for Ctrl-C."""
        self._must_be_alive()
        self._child.send(_characters(keys))

    def expect(self, pattern: str, timeout: float = 60) -> str:
        """Wait until the session prints something that matches, and return what it printed before that.

        Args:
            pattern: regular expression.
            timeout: seconds.

        Raises:
            LabError: it did not come in time, or the session ended before.
        """
        try:
            self._child.expect(pattern, timeout=timeout)
        except pexpect.TIMEOUT:
            seen = clean(self._child.before or "")[-200:]
            raise LabError(f"{self.process.name} did not print {pattern!r} in {timeout:g} s", cause=f"it printed {seen!r}") from None
        except (pexpect.EOF, OSError):
            said = clean(str(self._child.before or "")).strip()[-200:]
            cause = f"it printed {said!r}" if said else None
            raise LabError(f"{self.process.name} ended before it printed {pattern!r}", cause=cause) from None
        return clean(str(self._child.before or ""))

    def log_in(self, user: str, timeout: float = 60) -> None:
        """Type a user's name at a login prompt, and go on in that user's shell.

        Args:
            user: one that needs no password.
            timeout: seconds until the shell waits for a line; the first login of a slow machine takes them.
        """
        trace.record(f"echo {user} >&${self.process.name}_in")
        self.send(user)
        self.expect(ANY_PROMPT, timeout)
        self.send(f"TERM=dumb PS1='{PROMPT[:2]}''{PROMPT[2:]}' exec bash --norc --noprofile --noediting")
        self.prompt = re.escape(PROMPT)
        self.expect(self.prompt, timeout)

    def run(self, line: str, timeout: float = 30) -> str:
        """Type a line, wait for the next prompt, and show and return what came.

        Args:
            line: what to type.
            timeout: seconds to wait for the prompt.
        """
        trace.record(f"echo {shlex.quote(line)} >&${self.process.name}_in")
        self.send(line)
        printed = self.expect(self.prompt, timeout).split("\n")
        if printed and printed[0].strip() == line.strip():
            del printed[0]  # the terminal's echo of what was typed
        output = "\n".join(printed).rstrip("\n")
        say(f"{PROMPT}{line}\n" + (output + "\n" if output else ""))
        return output

    def detach(self, keys: str = "") -> None:
        """Leave the session without ending what runs in it.

        Args:
            keys: those by which the program itself lets go, such as "^P^Q" for docker; it ends then, its container does not.
                Without keys we only look away: the same name opens the session again.
        """
        self.detached = True
        if keys:
            trace.record(f"{_pressed(keys, self.name)}; {self._gone()}")
            self.press(keys)
            self.process.wait(timeout=60)

    def leave(self, line: str = "exit", timeout: float = 30) -> None:
        """Type the line by which the session ends, and wait until it has.

        Args:
            line: what to type.
            timeout: seconds.

        Raises:
            LabError: it did not end in time.
        """
        trace.record(f"echo {shlex.quote(line)} >&${self.name}_in; {self._gone()}")
        self.send(line)
        self.process.wait(timeout)
        self.detached = True
        say(f"{PROMPT}{line}\n" if self.prompt == re.escape(PROMPT) else f"{line}\n")

    def _gone(self) -> str:
        return f"wait ${self.name} || true; exec {{{self.name}_in}}>&-"

    def close(self) -> None:
        """End the session and what runs in it."""
        name = self.process.name
        trace.record(f"exec {{{name}_in}}>&-; kill -KILL ${name}", calls=("pidfd_send_signal(pidfd, SIGKILL, NULL, 0)",))
        with trace.silent():  # told above, with the shell's end of the terminal
            self.process.kill()

    def __enter__(self) -> Terminal:
        self.detached = False
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if not self.detached or error is not None:
            self.close()

    def _must_be_alive(self) -> None:
        if not self.alive:
            raise LabError(f"the session {self.process.name} has ended", cause=f"exit status {self.process.status}")


def _typed(argv: list[str], typed: str, cwd: Path | str | None, place: Workplace) -> str:
    """Return how a person types the command, the directory in which it starts included."""
    there = f"cd {shlex.quote(os.path.relpath(cwd, place.directory))}; " if cwd else ""
    if os.path.basename(argv[0]) in INSIST:
        return f"exec script -qec {shlex.quote(there + shlex.join(['exec', *argv]))} /dev/null"
    if typed.split()[:1] and os.path.basename(typed.split()[0]) in INSIST:  # with a variable in it, which the shell in there reads
        return f"exec script -qec {shlex.quote(f'{there}exec {typed}')} /dev/null"
    return f"{there}exec {typed or shlex.join(argv)}"


def _characters(keys: str) -> str:
    return re.sub(r"\^([@-_])", lambda match: chr(ord(match.group(1)) - 64), keys)


def _pressed(keys: str, name: str) -> str:
    """Return the line that presses keys."""
    octal = "".join(f"\\{ord(one):03o}" if not one.isprintable() else one for one in _characters(keys))
    return f"printf {shlex.quote(octal)} >&${name}_in"


def _without_echo(master: int) -> None:
    """Let the terminal print only what programs print: the cell has what was typed."""
    attributes = termios.tcgetattr(master)
    attributes[3] &= ~termios.ECHO
    termios.tcsetattr(master, termios.TCSANOW, attributes)


def clean(text: str) -> str:
    """Return what a terminal was sent, without escape sequences and carriage returns."""
    return _ESCAPES.sub("", text).replace("\r\n", "\n").replace("\r", "")
