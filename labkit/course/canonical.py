"""What differs from run to run without meaning anything, and the one word that each such thing is compared as.

One table serves `labkit render` (an old output is kept where old and new are equal once canonicalised) and
`labkit validate` (written as nbval's sanitize file), so the two cannot disagree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from labkit import ledger

_MONTH = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_DAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_CONTROLLERS = "(?:unified|freezer|memory|pids|cpu,cpuacct|cpuacct,cpu|cpu|cpuset|cpuacct|devices|hugetlb|blkio|misc|net_cls,net_prio)"

TABLE: tuple[tuple[str, str], ...] = (
    # pictures: the text form beside them says the same and is compared
    (r"data:image/svg\+xml;base64,[A-Za-z0-9+/=]+", "IMAGE"),
    # a union in user space: unionfs refuses a write with EACCES, mergerfs with EROFS
    (r"(cannot touch '[^']*': )(?:Permission denied|Read-only file system)", r"\1REFUSED"),
    # a line that is broken because it is long, or may be: where, follows from the lengths of paths and numbers
    (r"\n[ \t]*↪ ", ""),
    (r"[ \t]*\\\n[ \t]*", " "),
    (r"\n {16,}", " "),
    (r"\b(?:fuse\.)?(?:unionfs|fuse-overlayfs|mergerfs)\b", "UNION"),
    (r"(?:mkdir -p \S+ (?:&&|&amp;&amp;) )?\bUNION (?:-o \S+ )?(?:\S+:\S+ )?(\$LAB/\w+|/\S+/labs/\S+)(?=[\s<]|$)", r"UNION BRANCHES \1"),
    # widths follow from the lengths of numbers that are chance
    (r"[ \t]+", " "),
    # link-layer addresses before times: both are pairs joined by colons
    (r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b", "MAC"),
    (r"\bfe80::[0-9a-f:]+(?:…[0-9a-f:]+)?", "fe80::ADDRESS"),
    (r"(scope link) tentative\b", r"\1"),  # until the kernel knows that nobody else has the address
    # times
    (rf"\b{_DAY},? (?:{_MONTH} +\d+|\d+ {_MONTH}(?: \d{{4}})?) +\d\d:\d\d:\d\d(?: [AP]M)?(?: [A-Z]+)?(?: \d{{4}})?", "TIME"),
    (r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d)?(?:[.,]\d+)?(?: ?Z| ?[+-]\d\d:?\d\d)?", "TIME"),
    (rf"\b{_MONTH} +\d+ +(?:\d\d:\d\d|\d{{4}})\b", "TIME"),
    (r"\b\d\d:\d\d:\d\d(?:\.\d+)?\b", "TIME"),
    (r"\b\d+m\d+[.,]\d+s\b", "DURATION"),
    (r"\btime[=<]\d+(?:\.\d+)? ?ms\b", "time=DURATION"),
    (r"\btime \d+ ?ms\b", "time DURATION"),
    (r"(rtt|round-trip) min/avg/max(?:/mdev)? = [\d./]+ ms(?:, .*)?", r"\1 DURATION"),
    (r"\b\d+(?:\.\d+)? (?:ms|µs|us)\b", "DURATION"),
    (r"\b\d+\.\d+ ?s(?:ec(?:ond)?s?)?\b", "DURATION"),
    # an X-ray: what is used now, with whom it was compared, ends of cables that nobody named
    (r"\bused \d[\d.]*[KMGT]?\b", "used N"),
    (r"\bthe host: (?:pid 1\b|the reader, pid \d+, for those of pid 1 may not be read)", "the host: REFERENCE"),
    (r"\bveth(?:\d+_\w{4}|[0-9A-Za-z]{6,8})\b", "vethID"),
    # ids of an account that the set-up made, and of those that it may give away
    (r"\b[1-9]\d{5,}(?=[: ]65536\b)", "SUBID"),
    (r"\buid [1-9]\d{5,}\b", "uid SUBID"),
    (r"\b((?:user|group) \d+ inside = )[1-9]\d{2,}(?= outside)", r"\1ID"),
    (r"\b(shared|master|propagate_from):\d+", r"\1:N"),
    # numbers that the kernel hands out
    (r"\b(mnt|mount|uts|ipc|net|pid|pid_for_children|user|cgroup|time|time_for_children):\[\d+\]", r"\1:[INODE]"),
    (r"\b40265\d{5}\b", "INODE"),
    (r"/proc/(?!1\b)\d+\b", "/proc/PID"),
    (r"(?i)\b(pid|pids|process|ppid)(:? |=|: ?|</t[hd]>\s*<t[hd][^>]*>)(?!1\b)\d+\b", r"\1\2PID"),
    (r"(?m)^ ?\d+ (?:pts/\d+|\?) ", "PID TTY "),
    # a row of runc list, and one of ps -f: two pids, a share of a CPU, and when it began
    (r"(?m)^(\S+) [1-9]\d* (created|running|paused)\b", r"\1 PID \2"),
    (r"(?m)^(\w+) \d+ \d+ \d+ (?:\d\d:\d\d|[A-Z][a-z]{2}\d\d) (pts/\d+|\?) TIME\b", r"\1 PID PPID C STIME \2 TIME"),
    (r"(?m)^\[\d+\]( |\s*[-+]\s*)\d+$", "[JOB] PID"),
    (r"(line \d+: +)\d+( (?:Killed|Terminated|Hangup|Aborted|Segmentation))", r"\1PID\2"),
    (r"(@if)\d+\b", r"\1N"),
    (r"(?m)^\d+: ([\w.-]+(?:@\w+)?: <)", r"N: \1"),
    (r"\blink-netnsid \d+\b", "link-netnsid N"),
    (r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", "ID"),  # before its last part is taken for an id
    # rkt: the id of an image, the fingerprint of a key that the set-up made, and by whom and when a line of a pod was written
    (r"\bsha512-[0-9a-f]{12,128}\b", "sha512-ID"),
    (r"(key fingerprint is:)(?: +[0-9A-F]{4}){10}", r"\1 ID"),
    (r"\[ *\d+\.\d{3}\] ([\w-]+)\[\d+\]: ", r"[TIME] \1[PID]: "),
    (r"\b(?=[0-9]*[a-f])(?:[0-9a-f]{64}|[0-9a-f]{40}|[0-9a-f]{12})\b", "ID"),
    # the address that docker's first network gives a container: by how many there are
    (r"\b172\.17\.0\.(?!1\b|0/)\d+", "172.17.0.N"),
    (r"\b172\.30\.0\.(?!1\b|0/)\d+", "172.30.0.N"),
    (r"\b172\.16\.28\.(?!1\b|0/)\d+", "172.16.28.N"),
    # and those of rkt's other network and of the lab's own; the chains of a pod are called after it
    (r"\b172\.(?:1[89]|2\d)\.(0|255)\.", r"172.18.\1."),  # docker's networks of one's own, by how many there were
    (r"\b172\.(18|31)\.0\.(?!1\b|0/)\d+", r"172.\1.0.N"),
    (r"\b0\.0\.11:\d+\b", "0.0.11:PORT"),  # where dockerd answers for names in a container
    (r"…[\d.]{0,5}1:\d{4,5}\b", "…1:PORT"),  # the same, cut
    (r"\b((?:tcp|udp) sport )\d+(?= (?:counter )?snat to :53)", r"\1PORT"),
    (r"…[0-9a-f]{1,12}(?=\"|&quot;)", "…ID"),  # the end of the name of a bridge, in a rule
    (r"\b(rkt|cni)-[0-9a-f]{8}…", r"\1-ID"),
    (r"\b(RKT-PFWD-[DS]NAT)-[0-9a-f]{8}\b", r"\1-ID"),
    # the same for the network of the pods, and where containerd keeps what runs
    (r"\b10\.203\.\d+\.(?!1\b|0/)\d+", "10.203.N.N"),
    (r"/run/(?:labkit/)?containerd/io\.con\S*?k/k8s\.io/(?:ID|[0-9a-f]{12,64})\b", "TASKS/k8s.io/ID"),
    # where an engine keeps the root of a container: its own directory, or that of the labs
    (r"/var/lib/(?:labkit/)?docker/overlay2/(?:ID|[0-9a-f]{12})…?/merged\b", "DOCKER/merged"),
    (r"/run/(?:labkit/)?containerd/io\.con\S*?me\.v2\.task\b", "TASKS"),
    # the port that an index or a registry of a lab's own got, how large an image is, and how many names a root directory has
    (r"\b127\.0\.0\.1:\d{5}\b", "127.0.0.1:PORT"),
    (r"\b\d+(?:\.\d+)? (?:B|kB|MB|GB|bytes of digest)\b", "SIZE"),
    (r"\b[\d,]+ names\b", "N names"),
    # a name that no server knows: who was asked, and what the answer was
    (r"(dial tcp: lookup [\w.-]+)(?: on \S+)?: [^\n<]*", r"\1: NOT FOUND"),
    (r"/dev/loop\d+\b", "/dev/loopN"),
    # places
    (r"(?:/[\w.+-]+)+/labs/(\d+\.\d+)\b", r"$LAB"),
    (rf"/sys/fs/cgroup/{_CONTROLLERS}(?=/lab-|[\s<&]|$)", "/sys/fs/cgroup"),
    # where a machine has cgroup v2 alone, the lab mounts the v1 freezer below its state
    (r"(?:/[\w.+-]+)+/freezer(?=/lab-|[\s<&]|$)", "/sys/fs/cgroup"),
    # the same cgroup in the hierarchy of v1 or of v2, and the same limit under its name in v1 or in v2
    (r"\b(?:cgroup2|freezer|memory|pids|cpu|cpuacct):(?=/lab-)", "cgroup:"),
    (r"\bmemory\.limit_in_bytes\b", "memory.max"),
    (r"\bcpu\.cfs_quota_us(=| = )(\d+)", r"cpu.max\g<1>\2 100000"),
    (r"\becho (\d+) (>|&gt;) (\S+)/cpu\.cfs_quota_us\b", r"echo \1 100000 \2 \3/cpu.max"),
    (r"\becho (?:'|&#x27;)(\d+ 100000)(?:'|&#x27;) (>|&gt;) (\S+)/cpu\.max\b", r"echo \1 \2 \3/cpu.max"),
    # what a pause changes in the kernel
    (r"(?:freezer\.state: THAWED (->|→) FROZEN|cgroup\.freeze: 0 (->|→) 1)\b", r"freezer: THAWED \1\2 FROZEN"),
    (r"(?:freezer\.state: FROZEN (->|→) THAWED|cgroup\.freeze: 1 (->|→) 0)\b", r"freezer: FROZEN \1\2 THAWED"),
    # v2 ends all of a group by one write, v1 process by process
    (r"\bkill -KILL \$\(cat (\S+/cgroup)\.procs\)(?:\n *call pidfd_send_signal\(pidfd, SIGKILL, NULL, 0\))?", r"KILL \1"),
    (r"\becho 1 (?:>|&gt;) (\S+/cgroup)\.kill\b", r"KILL \1"),
    (r"<div[^>]*>(?:call *pidfd_send_signal\(pidfd, SIGKILL, NULL, 0\)|write *\S+/cgroup\.kill = 1)</div>", ""),
    # systemd-nspawn: where systemd does not run it gets a PID namespace around it, and nobody to register with
    (r"\bunshare --mount --pid --fork --kill-child --mount-proc (?=systemd-nspawn\b)", ""),
    (r"\); (\w+)=\$!; until \1=\$\(pgrep -P \$!\); do sleep 0\.1; done", r"); \1=$!"),
    (r"\bpid PID = \d+ = 1\b", "pid PID = 1"),
    (r"\bsystemd-nspawn --register=no --keep-unit\b", "systemd-nspawn"),
    (r"call clone3\([^)]*\)\s*(?:call mount\([^)]*\)\s*)*call execve\(\"systemd-nspawn\"\)", "call NSPAWN"),
    (r"\b\d+ calls(?=</summary>(?:(?!</details>).)*execve\(&quot;systemd-nspawn&quot;\))", "CALLS"),
    (r"call clone3\([^)]*\)</div>(?:<div[^>]*>call mount\([^)]*\)</div>)*<div[^>]*>call execve\(&quot;systemd-nspawn&quot;\)", "NSPAWN"),
    # crun takes no machine with controllers in both versions of cgroups: there it gets a mount namespace in which v2 is hidden
    (r"\bunshare --mount bash -c (?:'|&#x27;)mount -t tmpfs none [^;]*; exec \S+ \S+ (?=crun\b)", ""),
    # versions of Debian's packages
    (r"\b(runc version|Installed:|Candidate:) \d\S*", r"\1 VERSION"),
    (r"\b(etcd|BusyBox) \d[\w.:+~-]*(?= of Debian)", r"\1 VERSION"),
    (r"\b(Docker version) \S+ build \w+", r"\1 VERSION"),
    (r"\b((?:containerd|ctr) github\.com/containerd/containerd)(?: \S*\d\S*)+", r"\1 VERSION"),
    (r"(\"runtime_version\": )\"[^\"]*\"", r"\1VERSION"),
    (r"\b\d+ files? written, \d+ calls?\b", "FILES AND CALLS"),
    (r"/tmp/(?!\s)[\w./+-]+", "/tmp/PATH"),  # noqa: S108 - a pattern, no file
    (r"(?m) $", ""),
    (r"[-─━═]{3,}", "---"),
    # how many equal lines came in a stretch of time is chance
    (r"(?m)^(.*TIME.*)(?:\n\1)+$", r"\1"),
)
"""(regular expression, replacement), applied in this order; each on one line, as nbval's file wants it."""

_UNCOMPARED = {"metadata", "execution_count", "output_type", "traceback", "name"}


def canonical(text: str) -> str:
    """Return `text` with all that may differ from run to run replaced by words."""
    for pattern, replacement in table():
        text = re.sub(pattern, replacement, text)
    return text


def sanitize_file(path: Path) -> Path:
    """Write the table in the form of nbval's `--nbval-sanitize-with`, and return its path."""
    path.write_text("\n".join(f"regex: {pattern}\nreplace: {replacement}\n" for pattern, replacement in table()))
    return path


def table() -> tuple[tuple[str, str], ...]:
    """Return the table for this run: where a name may be broken is no part of it, and its state is compared as at the usual place."""
    return (("<wbr>", ""), (rf"{re.escape(str(ledger.state()))}(?=[/\s<]|$)", "/var/lib/labkit"), *TABLE)


def canonical_outputs(outputs: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the outputs of one cell in the form in which two runs are compared.

    Pieces of one stream are joined first: where a stream is cut is chance.

    Returns:
        Stream name or mime type to its canonical texts, in order.
    """
    streams: dict[str, str] = {}
    others: dict[str, list[str]] = {}
    for output in outputs:
        if output["output_type"] == "stream":
            streams[output["name"]] = streams.get(output["name"], "") + _joined(output["text"])
            continue
        for key, value in {**output.get("data", {}), **output}.items():
            if key not in _UNCOMPARED and key != "data":
                others.setdefault(key, []).append(canonical(_joined(value)))
    return {**{name: [canonical(text)] for name, text in streams.items()}, **others}


def _joined(value: object) -> str:
    return "".join(value) if isinstance(value, list) else str(value)
