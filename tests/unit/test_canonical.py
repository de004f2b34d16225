"""What is chance in an output compares as equal, and nothing else does."""

import re
from pathlib import Path

import pytest
from nbval.plugin import get_sanitize_patterns

from labkit import ledger
from labkit.course.canonical import canonical, canonical_outputs, sanitize_file, table

SAME = [
    ("Mon Nov 23 19:24:42 UTC 2026", "Tue Dec  1 01:02:03 UTC 2026"),
    ("Mon 23 Nov 2026 07:24:42 PM UTC", "Sun 22 Nov 2026 11:24:42 AM UTC"),
    ("-rw-r--r-- 1 root root 0 Nov 23 19:24 f1", "-rw-r--r-- 1 root root 0 Nov  3 09:24 f1"),
    ("net:[4026532176]", "net:[4026532999]"),
    ("root 0 Nov 23 19:24 mnt -> 'mnt:[4026531841]'", "root 0 Nov 24 19:25 mnt -> 'mnt:[4026532841]'"),
    ("link/ether 6a:b0:11:22:33:44 link-netnsid 0", "link/ether 00:00:11:22:33:45 link-netnsid 3"),
    ("7: veth1@if6: <BROADCAST,MULTICAST>", "12: veth1@if11: <BROADCAST,MULTICAST>"),
    ("64 bytes from 192.168.1.2: icmp_seq=1 ttl=64 time=0.051 ms", "64 bytes from 192.168.1.2: icmp_seq=1 ttl=64 time=1.2 ms"),
    ("127.0.0.1:37537/nginx", "127.0.0.1:42653/nginx"),
    ("dial tcp: lookup a.invalid on 10.0.2.3:53: no such host", "dial tcp: lookup a.invalid on [::1]:53: read udp: connection refused"),
    ("layer 1  1.1 MB", "layer 1  976.3 kB"),
    (f"sha512-{'0a' * 16}", f"sha512-{'1b' * 32}"),
    ("gpg key fingerprint is: E788 4549 20CE D5C9 5237  CD58 39CD 6EEE CEAD 234A", f"gpg key fingerprint is:{' 0A1B' * 10}"),
    ("[ 3931.297] nginx[5]: it runs", "[391931.003] nginx[17]: it runs"),
    ("etcd 3.5.16 of Debian 13", "etcd 3.5.16+ds1-1 of Debian 13"),
    ("29628611 bytes of digest", "31 bytes of digest"),
    ("312 names compared", "1,297 names compared"),
    (f"tar \\\n    /{'0a' * 20}\n    ↪ {'1b' * 12} \\\n        -C x", f"tar \\\n    /{'2c' * 28}\n    ↪ {'3d' * 4} -C x"),
    ("1 packets transmitted, 1 received, 0% packet loss, time 0ms", "1 packets transmitted, 1 received, 0% packet loss, time 12ms"),
    ("rtt min/avg/max/mdev = 0.051/0.051/0.051/0.000 ms", "rtt min/avg/max/mdev = 0.1/0.2/0.3/0.4 ms"),
    ("inet6 fe80::68b0:11ff:fe22:3344/64", "inet6 fe80::1/64"),
    ("bash: line 3: 12345 Killed    ./hog", "bash: line 3: 999 Killed ./hog"),
    ("  812 pts/0    00:00:00 bash", " 99812 ?  00:00:01 bash"),
    ("/proc/4242/ns", "/proc/17/ns"),
    ("pid 4242 was frozen", "pid 7 was frozen"),
    ("/var/lib/labkit/labs/2.1/dir1", "/tmp/pytest-of-root/state0/labs/2.1/dir1"),
    ("/sys/fs/cgroup/freezer/lab-2.1/mycgroup", "/sys/fs/cgroup/lab-2.1/mycgroup"),
    ('<img alt="x" src="data:image/svg+xml;base64,AAAA=="/>', '<img alt="x" src="data:image/svg+xml;base64,BBBBBB"/>'),
    ("Mon Nov 23 19:24:42 UTC 2026\nMon Nov 23 19:24:43 UTC 2026\n", "Mon Nov 23 19:24:45 UTC 2026\n"),
    ("memory.max  64M  used 24.9M", "memory.max  64M  used 812K"),
    ("eth0 → vethyt8b8H → bridge lxcbr0", "eth0 → veth1a2b3c4 → bridge lxcbr0"),
    ("veth1001_Ab3D, up, master lxcbr0", "vethyt8b8H, up, master lxcbr0"),
    ("lxc.idmap = u 0 100000 65536", "lxc.idmap = u 0 10100001  65536"),
    ("labkit-student:100000:65536", "labkit-student:231072:65536"),
    ("uid 100000", "uid 10100001"),
    ("user 0 inside = 1001 outside, 1 id", "user 0 inside = 1000 outside, 1 id"),
    ("the host: the reader, pid 812, for those of pid 1 may not be read", "the host: pid 1"),
    ("ext4  rw  shared:31", "ext4  rw  shared:2"),
    ("+ process    web  pid 12, namespaces ipc", "+ process    web\n                        pid 12345, namespaces ipc"),
    ("/<wbr>var/<wbr>lib", "/var/lib"),
    ("/run/labkit/containerd/io.con…me.v2.task/lab-4.2/web", "/run/containerd/io.containerd.runtime.v2.task/lab-4.2/web"),
    ("Docker version 28.2.2, build e6534b4", "Docker version 26.1.5+dfsg1, build a72d7cd"),
    (
        "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3\n",
        "containerd github.com/containerd/containerd 1.7.24~ds1\n",
    ),
    ('"runtime_version": "1.6.20~ds1",', '"runtime_version": "1.7.24~ds1",'),
    ("/var/lib/labkit/docker/overlay2/0f0d5c7687a4…/merged", "/var/lib/docker/overlay2/123456789012…/merged"),
    ("pid    5  a\n--------", "pid  12345  a\n------------"),
    ('"6f4a2c11-0d3e-4b57-9a66-0c1d2e3f4a5b"', '"11111111-2222-4333-9444-555555555555"'),
    ("sha512-0123456789ab", f"sha512-{'c' * 32}"),
    ("default:ip4=172.16.28.2", "default:ip4=172.16.28.17"),
]
SAME += [
    ("busybox     4242      paused    /b   2026-11-28T13:39:14.1Z   root", "busybox  17  paused  /b  2026-11-28T13:40:14.25Z  root"),
    ("freezer:/lab-6.1/runc/busybox\n  freezer.state: THAWED -> FROZEN", "cgroup2:/lab-6.1/runc/busybox\n  cgroup.freeze: 0 -> 1"),
    ("freezer.state: FROZEN → THAWED", "cgroup.freeze: 1 → 0"),
    ("root     12302   12290  0 17:54 pts/0    00:00:00 sh", "root         317     301  3 Nov28 pts/0    00:00:00 sh"),
    ("- mount $LAB/vfs/root ext4 /dev/loop1", "- mount $LAB/vfs/root ext4 /dev/loop12"),
    ("inet 172.30.0.2/24 brd 172.30.0.255 scope global eth0", "inet 172.30.0.17/24 brd 172.30.0.255 scope global eth0"),
    ("inet 172.18.0.2/16 brd 172.18.255.255 scope global eth0", "inet 172.21.0.3/16 brd 172.21.255.255 scope global eth0"),
    ("chain DOCKER_OUT….0.11:39037 in net of sh", "chain DOCKER_OUT….0.11:5228 in net of sh"),
    ("tcp dport 53 counter dnat to 127.0.0.11:39037", "tcp dport 53 counter dnat to 127.0.0.11:52288"),
    ("tcp sport 39037 counter snat to :53", "tcp sport 52288 counter snat to :53"),
    ('chain FORWARD…54b" counter accept', 'chain FORWARD…0fd" counter accept'),
    ("net at /proc/29843/root/run/netns/cni-886b0fe1…", "net at /proc/412/root/run/netns/cni-eb519584…"),
    ("10.203.10.24/24 on eth0", "10.203.10.7/24 on eth0"),
    ("/run/labkit/containerd/io.con…k/k8s.io/524947918195…/rootfs", "/run/containerd/io.containerd…k/k8s.io/e5966c5a8e57…/rootfs"),
    (
        f"/run/labkit/containerd/io.containerd.runtime.v2.task/k8s.io/{'e5' * 32}/rootfs",
        f"/run/containerd/io.containerd.runtime.v2.task/k8s.io/{'52' * 32}/rootfs",
    ),
]

DIFFERENT = [
    ("busybox  4242  paused  /b", "busybox  4242  running  /b"),
    ("busybox  0  stopped  /b", "busybox  17  stopped  /b"),
    ("127.0.0.1:37537/nginx", "127.0.0.1:37537/alpine"),
    ("127.0.0.1:5000", "127.0.0.1:5001"),
    ("dial tcp: lookup one.invalid: no such host", "dial tcp: lookup other.invalid: no such host"),
    ("layer 1  1.1 MB", "layer 2  1.1 MB"),
    ("+ mount      /a\n                        overlay", "+ mount      /a\n                        tmpfs"),
    ("10.203.10.1 dev eth0", "10.203.10.7 dev eth0"),
    ("FROZEN", "THAWED"),
    ("freezer.state: FROZEN -> THAWED", "cgroup.freeze: 0 -> 1"),
    ("oom_kill 0", "oom_kill 1"),
    ("1 received", "0 received"),
    ("/proc/1/cgroup", "/proc/2/cgroup"),
    ("lab-2.1/mycgroup", "lab-2.1/other"),
    ("192.168.1.1", "192.168.1.2"),
    ("veth1 in namespace1", "veth2 in namespace1"),
    ("ext4  rw  shared:31", "ext4  rw  private"),
    ("32 of 41", "33 of 41"),
    ("memory.max 64M", "memory.max 65M"),
    ("lxc.idmap = u 0 0 65536", "lxc.idmap = u 0 100000 65536"),
    ("uid 0", "uid 100000"),
    ("user 0 inside = 0 outside, 1 id", "user 0 inside = 1001 outside, 1 id"),
    ("uid 1001", "uid 100000"),
    ("/run/containerd/io.con…me.v2.task/lab-4.2/web", "/run/containerd/io.con…me.v2.task/lab-4.2/kept"),
    ("f1\nf2", "f1\nf3"),
    ("a\na", "a"),
    ("exit status 1", "exit status 2"),
    ("pids.max 20", "pids.max 21"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_chance_compares_as_equal(one, other):
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_meaning_does_not(one, other):
    assert canonical(one) != canonical(other)


@pytest.mark.parametrize("text", [text for pair in SAME + DIFFERENT for text in pair])
def test_a_canonical_text_stays_as_it_is(text):
    assert canonical(canonical(text)) == canonical(text)


def test_nbval_reads_the_same_table_from_the_sanitize_file(tmp_path: Path):
    patterns = get_sanitize_patterns(sanitize_file(tmp_path / "sanitize.cfg").read_text())
    assert patterns == list(table())
    for one, _ in SAME:
        text = one
        for pattern, replacement in patterns:
            text = re.sub(pattern, replacement, text)
        assert text == canonical(one)


def test_the_state_of_this_run_compares_as_that_at_the_usual_place():
    assert canonical(f"--root {ledger.state()}/runc") == canonical("--root /var/lib/labkit/runc")
    assert canonical(f"--root {ledger.state()}-other/runc") != canonical("--root /var/lib/labkit/runc")


def test_where_a_stream_is_cut_is_chance():
    whole = [{"output_type": "stream", "name": "stdout", "text": "a\nb\n"}]
    pieces = [{"output_type": "stream", "name": "stdout", "text": ["a\n"]}, {"output_type": "stream", "name": "stdout", "text": "b\n"}]
    assert canonical_outputs(whole) == canonical_outputs(pieces)


def test_every_mime_type_of_an_output_is_compared():
    def output(html: str) -> dict:
        return {"output_type": "display_data", "data": {"text/plain": "x", "text/html": html}, "metadata": {}}

    assert canonical_outputs([output("<b>1</b>")]) != canonical_outputs([output("<b>2</b>")])
