"""Checkpoints of lab 2.3, union file systems: each reads the kernel and the layers on the disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.course.checkpoints import Checkpoint, Verdict
from labkit.kernel import mounts, overlay
from labkit.kernel.state import MountState

if TYPE_CHECKING:
    from labkit.course.lab import Lab

TITLE = "Union file systems"
AIMS = (
    "merge directories, with a union mount in user space and with one in the kernel",
    "predict in which layer a write, a deletion or a new directory really lands",
    "recognise copy-up, whiteout and opaque directory on the disk",
)
NEEDS = ("root", "overlay", "fuse", "unionfs")
CLAIMS = ()


def union(lab: Lab) -> Verdict:
    """Measure that the union shows all five names, and that the new one lies in the writable branch."""
    if _mounted(lab.directory / "union", "fuse") is None:
        return Verdict(passed=False, measured="no union", cause="nothing is mounted on union")
    merged, above, below = (sorted(_names(lab.directory / name)) for name in ("union", "dir1", "dir2"))
    measured = f"union shows {' '.join(merged)}; dir1 holds {' '.join(above)}; dir2 holds {' '.join(below)}"
    if below != ["f3", "f4"]:
        return Verdict(passed=False, measured=measured, cause="dir2, the read-only branch, was changed")
    missing = {"f1", "f2", "f3", "f4", "new"} - set(merged)
    if missing:
        return Verdict(passed=False, measured=measured, cause=f"the union does not show {' '.join(sorted(missing))}")
    return Verdict("new" in above, measured, None if "new" in above else "new does not lie in dir1")


def copy_up(lab: Lab) -> Verdict:
    """Measure that the changed file lies in upper, and that base has it as before."""
    base, upper = lab.directory / "base/etc/config", lab.directory / "upper/etc/config"
    if _mounted(lab.directory / "merged", "overlay") is None:
        return Verdict(passed=False, measured="no overlay", cause="nothing is mounted on merged")
    if not upper.exists():
        return Verdict(passed=False, measured="not in upper", cause="upper has no etc/config: it was never written to through merged")
    same = _text(base) == "from the base\n"
    changed = _text(upper) != _text(base) and _text(upper) == _text(lab.directory / "merged/etc/config")
    if same and changed:
        return Verdict(passed=True, measured="base as before, the change in upper")
    cause = "base was changed" if not same else "the file in upper is no changed copy of the one in base"
    return Verdict(passed=False, measured="not a change in upper alone", cause=cause)


def hidden(lab: Lab) -> Verdict:
    """Measure that upper holds a whiteout for motd and an opaque directory bin."""
    upper = lab.directory / "upper"
    if _mounted(lab.directory / "merged", "overlay") is None:
        return Verdict(passed=False, measured="no overlay", cause="nothing is mounted on merged")
    whiteout, opaque = overlay.is_whiteout(upper / "motd"), overlay.is_opaque(upper / "bin")
    measured = f"motd in upper: {'a whiteout' if whiteout else 'no whiteout'}; bin in upper: {'opaque' if opaque else 'not opaque'}"
    cause = "motd was not removed through merged" if not whiteout else "bin was not removed and made again through merged"
    return Verdict(whiteout and opaque, measured, None if whiteout and opaque else cause)


def two(lab: Lab) -> Verdict:
    """Measure that two overlays have the same lower directories and different upper ones."""
    first, second = (_mounted(lab.directory / name, "overlay") for name in ("merged", "merged2"))
    if first is None or second is None:
        missing = "merged" if first is None else "merged2"
        return Verdict(passed=False, measured="not two overlays", cause=f"nothing is mounted on {missing}")
    shared = _option(first, "lowerdir") == _option(second, "lowerdir")
    apart = _option(first, "upperdir") != _option(second, "upperdir")
    measured = f"lowerdir {'shared' if shared else 'not shared'}, upperdir {'apart' if apart else 'shared'}"
    return Verdict(shared and apart, measured, None if shared and apart else measured)


def shop(lab: Lab) -> Verdict:
    """Measure that `shop` is an overlay over base that shows what was asked, while base is as it was."""
    mount = _mounted(lab.directory / "shop", "overlay")
    if mount is None:
        return Verdict(passed=False, measured="no overlay on shop", cause="nothing of type overlay is mounted on shop")
    merged, base = lab.directory / "shop", lab.directory / "base"
    lowerdir = _option(mount, "lowerdir")
    if str(base) not in lowerdir.split(":"):
        return Verdict(passed=False, measured=f"lowerdir {lab.short(lowerdir)}", cause="base is not among its lower directories")
    conditions = {
        "etc/config reads mine": _text(merged / "etc/config") == "mine\n",
        "motd is gone": not os.path.lexists(merged / "motd"),
        "price is there": (merged / "price").is_file(),
        "base is as it was": _text(base / "etc/config") == "from the base\n" and _text(base / "motd") == "old\n",
    }
    wrong = [words for words, holds in conditions.items() if not holds]
    return Verdict(not wrong, f"{4 - len(wrong)} of 4 conditions hold", f"not so: {'; '.join(wrong)}" if wrong else None)


def _mounted(target: Path, fstype: str) -> MountState | None:
    """Return the topmost mount of this type on `target`, or None."""
    found = [mount for mount in mounts.mountinfo() if mount.mountpoint == str(target) and mount.fstype.startswith(fstype)]
    return found[-1] if found else None


def _option(mount: MountState, name: str) -> str:
    return next((option.partition("=")[2] for option in mount.super_options if option.startswith(f"{name}=")), "")


def _names(directory: Path) -> list[str]:
    return [name for name in os.listdir(directory) if not name.startswith(".")]


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


BASE = """mkdir -p base/etc base/bin app/bin upper work merged upper2 work2 merged2
echo "from the base" > base/etc/config; echo old > base/motd; echo "#!/bin/sh" > app/bin/run; touch base/bin/sh
"""
MERGED = BASE + "mount -t overlay overlay -o lowerdir=$LAB/app:$LAB/base,upperdir=$LAB/upper,workdir=$LAB/work $LAB/merged\n"
SECOND = "mount -t overlay overlay -o lowerdir=$LAB/app:$LAB/base,upperdir=$LAB/upper2,workdir=$LAB/work2 $LAB/merged2\n"
SHOP = """mkdir -p shop shop-upper shop-work
mount -t overlay overlay -o lowerdir=$LAB/base,upperdir=$LAB/shop-upper,workdir=$LAB/shop-work $LAB/shop
"""
STOCK = "echo mine > shop/etc/config; rm shop/motd; touch shop/price"
BRANCHES = "mkdir -p dir1 dir2 union; touch dir1/f1 dir1/f2 dir2/f3 dir2/f4\n"
UNION = """if command -v unionfs >/dev/null
then unionfs -o cow $LAB/dir1=$1:$LAB/dir2=RO $LAB/union
else mergerfs -o category.create=ff,minfreespace=0 $LAB/dir1=$1:$LAB/dir2=RO $LAB/union
fi
"""
WRITABLE, READ_ONLY = (UNION.replace("$1", mode) for mode in ("RW", "RO"))

CHECKPOINTS = (
    Checkpoint(
        id="union",
        task="the union of dir1 and dir2 shows new beside f1 to f4; new lies in dir1, and dir2 is as it was",
        measure=union,
        hints=(
            "one branch must be writable, the other one not",
            'lab.union([("dir1", "RW"), ("dir2", "RO")], "union")',
        ),
        given=BRANCHES,
        solution=WRITABLE + "touch union/new",
        undo="umount $LAB/union",
        near_misses={
            "no union": "touch dir1/new; cp dir1/* dir2/* union",
            "put into the lower branch": WRITABLE + "touch dir2/new",
            "both branches read-only": READ_ONLY,
        },
    ),
    Checkpoint(
        id="copy-up",
        task="the changed etc/config lies in upper, and base has it as before",
        measure=copy_up,
        hints=("write to the file through merged", "echo more >> merged/etc/config"),
        given=MERGED,
        solution="echo more >> merged/etc/config",
        undo="umount $LAB/merged",
        near_misses={
            "base itself changed": "echo more >> base/etc/config",
            "only read": "cat merged/etc/config",
            "not mounted": "umount $LAB/merged; mkdir -p upper/etc; echo other > upper/etc/config",
        },
    ),
    Checkpoint(
        id="hidden",
        task="in upper, motd is a whiteout and bin an opaque directory",
        measure=hidden,
        hints=("remove motd through merged", "remove bin with all in it, and make a directory of that name, through merged"),
        given=MERGED,
        solution="rm merged/motd; rm -r merged/bin; mkdir merged/bin",
        undo="echo back > merged/motd",
        near_misses={
            "removed from base": "umount $LAB/merged; rm base/motd; rm -r base/bin app/bin",
            "an empty file instead": "> merged/motd; rm -r merged/bin; mkdir merged/bin",
            "a new file in the old directory": "rm merged/motd; touch merged/bin/new",
        },
    ),
    Checkpoint(
        id="two",
        task="merged and merged2 share their lower directories, and each has an upper of its own",
        measure=two,
        hints=("the same lowerdir, another upperdir, workdir and mount point",),
        given=MERGED,
        solution=SECOND,
        undo="umount $LAB/merged2",
        near_misses={
            "a bind mount of the first": "mount --bind $LAB/merged $LAB/merged2",
            "other layers": SECOND.replace("$LAB/app:", ""),
        },
    ),
    Checkpoint(
        id="shop",
        task="shop, an overlay over base, shows mine in etc/config, no motd, and price; base is as it was",
        measure=shop,
        hints=(
            "four directories: base below, an upper and a work directory of yours, shop",
            "mount -t overlay overlay -o lowerdir=$LAB/base,upperdir=...,workdir=... $LAB/shop",
            "then write, remove and touch through shop, as if nothing lay below",
        ),
        given=BASE,
        solution=SHOP + STOCK,
        undo="umount $LAB/shop",
        near_misses={
            "a copy, not an overlay": "cp -r base shop; " + STOCK,
            "base changed instead": SHOP + "umount $LAB/shop; echo mine > base/etc/config; rm base/motd; touch base/price\n" + SHOP,
            "motd emptied, not removed": SHOP + STOCK.replace("rm shop/motd", "> shop/motd"),
        },
    ),
)
