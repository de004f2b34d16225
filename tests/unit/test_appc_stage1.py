"""What stage 1 works out before it changes anything: volumes, ids, environment, isolators, lines of output."""

import errno
import os
from fractions import Fraction
from pathlib import Path

import pytest

from labkit.appc import apps, isolators, volumes
from labkit.appc.app import App, MountPoint
from labkit.appc.console import Lines
from labkit.appc.image_manifest import Isolator
from labkit.appc.pod import Pod, Settings
from labkit.appc.pod_manifest import Mount, PodManifest, RuntimeApp, Volume
from labkit.appc.types import ImageID
from labkit.errors import LabError
from labkit.kernel import seccomp
from labkit.kernel.credentials import names_of

UUID = "31733fb7-2d2e-4d30-9b57-1a1b3f5d8c11"


def app(name: str = "main", **more: object) -> RuntimeApp:
    options = {key: more.pop(key) for key in ("mounts", "read_only_root_fs") if key in more}
    return RuntimeApp(name, ImageID("sha512-" + "0" * 64), app=App(("/bin/sh",), "0", "0", **more), **options)  # type: ignore[arg-type]


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    (tmp_path / "pods/run" / UUID).mkdir(parents=True)
    return Pod(tmp_path, UUID)


def bound(pod: Pod, one: RuntimeApp, *given: Volume) -> list[tuple[str, str, bool]]:
    found = volumes.bound(pod, PodManifest((one,), given), one)
    return [(each.target, os.path.relpath(each.source, pod.directory), each.read_only) for each in found]


def test_a_mount_point_gets_the_volume_of_its_name(pod: Pod) -> None:
    one = app(mount_points=(MountPoint("data", "/srv/data"), MountPoint("logs", "/logs", read_only=True)))
    given = (Volume("data", "empty"), Volume("logs", "empty"))
    assert bound(pod, one, *given) == [("/logs", "sharedVolumes/logs", True), ("/srv/data", "sharedVolumes/data", False)]


def test_a_mount_point_without_a_volume_gets_an_empty_one_and_a_warning(pod: Pod) -> None:
    one = app(mount_points=(MountPoint("data", "/data"),))
    assert bound(pod, one) == [("/data", "sharedVolumes/data", False)]
    (warning,) = volumes.warnings(PodManifest((one,)))
    assert warning.startswith('stage1: warning: no volume specified for mount point "data", implicitly creating an "empty" volume')


def test_a_mount_takes_the_place_of_a_mount_point(pod: Pod, tmp_path: Path) -> None:
    one = app(mount_points=(MountPoint("data", "/data/"),), mounts=(Mount("mine", "/data"),))
    given = Volume("mine", "host", str(tmp_path), read_only=True)
    (found,) = volumes.bound(pod, PodManifest((one,), (given,)), one)
    assert (found.target, found.source, found.read_only, found.recursive) == ("/data", str(tmp_path), True, True)
    assert volumes.warnings(PodManifest((one,), (given,))) == ()


def test_what_lies_above_is_mounted_first(pod: Pod) -> None:
    one = app(mount_points=(MountPoint("b", "/a/b/c"), MountPoint("a", "/a")))
    assert [target for target, _, _ in bound(pod, one)] == ["/a", "/a/b/c"]


@pytest.mark.parametrize(("path", "place"), [("data", "/data"), ("//data//x/", "/data/x"), ("/../data", "/data"), ("/a/./b/../c", "/a/c")])
def test_a_place_is_written_in_one_way(pod: Pod, path: str, place: str) -> None:
    assert bound(pod, app(mount_points=(MountPoint("data", path),)))[0][0] == place


def test_a_volume_is_not_the_root(pod: Pod) -> None:
    with pytest.raises(LabError, match="it is the root of the app"):
        bound(pod, app(mount_points=(MountPoint("data", "/x/.."),)))


def test_a_host_volume_that_is_not_there_or_a_link_is_refused(pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    one = app(mount_points=(MountPoint("data", "/data"),))
    for source, why in ((tmp_path / "nowhere", "no such file"), (tmp_path / "link", "symbolic link")):
        with pytest.raises(LabError, match=why):
            bound(pod, one, Volume("data", "host", str(source)))


def test_empty_volumes_have_the_mode_that_was_asked_for(pod: Pod) -> None:
    one = app(mount_points=(MountPoint("data", "/data"), MountPoint("tmp", "/tmp")))
    volumes.make_empty(pod, PodManifest((one,), (Volume("tmp", "empty", mode="1777"),)))
    modes = {name: (pod.directory / "sharedVolumes" / name).stat().st_mode & 0o7777 for name in ("data", "tmp")}
    assert modes == {"data": 0o755, "tmp": 0o1777}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nwww:x:33:44::/:\n7:x:1007:1::/:\nbad line\n")
    (tmp_path / "root/etc/group").write_text("root:x:0:\nweb:x:44:\n")
    (tmp_path / "root/owned").write_text("")
    return tmp_path / "root"


@pytest.mark.parametrize(("user", "group", "ids"), [("0", "0", (0, 0)), ("www", "web", (33, 44)), ("7", "12", (1007, 12))])
def test_a_user_is_a_name_of_the_image_or_else_a_number(root: Path, user: str, group: str, ids: tuple[int, int]) -> None:
    assert apps.ids(root, App((), user, group)) == ids


def test_a_user_may_be_the_owner_of_a_file(root: Path) -> None:
    status = (root / "owned").stat()
    assert apps.ids(root, App((), "/owned", "/owned")) == (status.st_uid, status.st_gid)


@pytest.mark.parametrize(("user", "why"), [("nobody", "none of this name"), ("/nothing", "no such file"), ("4294967295", "none of this")])
def test_a_user_that_the_image_does_not_have_is_refused(root: Path, user: str, why: str) -> None:
    with pytest.raises(LabError, match=why):
        apps.ids(root, App((), user, "0"))


def test_a_passwd_that_leads_out_of_the_image_is_not_read(root: Path) -> None:
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").symlink_to("../../../../../../etc/passwd")
    with pytest.raises(LabError):
        apps.ids(root, App((), "daemon", "0"))


def test_the_environment_is_the_images_and_what_the_executor_says() -> None:
    one = app(environment=(("A", "1"), ("AC_APP_NAME", "liar")))
    assert apps.environment(one, {}) == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "A": "1",
        "AC_APP_NAME": "main",
        "container": "rkt",
    }
    assert apps.environment(app(environment=(("PATH", "/x"),)), {})["PATH"] == "/x"


def test_the_files_of_a_pod() -> None:
    found = apps.files(Settings(dns=("10.0.0.1",), dns_search=("a", "b"), hosts_entry=("10.2.1.42=db",)), "rkt-1", "172.16.28.2")
    assert found["/etc/hosts"].splitlines()[-2:] == ["172.16.28.2\trkt-1", "10.2.1.42\tdb"]
    assert found["/etc/resolv.conf"] == "search a b\nnameserver 10.0.0.1\n"
    assert "/etc/resolv.conf" not in apps.files(Settings(), "rkt-1")


def limits(**asked: object) -> isolators.Limits:
    return isolators.limits(Isolator(name.replace("__", "/").replace("_", "-"), value) for name, value in asked.items())


def test_without_isolators_an_app_has_fourteen_capabilities() -> None:
    assert f"{limits().capabilities:x}" == "a80425fb"


def test_capabilities_are_retained_and_removed() -> None:
    kept = limits(os__linux__capabilities_retain_set={"set": ["CAP_NET_ADMIN", "kill"]})
    assert names_of(kept.capabilities) == ("CAP_KILL", "CAP_NET_ADMIN")
    less = limits(os__linux__capabilities_remove_set={"set": ["CAP_MKNOD"]})
    assert limits().capabilities & ~less.capabilities == 1 << 27
    with pytest.raises(LabError, match="no capability is called CAP_FLY"):
        limits(os__linux__capabilities_retain_set={"set": ["CAP_FLY"]})


def test_amounts_are_exact() -> None:
    found = limits(resource__cpu={"limit": "250m", "request": "1"}, resource__memory={"limit": "64Mi"}, os__linux__cpu_shares=512)
    assert (found.cpu, found.memory, found.cpu_shares) == (Fraction(1, 4), 64 << 20, 512)
    assert limits(resource__memory={"limit": "1G"}).memory == 10**9
    assert limits(resource__memory={"request": "1G"}).memory is None


def test_what_is_not_done_is_reported(tmp_path: Path) -> None:
    asked = [Isolator("resource/block-iops", {"default": True, "limit": "1"}), Isolator("example.com/new", None)]
    found = isolators.limits([*asked, Isolator("os/linux/selinux-context", {"type": "t"})], tmp_path).reported
    assert [line.split(" is ")[0] for line in found] == [
        "isolator resource/block-iops", "isolator example.com/new", "isolator os/linux/selinux-context",
    ]  # fmt: skip


def test_a_profile_that_is_not_loaded_is_refused(tmp_path: Path) -> None:
    asked = [Isolator("os/linux/apparmor-profile", {"name": "web"})]
    with pytest.raises(LabError, match="AppArmor profile web is not loaded"):
        isolators.limits(asked, tmp_path)
    (tmp_path / "kernel/security/apparmor").mkdir(parents=True)
    (tmp_path / "kernel/security/apparmor/profiles").write_text("other (enforce)\nweb (complain)\n")
    assert isolators.limits(asked, tmp_path).profile == "exec web"


def test_parameters_of_the_host_stay_the_hosts() -> None:
    assert isolators.sysctl_files({"net.ipv4.ip_forward": "1"}, own_network=True) == {"/proc/sys/net/ipv4/ip_forward": "1"}
    refused = {"net.core.somaxconn": False, "kernel.core_pattern": True, "net.ipv4/../../kernel": True, "vm.swappiness": True}
    for name, own in refused.items():
        with pytest.raises(LabError, match="the host's"):
            isolators.sysctl_files({name: "1"}, own_network=own)


def test_sets_of_system_calls() -> None:
    assert limits(os__linux__seccomp_retain_set={"set": ["@appc.io/all"]}).seccomp == b""
    assert limits(os__linux__seccomp_remove_set={"set": ["@appc.io/empty"]}).seccomp == b""
    assert run(limits(os__linux__seccomp_remove_set={"set": ["@appc.io/all"], "errno": "EPERM"}).seccomp, "mkdir") == errno.EPERM
    found = limits(os__linux__seccomp_remove_set={"set": ["mkdir", "fly"]})
    assert run(found.seccomp, "mkdir") == "killed"
    assert "no system call is called fly" in found.reported[0]


def run(program: bytes, call: str, architecture: int = 0xC000003E, offset: int = 0) -> int | str:
    """Do what the kernel does with a filter: interpret it for one system call of x86-64."""
    number = seccomp.numbers("x86_64")[call] + offset
    at, value = 0, 0
    while True:
        code, yes, no, operand = seccomp.INSTRUCTION.unpack_from(program, 8 * at)
        at += 1
        if code == 0x20:
            value = {0: number, 4: architecture}[operand]
        elif code in (0x15, 0x35):
            at += yes if (value == operand if code == 0x15 else value >= operand) else no
        else:
            assert code == 0x06
            return {0x7FFF0000: "allowed", 0x80000000: "killed"}.get(operand, operand & 0xFFFF)


def test_a_filter_that_retains() -> None:
    program = seccomp.program(["read"], retain=True, errno="ENOSYS", machine="x86_64")
    assert [run(program, call) for call in ("read", "execve", "exit_group", "write")] == ["allowed", "allowed", "allowed", errno.ENOSYS]
    assert run(program, "read", architecture=0x40000003) == "killed"
    assert run(program, "read", offset=0x40000000) == "killed"


def test_a_filter_that_removes() -> None:
    program = seccomp.program(["mkdir", "execve"], retain=False, machine="x86_64")
    assert [run(program, call) for call in ("mkdir", "execve", "mkdirat")] == ["killed", "allowed", "allowed"]


def test_the_tables_have_the_numbers_of_the_kernel() -> None:
    x86, arm = seccomp.numbers("x86_64"), seccomp.numbers("aarch64")
    assert [x86[name] for name in ("read", "execve", "rseq", "clone3")] == [0, 59, 334, 435]
    assert [arm[name] for name in ("read", "execve", "rseq", "clone3")] == [63, 221, 293, 435]
    with pytest.raises(LabError, match="table of system calls"):
        seccomp.numbers("riscv64")


def test_the_lines_of_an_app_say_whose_they_are() -> None:
    there, written = os.pipe()
    lines = Lines("web", to=written)
    lines.pid = 5
    assert lines.take(), "what was taken already is not waited for"
    os.write(lines.given, b"one\ntw")
    assert lines.take()
    os.write(lines.given, b"o\n\nthree")
    assert lines.take()
    os.close(lines.given)
    assert not lines.take()
    os.close(written)
    with open(there, "rb") as file:
        text = file.read()
    lines.close()
    said = [line.partition(b"] ")[2] for line in text.split(b"\r\n")[:-1]]
    assert said == [b"web[5]: one", b"web[5]: two", b"web[5]: ", b"web[5]: three"]
