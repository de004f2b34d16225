"""Records of kernel state that the tests of show/ draw."""

from types import MappingProxyType

from labkit.images.image import ImageParts
from labkit.images.oci import Descriptor, Execution, History, ImageConfig, Platform
from labkit.kernel.contents import Compared, Unequal
from labkit.kernel.state import (
    CgroupState,
    Change,
    Difference,
    FileState,
    LinkState,
    NamespaceState,
    NetworkState,
    ProcessState,
    RouteState,
    UnionState,
)
from labkit.trace import Operation, Trace

FREEZER = "/sys/fs/cgroup/freezer"
KINDS = ("mount", "uts", "ipc", "net", "pid", "user", "cgroup", "time")
HOST = MappingProxyType({kind: 4026531830 + number for number, kind in enumerate(KINDS)})

CHANGE = Difference(
    appeared=(
        Change("process", "clock", "", None, "pid 4711, cgroup freezer:/lab-2.1/mycgroup"),
        Change("cgroup", "freezer:/lab-2.1/mycgroup", "", None, ""),
    ),
    changed=(Change("cgroup", "freezer:/lab-2.1/mycgroup", "freezer.state", "THAWED", "FROZEN"),),
    went=(Change("link", "veth1 in namespace1", "", "veth", None),),
)
TRACE = Trace(
    [
        Operation(
            f"mkdir -p {FREEZER}/lab-2.1/mycgroup",
            calls=(f'mkdir("{FREEZER}/lab-2.1/mycgroup", 0755)',),
        ),
        Operation(f"echo $clock > {FREEZER}/lab-2.1/mycgroup/cgroup.procs", writes=((f"{FREEZER}/lab-2.1/mycgroup/cgroup.procs", "4711"),)),
        Operation(
            f"echo FROZEN > {FREEZER}/lab-2.1/mycgroup/freezer.state", writes=((f"{FREEZER}/lab-2.1/mycgroup/freezer.state", "FROZEN"),)
        ),
        Operation(
            "unshare --uts --pid --fork --mount-proc bash -c 'while :; do date; sleep 1; done'"
            " > /var/lib/labkit/labs/2.1/clock.log 2>&1 & clock=$!",
            calls=("clone3(CLONE_NEWUTS|CLONE_NEWPID|CLONE_NEWNS)", 'mount("proc", "/proc", "proc", MS_NOSUID|MS_NODEV|MS_NOEXEC, NULL)'),
        ),
    ]
)

BASH = ProcessState(100, 1, "python3", ("python3",), "S", 5, 100, HOST, name="this notebook")
CLOCK = ProcessState(
    4711,
    100,
    "bash",
    ("bash",),
    "S",
    9,
    1,
    MappingProxyType({**HOST, "uts": 4026532001, "pid": 4026532002, "mount": 4026532003}),
    name="clock",
)
TWIN = ProcessState(
    4720, 4711, "sleep", ("sleep",), "S", 10, 0, MappingProxyType({**HOST, "uts": 4026532001, "net": 4026532009}), name="twin"
)

CGROUPS = (
    CgroupState("freezer", "/lab-2.1", f"{FREEZER}/lab-2.1", MappingProxyType({"freezer.state": "THAWED"})),
    CgroupState("freezer", "/lab-2.1/mycgroup", f"{FREEZER}/lab-2.1/mycgroup", MappingProxyType({"freezer.state": "FROZEN"}), (4711, 4720)),
    CgroupState("freezer", "/lab-2.1/other", f"{FREEZER}/lab-2.1/other", MappingProxyType({"freezer.state": "THAWED"}), (100,)),
    CgroupState(
        "memory",
        "/lab-2.1/mycgroup",
        "/sys/fs/cgroup/memory/lab-2.1/mycgroup",
        MappingProxyType({"memory.limit_in_bytes": "67108864", "memory.memsw.limit_in_bytes": "9223372036854771712"}),
        (4711,),
    ),
    CgroupState(
        "", "/lab-2.1", "/sys/fs/cgroup/unified/lab-2.1", MappingProxyType({"cgroup.freeze": "0", "cgroup.subtree_control": "memory pids"})
    ),
    CgroupState(
        "",
        "/lab-2.1/a",
        "/sys/fs/cgroup/unified/lab-2.1/a",
        MappingProxyType({"cgroup.freeze": "1", "memory.max": "100000", "pids.max": "20"}),
        (7,),
    ),
)

NAMESPACES = (
    *(NamespaceState(kind, inode, (1, 2, 100), HOST["user"], 0 if kind == "user" else None) for kind, inode in HOST.items()),
    NamespaceState("uts", 4026532001, (4711, 4720), HOST["user"]),
    NamespaceState("net", 4026532009, (), HOST["user"], None, "/run/netns/namespace1"),
)

LO = LinkState("lo", 1, "loopback", up=True, operstate="UNKNOWN", addresses=("127.0.0.1/8", "::1/128"))
LO_DOWN = LinkState("lo", 1, "loopback", up=False, operstate="DOWN")
PAIR = (
    NetworkState(
        "host",
        4026531833,
        (LO, LinkState("eth0", 2, "", up=True, operstate="UP", addresses=("10.0.2.15/24", "fe80::1/64"))),
        (RouteState("default", "10.0.2.2", "eth0"), RouteState("fe80::/64", "", "eth0")),
    ),
    NetworkState(
        "namespace1",
        2,
        (LO_DOWN, LinkState("veth1", 5, "veth", up=True, operstate="UP", peer=("namespace2", "veth2"), addresses=("192.168.1.1/24",))),
        (RouteState("192.168.1.0/24", "", "veth1"),),
    ),
    NetworkState(
        "namespace2",
        3,
        (LO_DOWN, LinkState("veth2", 4, "veth", up=False, operstate="DOWN", peer=("namespace1", "veth1"), addresses=("192.168.1.2/24",))),
    ),
)
BRIDGED = (
    NetworkState(
        "host",
        1,
        (
            LO,
            LinkState("eth0", 2, "", up=True, operstate="UP", addresses=("10.0.2.15/24",)),
            LinkState("br0", 3, "bridge", up=True, operstate="UP", addresses=("10.0.0.1/24", "fd00:1234:5678:9abc::1/64")),
            LinkState("port10", 4, "veth", up=True, operstate="UP", master="br0", peer=("blue", "eth0")),
            LinkState("port2", 5, "veth", up=True, operstate="LOWERLAYERDOWN", master="br0", peer=("red", "eth0")),
            LinkState("loopa", 7, "veth", up=True, operstate="UP", peer=("host", "loopb")),
            LinkState("loopb", 8, "veth", up=True, operstate="UP", peer=("host", "loopa")),
            LinkState("far", 9, "veth", up=True, operstate="UP", peer=("net:[4026539999]", "eth0")),
        ),
        (RouteState("default", "10.0.2.2", "eth0"), RouteState("10.0.0.0/24", "", "br0")),
        ("table inet nat", "chain postrouting"),
    ),
    NetworkState(
        "blue",
        2,
        (LO, LinkState("eth0", 2, "veth", up=True, operstate="UP", peer=("host", "port10"), addresses=("10.0.0.2/24",))),
        (RouteState("default", "10.0.0.1", "eth0"),),
    ),
    NetworkState("red", 3, (LO_DOWN, LinkState("eth0", 2, "veth", up=False, operstate="DOWN", peer=("host", "port2")))),
    NetworkState("empty", 4, (LO_DOWN,)),
)

UNION = UnionState(
    "overlay",
    "/var/lib/labkit/labs/2.3/merged",
    (
        ("upperdir", "/var/lib/labkit/labs/2.3/upper"),
        ("lowerdir", "/var/lib/labkit/labs/2.3/lower2"),
        ("lowerdir", "/var/lib/labkit/labs/2.3/lower1"),
    ),
    "/var/lib/labkit/labs/2.3/work",
    mounted=True,
    files=(
        FileState("dir", (0, 2), "opaque"),
        FileState("dir/old", (2,), "file", visible=False),
        FileState("f1", (2,)),
        FileState("f2", (0, 1), copied_up=True),
        FileState("f3", (0, 2), "whiteout", visible=False),
        FileState("f4", (1, 2)),
        FileState("new", (0,)),
    ),
)

MANIFESTS = tuple(Descriptor("application/vnd.oci.image.manifest.v1+json", f"sha256:{digit * 64}", 400) for digit in "ab")
LAYERS = tuple(Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", f"sha256:{digit * 64}", 29_600_000) for digit in "cd")
IMAGE = ImageParts(
    "docker.io/library/nginx:latest",
    Descriptor("application/vnd.oci.image.index.v1+json", "sha256:" + "e" * 64, 900),
    MANIFESTS,
    MANIFESTS[0],
    Descriptor("application/vnd.oci.image.config.v1+json", "sha256:" + "f" * 64, 1500),
    ImageConfig(
        Platform("amd64", "linux"),
        ("sha256:1", "sha256:2"),
        Execution(("nginx", "-g", "daemon off;")),
        (History("ADD"), History("CMD", empty_layer=True), History("COPY")),
    ),
    LAYERS,
)
EQUAL = Compared(297, ("dev", "proc"), ())
UNEQUAL = Compared(297, (), (Unequal(".dockerenv", "only in the second"), Unequal("etc/passwd", "mode, owner")))
