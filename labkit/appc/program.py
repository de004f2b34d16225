"""The last steps to a program: limits, ids and rights, the filter, execve(2). Standard library only: processes inside a pod take them.

See: capabilities(7), prctl(2), seccomp(2), credentials(7), systemd.exec(5) for the exit codes
"""

from __future__ import annotations

import errno
import os
import struct
from typing import Any, NoReturn

if __package__:
    from labkit.appc import root
else:  # beside init.py, which runs isolated
    import root  # type: ignore[import-not-found, no-redef]

CHDIR, EXEC, OOM_ADJUST, GROUP, USER, CAPABILITIES, CGROUP, SECCOMP, PROFILE = 200, 203, 206, 216, 217, 218, 219, 228, 231
"""Exit codes of an app that did not come to run, by the step that failed; systemd's, which rkt passed on."""

_PR_SET_KEEPCAPS, _PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 8, 22, 24, 38
_SECCOMP_MODE_FILTER, _CAPABILITY_VERSION_3 = 2, 0x20080522


class StepFailed(Exception):  # noqa: N818 - what happened, not a mistake of ours
    """A step on an app's way to its program failed.

    Attributes:
        code: what it then exits with.
    """

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


class step:  # noqa: N801  a block, read as a word: `with step(USER, "setuid")`
    """Let an OSError in the block be a StepFailed with this exit code."""

    def __init__(self, code: int, what: str) -> None:
        self.code, self.what = code, what

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise StepFailed(self.code, f"{self.what}: {error.strerror}") from error


def become(asked: dict[str, Any], argv: list[str]) -> NoReturn:
    """Take the ids and lose the rights that a program is not to have, then execute it.

    The bounding set is cut while we may; the user changes before the filter comes, and with KEEPCAPS, so that the filter needs no
    no_new_privs; execve(2) then takes from a user what is not root's.

    Args:
        asked: `env`, `cwd`, `uid`, `gid`, `groups`, `capabilities` (a mask), `no_new_privileges`, `seccomp` (a filter), `oom_score_adj`,
            `profile` (of AppArmor or SELinux, as /proc/self/attr/exec takes it).
        argv: what to execute, looked up in PATH.

    Raises:
        StepFailed: with the exit code of the step.
    """
    os.umask(0o022)
    if asked["oom_score_adj"] is not None:
        with step(OOM_ADJUST, "oom_score_adj"):
            root.write("/proc/self/oom_score_adj", str(asked["oom_score_adj"]))
    if asked["profile"]:
        with step(PROFILE, asked["profile"]):
            root.write("/proc/self/attr/exec", asked["profile"])
    with step(CHDIR, f"working directory {asked['cwd']}"):
        os.chdir(asked["cwd"])
    with step(CAPABILITIES, "capabilities"):
        for number in range(64):
            if not asked["capabilities"] >> number & 1:
                _drop(number)
    with step(GROUP, f"group {asked['gid']}"):
        os.setgroups(asked["groups"])
        os.setresgid(asked["gid"], asked["gid"], asked["gid"])
    with step(USER, f"user {asked['uid']}"):
        root.prctl(_PR_SET_KEEPCAPS, 1)
        os.setresuid(asked["uid"], asked["uid"], asked["uid"])
        _inherit_no_capability()
    if asked["no_new_privileges"]:
        root.prctl(_PR_SET_NO_NEW_PRIVS, 1)
    execute(argv, asked["env"], asked["seccomp"])


def execute(argv: list[str], env: dict[str, str], seccomp: bytes) -> NoReturn:
    """Install the filter and execute a program, found in PATH as execvp(3) does; between the two there is no other system call.

    Raises:
        StepFailed: it cannot be executed.
    """
    files = [argv[0]] if "/" in argv[0] else [f"{folder}/{argv[0]}" for folder in env.get("PATH", "").split(":") if folder]
    if seccomp:
        instructions = root.buffer(seccomp)
        with step(SECCOMP, "seccomp"):
            root.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, root.filter_program(instructions, len(seccomp) // 8))
    refused = errno.ENOENT
    for file in files:
        try:
            os.execve(file, argv, env)
        except OSError as error:
            refused = refused if error.errno in (errno.ENOENT, errno.ENOTDIR) else error.errno or refused
    raise StepFailed(EXEC, f"{argv[0]}: {os.strerror(refused)}")


def _drop(capability: int) -> None:
    try:
        root.prctl(_PR_CAPBSET_DROP, capability)
    except OSError as error:
        if error.errno != errno.EINVAL:  # the kernel has no such capability
            raise


def _inherit_no_capability() -> None:
    """Make what is permitted effective again, which a change of the user has ended, and nothing inheritable."""
    header, data = struct.pack("Ii", _CAPABILITY_VERSION_3, 0), root.buffer(bytes(24))
    root.call("capget", header, data)
    _, permitted, _, _, permitted_high, _ = struct.unpack("6I", data.raw)
    root.call("capset", header, root.buffer(struct.pack("6I", permitted, permitted, 0, permitted_high, permitted_high, 0)))
