"""X-rays of real containers, each fact read a second time by another tool."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
import six_ways
from six_ways import BRIDGE, GATEWAY, child_of, run, started

from labkit import ledger, show
from labkit.course.lab import attach
from labkit.errors import LabError
from labkit.kernel import xray
from labkit.kernel.xray import Machine, NotRead
from labkit.kernel.xray.containers import containers as found_containers
from labkit.kernel.xray.records import Xray
from labkit.show.xray import facts

ROOT = Path(__file__).parents[2]
WAYS = ("chroot", "unshare", "lxc", "lxc-unpriv", "nspawn", "runc")
READS = "+dac_read_search"
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", f"--inh-caps={READS}", f"--ambient-caps={READS}")
"""Another user, who may read a checkout below /root all the same."""
OUTSIDE = """\
ip link add br0 type bridge
ip addr add 10.9.0.1/24 dev br0
ip link set br0 up
ip link add wan type veth peer name wire
ip link set wire up
ip addr add 192.0.2.2/24 dev wan
ip link set wan up
ip route add default via 192.0.2.1
nft -f - <<END
table ip nat {
    chain pre {
        type nat hook prerouting priority dstnat
        tcp dport 8080 dnat to 10.9.0.2:80
        tcp dport 81 dnat to 10.9.0.3:81
    }
    chain post {
        type nat hook postrouting priority srcnat
        ip saddr 10.9.0.0/24 masquerade
    }
}
END
exec sleep 600
"""
OPTIONS = {"mount": "mnt", "net": "net", "pid": "pid", "uts": "uts", "ipc": "ipc", "user": "user", "cgroup": "cgroup", "time": "time"}

Running = tuple[dict[str, int], dict[str, Xray]]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that also a mapped root may enter."""
    directory = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="xray-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def running(place: Path) -> Iterator[Running]:
    with six_ways.everything(place) as pids:
        yield pids, {each.name: each for each in xray.xrays(list(pids.items()))}


def labkit(*argv: object, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*before, ROOT / ".venv/bin/labkit", *map(str, argv)], capture_output=True, text=True, timeout=60)


def status(pid: int) -> dict[str, str]:
    return {
        name: value.strip() for name, _, value in (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    }


@pytest.mark.parametrize("way", WAYS)
def test_the_namespaces_are_those_of_lsns(running: Running, way: str) -> None:
    pids, found = running
    listed = {}
    for line in run("lsns", "--noheadings", "--output", "TYPE,NS", "--task", str(pids[way])).splitlines():
        kind, inode = line.split()
        listed[kind] = int(inode)
    assert {OPTIONS[each.kind]: each.inode for each in found[way].namespaces} == listed
    here = {kind: int(os.readlink(f"/proc/self/ns/{file}").split("[")[1][:-1]) for kind, file in OPTIONS.items()}
    assert {each.kind: each.own for each in found[way].namespaces} == {kind: listed[OPTIONS[kind]] != here[kind] for kind in here}


def test_what_each_way_isolates_is_what_it_is_known_for(running: Running) -> None:
    _, found = running
    own = {way: {each.kind for each in found[way].namespaces if each.own} for way in WAYS}
    most = {"mount", "uts", "ipc", "net", "pid"}
    assert own["chroot"] == set()
    assert own["unshare"] == most
    assert own["lxc"] == own["nspawn"] == most | {"cgroup"}
    assert own["lxc-unpriv"] == most | {"cgroup", "user"}
    assert own["runc"] >= most


@pytest.mark.parametrize("way", WAYS)
def test_the_owner_of_each_namespace_is_that_of_lsns(running: Running, way: str) -> None:
    pids, found = running
    owners = {}
    for line in run("lsns", "--noheadings", "--output", "TYPE,ONS", "--task", str(pids[way])).splitlines():
        kind, owner = line.split()
        owners[kind] = int(owner) or None
    assert {OPTIONS[each.kind]: each.owner for each in found[way].namespaces} == owners


@pytest.mark.parametrize("way", WAYS)
def test_the_host_name_is_that_of_nsenter(running: Running, way: str) -> None:
    pids, found = running
    assert found[way].hostname == run("nsenter", "--target", str(pids[way]), "--uts", "hostname").strip()


@pytest.mark.parametrize("way", WAYS)
def test_the_capabilities_are_those_of_capsh(running: Running, way: str) -> None:
    pids, found = running
    for field, name in (
        ("CapEff", "effective"),
        ("CapPrm", "permitted"),
        ("CapInh", "inheritable"),
        ("CapBnd", "bounding"),
        ("CapAmb", "ambient"),
    ):
        decoded = run("capsh", f"--decode={status(pids[way])[field]}").strip().partition("=")[2]
        assert [each.lower() for each in found[way].security.capabilities[name]] == [each for each in decoded.split(",") if each]
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    assert len(found[way].security.known) == last + 1
    assert set(found[way].security.dropped()) == set(found[way].security.known) - set(found[way].security.capabilities["bounding"])


@pytest.mark.parametrize("way", WAYS)
def test_seccomp_and_no_new_privs_are_those_of_the_kernel(running: Running, way: str) -> None:
    pids, found = running
    told, security = status(pids[way]), found[way].security
    assert ("disabled", "strict", "filter")[int(told["Seccomp"])] == security.seccomp
    assert int(told["Seccomp_filters"]) == security.filters
    assert bool(int(told["NoNewPrivs"])) is security.no_new_privs
    assert Path(f"/proc/{pids[way]}/oom_score_adj").read_text().strip() == str(security.oom_score_adj)


@pytest.mark.parametrize("way", WAYS)
def test_the_mounts_are_those_of_findmnt(running: Running, way: str) -> None:
    pids, found = running
    if way == "chroot":
        assert found[way].mounts == ()  # of its own root it is not told: no mount is below it
        return
    columns = "ID,TARGET,FSTYPE,PROPAGATION,FSROOT"
    listed = json.loads(run("findmnt", "-N", str(pids[way]), "--json", "--list", "--output", columns))["filesystems"]
    mine = {each.id: (each.mountpoint, each.fstype, set(each.propagation.split(",")), each.root) for each in found[way].mounts}
    theirs = {each["id"]: (each["target"], each["fstype"], set(each["propagation"].split(",")), each["fsroot"]) for each in listed}
    assert {key: (mine[key][1], mine[key][2]) for key in mine} == {
        key: (fstype, propagation - ({"private"} if "slave" in propagation else set()))
        for key, (_, fstype, propagation, _) in theirs.items()
    }


@pytest.mark.parametrize("way", WAYS)
def test_the_root_is_where_the_host_has_it(running: Running, way: str, place: Path) -> None:
    pids, found = running
    root = found[way].root
    assert root.on_host == str(place / "rootfs")
    assert os.path.samefile(f"/proc/{pids[way]}/root/.", root.on_host)
    assert root.same is False
    assert root.chroot == (way in ("chroot", "unshare"))
    assert root.link == os.readlink(f"/proc/{pids[way]}/root")
    assert root.mount.fstype == run("stat", "--file-system", "--format=%T", place / "rootfs").strip().replace("ext2/ext3", "ext4")
    assert root.read_only == (way == "runc")


@pytest.mark.parametrize("way", WAYS)
def test_the_id_maps_are_those_of_the_kernel(running: Running, way: str) -> None:
    pids, found = running
    for mine, file in ((found[way].maps.uid, "uid_map"), (found[way].maps.gid, "gid_map")):
        assert [list(row) for row in mine] == [
            [*map(int, line.split())] for line in Path(f"/proc/{pids[way]}/{file}").read_text().splitlines()
        ]
    assert found[way].maps.identity == (way != "lxc-unpriv")
    member = found[way].process
    assert member.uid == int(run("ps", "-o", "euid=", "-p", str(pids[way])))
    assert member.uid_inside == 0


@pytest.mark.parametrize("way", WAYS)
def test_the_network_is_that_of_ip(running: Running, way: str) -> None:
    pids, found = running
    enter = ("nsenter", "--target", str(pids[way]), "--net", "ip", "-json")
    mine = {link.ifname: (link.mac, set(link.addresses)) for link in found[way].network.links}
    links = json.loads(run(*enter, "address"))
    assert mine.keys() == {link["ifname"] for link in links}
    for link in links:
        addresses = {f"{each['local']}/{each['prefixlen']}" for each in link["addr_info"]}
        assert {each for each in mine[link["ifname"]][1] if not each.startswith("fe80")} == {
            each for each in addresses if not each.startswith("fe80")
        }
        assert link.get("address", "") == mine[link["ifname"]][0]
    default = [each["gateway"] for each in json.loads(run(*enter, "route")) if each["dst"] == "default" and "gateway" in each]
    assert default == [route.gateway for route in found[way].network.routes if route.destination == "default" and ":" not in route.gateway]


@pytest.mark.parametrize("way", ["lxc", "lxc-unpriv", "nspawn"])
def test_the_veth_leads_to_its_end_on_the_bridge(running: Running, way: str) -> None:
    pids, found = running
    (path,) = found[way].network.ways
    (inside,) = (
        each
        for each in json.loads(run("nsenter", "--target", str(pids[way]), "--net", "ip", "-json", "-details", "link"))
        if each["ifname"] == path.ifname
    )
    ports = {each["ifindex"]: each["ifname"] for each in json.loads(run("ip", "-json", "link", "show", "master", BRIDGE))}
    assert (path.peer, path.netns, path.bridge) == (ports[inside["link_index"]], "host", BRIDGE)
    assert f"{GATEWAY}/24" in path.bridge_addresses
    outside = json.loads(run("ip", "-json", "route", "show", "default"))
    assert path.outside == (outside[0]["dev"] if outside else "")


@pytest.mark.parametrize("way", ["lxc", "lxc-unpriv"])
def test_lxc_info_says_the_same(running: Running, way: str, place: Path) -> None:
    _, found = running
    assert int(run("lxc-info", "-P", place / "lxc", "-n", way, "-p", "-H")) == found[way].process.pid
    addresses = run("lxc-info", "-P", place / "lxc", "-n", way, "-i", "-H").split()
    assert {each.partition("/")[0] for link in found[way].network.links for each in link.addresses if link.ifname == "eth0"} >= set(
        addresses
    )
    assert found[way].tree.outside[0].argv[0].startswith("[lxc monitor]")
    assert ("environment", "container=lxc") in {(sign.where, sign.what) for sign in found[way].signs}


@pytest.mark.parametrize("way", WAYS)
def test_the_cgroups_are_those_of_the_kernel(running: Running, way: str) -> None:
    pids, found = running
    lines = [line.split(":", 2)[1:] for line in Path(f"/proc/{pids[way]}/cgroup").read_text().splitlines()]
    assert {each.hierarchy: each.path for each in found[way].cgroups.places} == dict(lines)
    for each in found[way].cgroups.places:
        if each.directory and (Path(each.directory) / "cgroup.procs").exists():
            assert pids[way] in map(int, (Path(each.directory) / "cgroup.procs").read_text().split())


def test_limits_and_use_are_read_under_their_v2_names(running: Running) -> None:
    _, found = running
    limits = {limit.key: limit for limit in found["runc"].cgroups.limits}
    assert (limits["memory.max"].value, limits["memory.max"].cgroup) == (64 << 20, "/xray-runc")
    assert 0 < limits["memory.max"].used < 64 << 20
    assert (limits["pids.max"].value, limits["pids.max"].used) == (20, 1)


def test_the_processes_are_those_of_the_pid_namespace(running: Running) -> None:
    pids, found = running
    for way in WAYS[1:]:
        tree = found[way].tree
        assert tree.by == "pid namespace"
        assert [(each.pid, each.inside) for each in tree.members] == [(pids[way], 1)]
        assert tree.outside[-1].pid == 1
        assert tree.outside[0].pid == int(run("ps", "-o", "ppid=", "-p", str(pids[way])))
    assert found["chroot"].tree.by == "descendants"


def test_each_is_found_by_its_name_without_asking_its_runtime(running: Running) -> None:
    pids, _ = running
    there = {each.pid: each for each in found_containers(Machine())}
    for name, way in (("lxc", "lxc"), ("lxc-unpriv", "lxc-unpriv"), ("xray-nspawn", "nspawn"), ("xray-runc", "runc")):
        assert there[pids[way]].is_called(name)
    assert labkit("xray", "xray-runc").stdout.startswith(f"xray-runc: pid {pids['runc']} = 1, /bin/sleep 600\n")


def test_one_command_sets_them_side_by_side_and_marks_what_differs(running: Running) -> None:
    pids, found = running
    done = labkit("xray", *(pids[way] for way in WAYS))
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    for name in ("mount ns", "user ns", "root inside", "seccomp"):
        assert f"\n≠ {name} " in done.stdout
    assert "\n  time ns " in done.stdout
    assert facts(found["lxc-unpriv"])["root inside"] == "uid 100000"
    assert facts(found["chroot"])["network"] == "the host's"


def test_the_json_keeps_to_its_schema(running: Running) -> None:
    pids, found = running
    done = labkit("xray", "--json", *pids.values())
    document = json.loads(done.stdout)
    jsonschema.validate(document, json.loads((ROOT / "docs/xray.schema.json").read_text()))
    assert [each["process"]["pid"] for each in document["containers"]] == list(pids.values())
    assert json.loads(show.to_json(found.values()))["version"] == 1


def test_the_page_stands_alone_and_says_the_same_in_words(running: Running, tmp_path: Path) -> None:
    pids, _ = running
    done = labkit("xray", pids["lxc"], "--html", tmp_path / "x.html")
    assert (done.returncode, done.stdout) == (0, "")
    page = (tmp_path / "x.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert re.search(r'<img alt="[^"]*namespaces  own: mount uts ipc net pid cgroup', page)
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_a_page_that_cannot_be_written_is_one_line(running: Running) -> None:
    done = labkit("xray", running[0]["lxc"], "--html", "/no/such/place.html")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)


def test_a_reader_without_permission_is_told_what_is_hidden_from_him_and_the_rest(running: Running) -> None:
    pids, _ = running
    done = labkit("xray", pids["runc"], before=NOBODY)
    assert done.returncode == 0, done.stderr
    assert "namespaces  not readable: EACCES" in done.stdout
    assert "network     not readable: EACCES" in done.stdout
    assert re.search(r"memory.max +64M", done.stdout)
    assert re.search(r"effective +3 of \d+: kill net_bind_service audit_write", done.stdout)
    assert "seccomp      filter, 1 filter" in done.stdout


def test_a_process_that_ends_while_it_is_read_gives_no_half_picture() -> None:
    with started("sleep", "600") as pid:

        class Late(Machine):
            def network(self, number: int) -> None:
                os.kill(pid, signal.SIGKILL)
                while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                    time.sleep(0.001)

        with pytest.raises(LabError, match=rf"process {pid} \(sleep\) ended while it was read"):
            xray.xray(pid, machine=Late())


def test_a_process_that_ended_before_is_not_there() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    done = labkit("xray", process.pid)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"labkit: there is no process {process.pid}\n")


def test_a_zombie_says_what_it_is_and_who_should_have_waited() -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    text = show.xray_view(xray.xray(process.pid)).text
    process.wait()
    assert f"a zombie: it has ended, and its parent {Path('/proc/self/comm').read_text().strip()} (pid {os.getpid()})" in " ".join(
        text.split()
    )
    assert "root " not in text


def test_a_kernel_thread_says_what_it_is() -> None:
    found = xray.xray(2)
    assert found.process.kind == "kernel thread"
    text = show.xray_view(found).text
    assert "a kernel thread: it has no program" in text
    assert "root  " not in text


def test_a_thread_says_of_which_process_it_is() -> None:
    done, ids = threading.Event(), []
    thread = threading.Thread(target=lambda: (ids.append(threading.get_native_id()), done.wait()))
    thread.start()
    while not ids:
        time.sleep(0.001)
    found = xray.xray(ids[0])
    done.set()
    thread.join()
    assert found.process.kind == "thread"
    assert f"a thread of process {os.getpid()}" in show.xray_view(found).text


def test_the_host_says_that_it_is_the_host() -> None:
    found = xray.xray(os.getpid())
    assert found.is_host
    assert "this is the host: it shares every namespace and the root directory" in show.xray_view(found).text
    assert found.root.on_host == "/"


def test_a_container_in_a_container_is_seen_from_both() -> None:
    inner = ["unshare", "--pid", "--fork", "--kill-child", "sleep", "600"]
    with started("unshare", "--pid", "--fork", "--kill-child", *inner) as pid:
        innermost = xray.xray(pid)
        outer = xray.xray(innermost.tree.outside[0].pid)
        assert innermost.process.pids == tuple(map(int, status(pid)["NSpid"].split()))
        assert (len(innermost.process.pids), innermost.process.inside) == (3, 1)
        assert [(each.comm, each.inside) for each in outer.tree.members] == [("unshare", 1), ("sleep", 2)]
        assert next(each for each in outer.namespaces if each.kind == "pid").for_children == innermost.namespaces[4].inode
        assert f"pid {pid} = 2 = 1, sleep 600" in show.xray_view(innermost).text


def test_layers_are_resolved_in_their_order(place: Path) -> None:
    for name in ("one", "two", "upper", "work", "merged"):
        (place / name).mkdir()
    six_ways.make_rootfs(place / "one")
    (place / "link").symlink_to("two")
    options = f"lowerdir={place}/link:{place}/one,upperdir={place}/upper,workdir={place}/work"
    mounting = f"mount -t overlay overlay -o {options} {place}/merged && exec chroot {place}/merged /bin/sleep 600"
    with started("unshare", "--mount", "--propagation=slave", "sh", "-c", mounting) as pid:
        root = xray.xray(pid).root
    assert (root.chroot, root.mount.fstype) == (True, "overlay")
    assert root.lowerdir == (str(place / "two"), str(place / "one"))
    assert (root.upperdir, root.workdir) == (str(place / "upper"), str(place / "work"))


def test_port_mappings_and_masquerading_are_found_where_the_veth_ends() -> None:
    """In a namespace of its own, `outside`, so that the machine's rules stay as they are."""
    with started("unshare", "--net", "sh", "-e", "-c", OUTSIDE) as outside, started("unshare", "--net", "sleep", "600") as pid:
        run(*f"ip link add vx netns {outside} type veth peer name eth0 netns {pid}".split())
        run("nsenter", "-t", str(outside), "-n", "sh", "-c", "ip link set vx master br0 up")
        run(
            "nsenter",
            "-t",
            str(pid),
            "-n",
            "sh",
            "-c",
            "ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 10.9.0.1",
        )
        found = xray.xray(pid)
        inode = os.stat(f"/proc/{outside}/ns/net").st_ino
    (way,) = found.network.ways
    assert (way.ifname, way.peer, way.netns, way.bridge, way.outside) == ("eth0", "vx", f"net:[{inode}]", "br0", "wan")
    assert way.masquerade == ("ip saddr 10.9.0.0/24 masquerade",)
    assert [(port.protocol, port.port, port.to_address, port.to_port) for port in found.network.ports] == [
        ("tcp", "8080", "10.9.0.2", "80")
    ]
    told = f"eth0 → vx in net:[{inode}] → bridge br0 10.9.0.1/24 → wan via 192.0.2.1, masqueraded"
    assert told in " ".join(show.xray_view(found).text.split())


def test_a_hidden_process_is_told_from_one_that_is_not_there() -> None:
    with started("sleep", "600") as pid:
        line = f"mount -t proc -o hidepid=2 proc /proc && exec {' '.join(NOBODY)} {ROOT}/.venv/bin/labkit xray {pid}"
        done = subprocess.run(["unshare", "--mount", "sh", "-c", line], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    said = f"process {pid} is there, but /proc does not show it; cause: /proc is mounted with hidepid=invisible"
    assert done.stderr == f"labkit: {said}; remedy: sudo labkit xray {pid}\n"


def test_a_notebook_sees_what_the_terminal_sees() -> None:
    owner = ledger.owner()
    try:
        lab = attach("2.1")
        view = lab.xray(os.getpid(), only=["root"])
        assert view.text.split("\n")[0] == labkit("xray", os.getpid()).stdout.split("\n")[0]
        assert "\nroot        the host's\n" in view.text
        assert view._repr_mimebundle_().keys() == {"text/plain", "text/html"}
        assert lab.xray(os.getpid(), str(os.getppid())).text.startswith(" ")
        with pytest.raises(LabError, match="no process and no container here is called 'nosuch'"):
            lab.xray("nosuch")
    finally:
        ledger.own(owner)


def test_an_unknown_name_is_one_line_with_the_near_ones(running: Running) -> None:
    done = labkit("xray", "xray-nspwan")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("labkit: no process and no container here is called 'xray-nspwan'; remedy: did you mean xray-nspawn")
    assert len(done.stderr.splitlines()) == 1


def test_two_hundred_containers_take_less_than_a_tenth_of_a_second_each() -> None:
    line = "for i in $(seq 200); do unshare --mount --uts --net --pid --fork --kill-child sleep 600 & done; wait"
    process = subprocess.Popen(["bash", "-c", line], start_new_session=True)
    try:
        child_of(process.pid)
        deadline = time.monotonic() + 30
        while len(pids := sleeping(process.pid)) < 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        begin = time.process_time()  # ours, user and system: what else the machine does meanwhile is not counted
        found = xray.xrays([(str(pid), pid) for pid in pids])
        each = (time.process_time() - begin) / 200
        begin = time.process_time()
        xray.xray(pids[100])
        alone = time.process_time() - begin
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        gone = time.monotonic() + 30
        while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < gone:
            time.sleep(0.05)
    assert len({one.network.name for one in found}) == 200
    assert not any(isinstance(fact, NotRead) for one in found for fact in (one.network, one.root, one.mounts, one.namespaces, one.cgroups))
    assert each < 0.1
    assert alone < 0.1


def sleeping(parent: int) -> list[int]:
    """Return the sleep of each container that a shell has started."""
    listed = run("ps", "-e", "-o", "pid=,ppid=,comm=")
    rows = [line.split() for line in listed.splitlines()]
    unshares = {pid for pid, ppid, comm in rows if comm == "unshare" and int(ppid) == parent}
    return [int(pid) for pid, ppid, comm in rows if comm == "sleep" and ppid in unshares]
