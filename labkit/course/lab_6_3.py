"""Checkpoints of lab 6.3, pods with rkt: several apps in one pod, what one of them may use, who ends it, and what it leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labkit.appc.pod import State
from labkit.course import rkt_pods
from labkit.course.checkpoints import Checkpoint, Verdict, until
from labkit.course.targets import cgroup_of
from labkit.kernel import namespaces

if TYPE_CHECKING:
    from labkit.course.lab import Lab

TITLE = "Pods with rkt"
AIMS = (
    "run a pod without a daemon, and say by which directory and which lock its state is known",
    "run several apps in one pod, and tell what they share and what each has for itself",
    "read from exit codes which app ended a pod, and let the kernel end one that uses too much",
    "take a pod from run to garbage, and say at each step what of it is still there",
)
NEEDS = ("root", "namespaces", "cgroups", "overlay", "registry", "rkt")

GUEST = 33
HALF = "50000 100000"
MOST = 1 << 28  # bytes: a limit that still is one
_SHARED = ("pid", "net", "ipc", "uts")


def pair(lab: Lab) -> Verdict:
    """Measure that one pod has nginx and bzbx for apps, that nginx runs and bzbx has ended with 0."""
    apps = ("bzbx", "nginx")
    found = rkt_pods.running(lab, apps)
    if not found:
        return rkt_pods.absent(lab, apps)
    (one, *_) = found
    wrong = [] if "nginx" in one.processes else ["nginx has no process in it"]
    code = one.pod.exit_codes.get("bzbx")
    if code != 0:
        wrong.append("bzbx has not ended" if code is None else f"bzbx has ended with {code}")
    return Verdict(not wrong, "one pod runs with bzbx and nginx", "; ".join(wrong) or None)


def swept(lab: Lab) -> Verdict:
    """Measure that nothing is left of any pod that has ended, and that one runs."""
    states = rkt_pods.states(lab)
    left = [state for state in states if state not in (State.RUNNING, State.PREPARED, State.PREPARING)]
    runs = State.RUNNING in states
    wrong = [f"one pod is there as {left[0]!s}"] if left else []
    wrong += [] if runs else ["no pod runs"]
    measured = f"a pod runs: {'yes' if runs else 'no'}, pods that have ended: {'some' if left else 'none'}"
    return Verdict(not wrong, measured, "; ".join(wrong) or None)


def mended(lab: Lab) -> Verdict:
    """Measure that front and cache run in one pod, that cache has come to its sleep, and that its memory still has a limit."""
    apps = ("cache", "front")
    found = rkt_pods.running(lab, apps)
    if not found:
        return rkt_pods.absent(lab, apps)
    (one, *_) = found
    if missing := sorted(set(apps) - one.processes.keys()):
        return Verdict(passed=False, measured="one pod runs with both", cause=f"{missing[0]} has no process in it")
    cache = one.processes["cache"]
    allowed = cgroup_of(cache.pid)["memory.max"]
    wrong = [] if isinstance(allowed, int) and allowed <= MOST else ["nothing limits the memory of cache any more"]
    wrong += [] if cache.comm == "sleep" else ["cache has not filled its memory yet"]
    return Verdict(not wrong, "one pod runs with cache and front", "; ".join(wrong) or None)


def alone(lab: Lab) -> Verdict:
    """Measure that one and two run in one pod, two as the user 33, and one on at most half a processor."""
    apps = ("one", "two")
    found = [pod for pod in rkt_pods.running(lab, apps) if set(apps) <= pod.processes.keys()]
    if not found:
        return rkt_pods.absent(lab, apps)
    one, two = (found[0].processes[name] for name in apps)
    same = namespaces.shared(one.pid, two.pid)
    wrong = [] if all(same[kind] for kind in _SHARED) else ["they are not in the namespaces of one pod"]
    wrong += [] if (one.uid, two.uid) == (0, GUEST) else [f"one runs as user {one.uid}, two as user {two.uid}"]
    quotas = [str(cgroup_of(each.pid)["cpu.max"]) for each in (one, two)]
    wrong += [] if quotas[0] == HALF else [f"cpu.max of one is {quotas[0]}"]
    wrong += [] if quotas[1].startswith("max") else [f"cpu.max of two is {quotas[1]}"]
    return Verdict(not wrong, "one and two run in one pod", "; ".join(wrong) or None)


QUIET = " > /dev/null 2>&1"
STOP = f"rkt stop --force --uuid-file={{0}}.uuid{QUIET} || true\nrkt status --wait $(cat {{0}}.uuid){QUIET} || true\n"
UP = "echo up; exec sleep 600"
BOX = f"docker://busybox --name={{0}} {{1}} --exec=/bin/sh -- -c '{UP}'"
RUN = "rkt run --insecure-options=image --net=none --uuid-file-save={0}.uuid {1} > {0}.log 2>&1 &\n"
WAIT = until("[ $(grep -c ': up' {0}.log) = {1} ] || ! kill -0 $! 2> /dev/null")

NGINX = until("grep -l nginx /proc/[0-9]*/comm > /dev/null 2>&1 || ! kill -0 $! 2> /dev/null")
PAIR = "rkt run --insecure-options=image --uuid-file-save=pair.uuid {0} > pair.log 2>&1 &\n"
"""As the course has it, with the default network; how the apps are given follows."""
PAIRED = until("[ -s rkt/pods/run/$(cat pair.uuid)/status/{0} ] || ! kill -0 $! 2> /dev/null") + NGINX

SLEEPS = RUN.format("stays", BOX.format("stays", "")) + WAIT.format("stays", 1)
ENDED = f"rkt run --insecure-options=image --net=none docker://busybox --exec=/bin/true{QUIET}\n"

CACHE = """\
rkt run --insecure-options=image --net=none --uuid-file-save=cache.uuid \\
  docker://busybox --name=front --exec=/bin/sh -- -c 'exec httpd -f -p 8080' --- \\
  docker://busybox --name=cache --memory=8Mi --exec=/bin/sh -- \\
  -c 'dd if=/dev/zero of=/dev/null bs=24M count=1 && exec sleep 600'
"""
WRITE = f"cat > cache.sh << 'END'\n{CACHE}END\n"
START = "bash cache.sh > cache.log 2>&1 &\n"
KEEPER = "$(cat rkt/pods/run/$(cat cache.uuid)/appsinfo/cache/pid)"
FILLED = until(f"pgrep -x -P {KEEPER} sleep > /dev/null 2>&1 || ! kill -0 $! 2> /dev/null")

CHECKPOINTS = (
    Checkpoint(
        "pair",
        task="one pod has the apps nginx and bzbx: nginx runs in it, and bzbx has ended with 0",
        measure=pair,
        hints=(
            "rkt run takes several images; each may be followed by options of its own",
            "--name gives an app another name than its image's last one",
            "rkt run docker://nginx docker://busybox --name=bzbx",
        ),
        solution=PAIR.format("docker://nginx docker://busybox --name=bzbx") + PAIRED.format("bzbx"),
        undo=STOP.format("pair"),
        near_misses={
            "a pod each": RUN.format("other", "docker://busybox --name=bzbx") + PAIR.format("docker://nginx") + NGINX,
            "no name": PAIR.format("docker://nginx docker://busybox") + PAIRED.format("busybox"),
            "bzbx runs on": PAIR.format(f"docker://nginx {BOX.format('bzbx', '')}") + WAIT.format("pair", 1),
            "bzbx fails": f"! {PAIR.format('docker://nginx docker://busybox --name=bzbx --exec=/bin/false').replace(' &', '')}",
        },
    ),
    Checkpoint(
        "swept",
        task="a pod runs, and nothing is left of any pod that has ended",
        measure=swept,
        hints=(
            "rkt gc only marks a pod that has just exited, and removes it once it was garbage for the grace period",
            "rkt gc --grace-period=0s",
        ),
        given=ENDED + SLEEPS,
        solution=f"rkt gc --grace-period=0s{QUIET}\n",
        undo=ENDED,
        near_misses={
            "marked only": f"rkt gc{QUIET}\n",
            "a shorter period": f"rkt gc --grace-period=5m0s{QUIET}\n",
            "all of them": f"{STOP.format('stays')}rkt gc --grace-period=0s{QUIET}\n",
            "stopped, not removed": f"rkt gc --grace-period=0s{QUIET}\n{STOP.format('stays')}",
        },
    ),
    Checkpoint(
        "mended",
        task="front and cache run in one pod, and the memory of cache has a limit",
        measure=mended,
        hints=(
            "rkt status tells with what each app has ended: a number above 128 is 128 and a signal",
            "the signal is 9: dd wants 24 MB, and the isolator allows 8",
            "where one app fails, rkt stops the others: front was well. Write --memory=64Mi",
        ),
        given=f"{WRITE}bash cache.sh > cache.log 2>&1 || true\n",
        solution=f"sed -i s/8Mi/64Mi/ cache.sh\n{START}{FILLED}",
        undo=STOP.format("cache"),
        near_misses={
            "once more": f"{START}{FILLED}wait $! || true\n",
            "no limit": f"sed -i s/--memory=8Mi// cache.sh\n{START}{FILLED}",
            "front alone": RUN.format("cache", BOX.format("front", "")) + WAIT.format("cache", 1),
            "still too little": f"sed -i s/8Mi/16Mi/ cache.sh\n{START}{FILLED}wait $! || true\n",
            "another program": RUN.format("cache", f"{BOX.format('front', '')} --- {BOX.format('cache', '')}") + WAIT.format("cache", 2),
        },
    ),
    Checkpoint(
        "alone",
        task="one pod runs the apps one and two: two as the user 33, one on half a processor at most",
        measure=alone,
        hints=(
            "options after an image are for its app alone, and the arguments after -- end with ---",
            "--cpu=500m is half a processor, --user=33 a user by its number",
            "docker://busybox --name=one --cpu=500m --exec=/bin/sleep -- 600 --- docker://busybox --name=two ...",
        ),
        solution=RUN.format("alone", f"{BOX.format('one', '--cpu=500m')} --- {BOX.format('two', '--user=33')}") + WAIT.format("alone", 2),
        undo=STOP.format("alone"),
        near_misses={
            "both options for one": RUN.format("alone", f"{BOX.format('one', '--cpu=500m --user=33')} --- {BOX.format('two', '')}")
            + WAIT.format("alone", 2),
            "half for both": RUN.format("alone", f"{BOX.format('one', '--cpu=500m')} --- {BOX.format('two', '--user=33 --cpu=500m')}")
            + WAIT.format("alone", 2),
            "shares, not a limit": RUN.format("alone", f"{BOX.format('one', '--cpu-shares=512')} --- {BOX.format('two', '--user=33')}")
            + WAIT.format("alone", 2),
            "a pod each": RUN.format("other", BOX.format("two", "--user=33"))
            + WAIT.format("other", 1)
            + RUN.format("alone", BOX.format("one", "--cpu=500m"))
            + WAIT.format("alone", 1),
        },
    ),
)
