"""The errors of the lab: what was tried, what the kernel said, and a cause only where it was measured."""

from __future__ import annotations

import errno as errno_names
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass


class LabError(Exception):
    """Say in one line what is wrong; every error that labkit raises on purpose is one.

    Args:
        message: the first line: lower case, no full stop, the thing named.
        cause: what was measured to be the reason, or None. Never a guess.
        remedy: what to do about it, or None.
    """

    def __init__(self, message: str, *, cause: str | None = None, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        parts = [self.message]
        if self.cause:
            parts.append(f"cause: {self.cause}")
        if self.remedy:
            parts.append(f"remedy: {self.remedy}")
        return "; ".join(parts)

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows instead of a traceback: the student needs the cause, not the way through labkit."""
        lines = [f"{type(self).__name__}: {self.message}"]
        lines += [f"cause: {self.cause}"] if self.cause else []
        return lines + ([f"remedy: {self.remedy}"] if self.remedy else [])


class SyscallError(LabError, OSError):
    """Keep the errno of a system call that failed, with its arguments as a person would write them.

    Args:
        syscall: the call's name, as in section 2 of the manual.
        errno: the kernel's answer.
        arguments: the arguments, flags by their names.
        cause: the measured cause, or None.
        remedy: what to do, or None.
        see: the manual page.
    """

    def __init__(
        self,
        syscall: str,
        errno: int,
        arguments: Sequence[str] = (),
        *,
        cause: str | None = None,
        remedy: str | None = None,
        see: str | None = None,
    ) -> None:
        name = errno_names.errorcode.get(errno, str(errno))
        call = f"{syscall}({', '.join(arguments)})"
        LabError.__init__(self, f"{call}: {name} ({os.strerror(errno)})", cause=cause, remedy=remedy)
        self.errno = errno
        self.strerror = os.strerror(errno)
        self.syscall = syscall
        self.arguments = tuple(arguments)
        self.see = see or f"{syscall}(2)"

    def __str__(self) -> str:
        return LabError.__str__(self)


class CommandError(LabError):
    """Report a command that ended with another status than 0.

    Args:
        argv: the command as it was run.
        status: the exit status; negative for a signal, as in subprocess.
        stderr: what it wrote to standard error; the last lines are shown.
    """

    def __init__(self, argv: Sequence[str], status: int, stderr: str = "", **why: str | None) -> None:
        last = " | ".join(stderr.strip().splitlines()[-3:])
        ended = f"signal {-status}" if status < 0 else f"exit status {status}"
        command, *more = shlex.join(argv).splitlines() or [""]
        super().__init__(f"{command}{' ...' if more else ''}: {ended}" + (f": {last}" if last else ""), **why)
        self.argv = tuple(argv)
        self.status = status
        self.stderr = stderr


class UnsupportedError(LabError):
    """Refuse, before anything is changed, what this machine cannot do.

    Args:
        needs: what the operation needs.
        found: what this machine has instead, as measured.
        remedy: what to do, or None.
    """

    def __init__(self, needs: str, found: str, *, remedy: str | None = None) -> None:
        super().__init__(f"needs {needs}; found {found}", remedy=remedy)
        self.needs = needs
        self.found = found


class CheckFailed(LabError):  # noqa: N818  a verdict, named as the lab says it
    """Say that the kernel's state is not what was expected.

    Args:
        expected: what should be.
        measured: what is, read from the kernel.
        cause: why, where it was measured.
    """

    def __init__(self, expected: str, measured: str, *, cause: str | None = None, remedy: str | None = None) -> None:
        super().__init__(f"expected {expected}; measured {measured}", cause=cause, remedy=remedy)
        self.expected = expected
        self.measured = measured


@dataclass(frozen=True)
class Problem:
    """One field of a document that breaks a specification.

    Attributes:
        field: where it is, such as `process.cwd` or `manifest.layers[1].digest`.
        message: what is wrong with it.
        clause: what it breaks: document of the specification, section where there is one, and what is asked for there.
    """

    field: str
    message: str
    clause: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message} ({self.clause})"


class SpecificationError(LabError):
    """Refuse a document that breaks a specification.

    Args:
        problem: the field, and the clause that it breaks.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.field}: {problem.message}", cause=problem.clause)
        self.problem = problem
