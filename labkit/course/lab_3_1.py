"""Checkpoints of lab 3.1, chroot: each looks at processes and at what their roots really are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.course.checkpoints import Checkpoint, Verdict, until
from labkit.kernel import commands, roots

if TYPE_CHECKING:
    from labkit.course.lab import Lab

TITLE = "chroot"
AIMS = (
    "give a process another Debian as its root, and tell what it still shares",
    "say what a program needs of a root before it can run there",
    "break out of a chroot as root, and close the way with pivot_root",
)
NEEDS = ("root", "namespaces", "unshare", "rootfs")
CLAIMS = ()


def inside(lab: Lab) -> Verdict:
    """Measure that a process has `inside` as its root, and that another Debian than the machine's is there."""
    tree = lab.directory / "inside"
    here, there = roots.release(Path("/")), roots.release(tree)
    if not there:
        return Verdict(passed=False, measured="no system in inside", cause="inside has no etc/os-release")
    found = list(roots.processes_in(tree))
    measured = f"{'another' if here != there else 'the same'} release, {'a process' if found else 'no process'} with inside as its root"
    return Verdict(bool(found) and here != there, measured, None if found else "no process has inside as its root")


def loader(lab: Lab) -> Verdict:
    """Measure that a dynamically linked `ls` runs with `tiny` as its root."""
    program = lab.directory / "tiny/bin/ls"
    if not program.is_file():
        return Verdict(passed=False, measured="no ls", cause="tiny has no bin/ls")
    if commands.run(["ldd", program], check=False).status != 0:
        return Verdict(passed=False, measured="ls is static", cause="this bin/ls needs no loader")
    done = commands.run(["chroot", lab.directory / "tiny", "/bin/ls", "/"], check=False)
    names = " ".join(sorted(done.stdout.split()))
    if done.status == 0:
        return Verdict(passed=True, measured=f"ls lists {names}")
    return Verdict(passed=False, measured="ls does not run", cause=done.stderr.strip().rpartition(": ")[2].lower() or None)


def escaped(lab: Lab) -> Verdict:
    """Measure that a program of `inside`, run by the libraries of `inside`, has the machine's root."""
    tree = lab.directory / "inside"
    for pid in roots.processes_in(Path("/")):
        files = roots.mapped(pid)
        if files and all(Path(file).is_relative_to(tree) for file in files):
            return Verdict(passed=True, measured="a process made of inside's files has the machine's root")
    return Verdict(passed=False, measured="no such process", cause="none that is made of files of inside has the machine's root")


def locked(lab: Lab) -> Verdict:
    """Measure that a process has `inside` as the root of its whole mount namespace."""
    return _locked(lab.directory / "inside", "inside")


def cell(lab: Lab) -> Verdict:
    """Measure that a process sits in `cell`, with busybox alone, unable to leave, in a PID namespace of its own."""
    tree = lab.directory / "cell"
    programs = [path for path in tree.rglob("*") if path.is_file() and not path.is_symlink() and os.access(path, os.X_OK)]
    if [path.name for path in programs] != ["busybox"]:
        return Verdict(passed=False, measured=f"{len(programs)} programs in cell", cause="not busybox alone")
    verdict = _locked(tree, "cell")
    if not verdict.passed:
        return verdict
    own = [pid for pid in roots.processes_in(tree) if os.stat(f"/proc/{pid}/ns/pid").st_ino != os.stat("/proc/self/ns/pid").st_ino]
    measured = f"{verdict.measured}, with {'a PID namespace of its own' if own else 'the PID namespace of the machine'}"
    return Verdict(bool(own), measured, None if own else "it sees the processes of the machine")


def _locked(tree: Path, name: str) -> Verdict:
    found = list(roots.processes_in(tree))
    if not found:
        return Verdict(passed=False, measured=f"no process with {name} as its root", cause=f"no process has {name} as its root")
    kept = [pid for pid in found if roots.is_top(pid)]
    if kept:
        return Verdict(passed=True, measured=f"{name} is the top of its mount namespace")
    return Verdict(passed=False, measured=f"{name} is its root, not the top", cause="above its root, its mount namespace goes on")


UNPACK = "mkdir -p inside; tar --extract --file $ROOTFS/debian.tar.xz --directory inside\n"
DEBIAN = "[ -e inside/etc/os-release ] || { " + UNPACK.strip() + "; }\n"
COPY = "ldd tiny/bin/ls | grep -o '{}' | xargs cp {} --target-directory tiny"
STAYS = until("grep -qxE 'sleep|perl|busybox' /proc/$!/comm") + "echo $! > stays\n"
CHILD_STAYS = until("grep -qz '^sleep' /proc/$(pgrep --parent $!)/cmdline") + "echo $! $(pgrep --parent $!) > stays\n"
SLEEP = "chroot {} {}sleep 600 > /dev/null 2>&1 &\n" + STAYS
IN_INSIDE = SLEEP.format("inside", "")
ENDED = "kill -KILL $(cat stays); for pid in $(cat stays); do " + until("[ ! -e /proc/$pid ]").strip() + "; done\n"
BREAKOUT = """cat > inside/breakout << 'PERL'
mkdir "hole"; chroot "hole" or die "chroot: $!"; chdir ".." for 1..64; chroot ".";
open my $file, "<", shift or die "secret: $!"; $| = 1; print <$file>; sleep 600;
PERL
echo "nobody inside can read this" > secret
"""
WAIT_FOR_SECRET = until("grep -q nobody escapee.log")
PIVOT = """unshare --mount {options} bash -e -c '
  mount --bind {tree} {tree}; cd {tree}; mkdir -p old proc
  pivot_root . old; exec {then}' > /dev/null 2>&1 &
"""
SMALL = "mkdir -p {0}/bin; cp /bin/busybox {0}/bin/\n"
BUSY = """/bin/busybox sh -c "busybox mount -t proc proc /proc; busybox umount -l /old; exec busybox sleep 600"\n"""
LOCKED = PIVOT.format(options="", tree="inside", then='sh -c "mount -t proc proc /proc; umount --lazy /old; exec sleep 600"')
IN_CELL = PIVOT.format(options="--pid --fork --kill-child", tree="cell", then=BUSY.strip())

CHECKPOINTS = (
    Checkpoint(
        id="inside",
        task="a process has inside as its root, and inside is another Debian",
        measure=inside,
        hints=("chroot DIRECTORY COMMAND starts a command there", "a command that stays: chroot inside sleep 600 &"),
        given=UNPACK,
        solution=IN_INSIDE,
        undo=ENDED,
        near_misses={
            "it works there, its root is elsewhere": "( cd inside; exec sleep 600 ) > /dev/null 2>&1 &\n" + STAYS,
            "a process in another directory": SMALL.format("other") + SLEEP.format("other", "/bin/busybox "),
        },
    ),
    Checkpoint(
        id="loader",
        task="a dynamically linked ls runs with tiny as its root",
        measure=loader,
        hints=(
            "ldd tiny/bin/ls names what it needs, with whole paths",
            "each file must lie below tiny where it lies below /",
            COPY.format("/lib[^ ]*", "--parents --dereference"),
        ),
        given="mkdir -p tiny/bin; cp /bin/ls tiny/bin/",
        solution=COPY.format("/lib[^ ]*", "--parents --dereference"),
        undo="rm -r tiny/lib*",
        near_misses={
            "the loader alone": COPY.format("/lib[^ ]*ld-linux[^ ]*", "--parents --dereference"),
            "the libraries in one heap": "mkdir tiny/lib; " + COPY.format("/lib[^ ]*", "") + "/lib",
            "a static ls": "cp /bin/busybox tiny/bin/ls",
        },
    ),
    Checkpoint(
        id="escaped",
        task="a program of inside, with the libraries of inside, has the machine's root",
        measure=escaped,
        hints=(
            "chroot(2) moves the root, and leaves the working directory where it is",
            "mkdir hole, chroot hole: now the working directory lies above the root, and .. leads on",
            "chroot inside perl breakout $LAB/secret",
        ),
        given=DEBIAN + BREAKOUT,
        solution="chroot inside perl breakout $LAB/secret > escapee.log 2>&1 &\n" + STAYS + WAIT_FOR_SECRET,
        undo=ENDED,
        near_misses={
            "it did not break out": IN_INSIDE,
            "a program of inside started from outside": "inside/usr/bin/sleep 600 > /dev/null 2>&1 &\n" + STAYS,
            "the machine's perl": "( cd inside; exec perl breakout $LAB/secret ) > escapee.log 2>&1 &\n" + STAYS + WAIT_FOR_SECRET,
        },
    ),
    Checkpoint(
        id="locked",
        task="a process has inside as its root, and no way out: it is the top of its mount namespace",
        measure=locked,
        hints=(
            "a mount namespace of its own (unshare --mount) can have another root",
            "pivot_root wants a mount: mount --bind inside inside, then cd inside",
            "pivot_root . old; mount -t proc proc /proc; umount --lazy /old",
        ),
        given=DEBIAN,
        solution=LOCKED + STAYS,
        undo=ENDED,
        near_misses={
            "chroot": IN_INSIDE,
            "chroot in a mount namespace of its own": "unshare --mount chroot inside sleep 600 > /dev/null 2>&1 &\n" + STAYS,
            "chroot into a mount": "unshare --mount bash -c 'mount --bind inside inside; exec chroot inside sleep 600' > /dev/null 2>&1 &\n"
            + STAYS,
        },
    ),
    Checkpoint(
        id="cell",
        task="a process sits in cell, with busybox alone, cannot leave, and has a PID namespace of its own",
        measure=cell,
        hints=(
            "the same as with inside, and unshare --pid --fork",
            "busybox has mount, umount, pivot_root and sleep",
            'lab.spawn(["/bin/busybox", "sleep", "600"], name="cell", new=["mount", "pid"], root="cell") does it, too',
        ),
        solution=SMALL.format("cell") + IN_CELL + CHILD_STAYS,
        undo=ENDED,
        near_misses={
            "chroot": SMALL.format("cell") + SLEEP.format("cell", "/bin/busybox "),
            "no PID namespace": SMALL.format("cell") + PIVOT.format(options="", tree="cell", then=BUSY.strip()) + STAYS,
            "more than busybox": SMALL.format("cell") + "cp /bin/ls cell/bin/\n" + IN_CELL + CHILD_STAYS,
        },
    ),
)
