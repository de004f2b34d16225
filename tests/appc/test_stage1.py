"""Pods that run: what their apps find, what limits them, how they end."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
from trial_pods import AFTER, FIRST, Trial, heard, interleaved, isolator, main, processes_of, said, until

from labkit.appc import cgroups, enter, init, stage1
from labkit.appc.enter import UNKNOWN_APP
from labkit.appc.pod import Pod
from labkit.errors import LabError
from labkit.kernel.cgroups import hierarchies
from labkit.kernel.cgroups.members import stat_fields


@pytest.fixture
def trial(own_state: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    return Trial(own_state / tmp_path_factory.mktemp("rkt").name)


def sh(script: str, **more: object) -> dict[str, object]:
    return main("/bin/sh", "-c", script, **more)


# --- how an app ends ---


@pytest.mark.parametrize(
    ("app", "code"),
    [
        (sh("exit 0"), 0),
        (sh("exit 3"), 3),
        (sh("kill -9 $$"), 9),
        (main("/bin/nothing"), 203),
        (main("nothing"), 203),
        (main("/etc/passwd"), 203),
        (main("sh", "-c", "exit 4"), 4),
        (sh("", workingDirectory="/nowhere"), 200),
        (sh("", eventHandlers=[{"name": "pre-start", "exec": ["/bin/false"]}]), 1),
    ],
    ids=["zero", "three", "signal", "missing", "missing in PATH", "no program", "found in PATH", "directory", "handler"],
)
def test_the_code_of_a_run_is_the_apps(trial: Trial, app: dict[str, object], code: int) -> None:
    pod = trial.pod({"main": app})
    done = trial.run(pod)
    assert (done.returncode, pod.exit_codes) == (code, {"main": code}), done


def test_of_two_apps_the_one_that_fails_gives_the_code(trial: Trial) -> None:
    pod = trial.pod({"one": sh(f"{FIRST}exit 0"), "two": sh(f"{AFTER}exit 3")})
    assert trial.run(pod).returncode == 3
    assert pod.exit_codes == {"one": 0, "two": 3}


def test_an_app_that_fails_stops_the_pod_and_one_that_succeeds_does_not(trial: Trial) -> None:
    pod = trial.pod({"one": sh("exit 7"), "two": sh("trap 'echo told; exit 0' TERM; while :; do sleep 0.1; done")})
    done = trial.run(pod)
    assert (done.returncode, pod.exit_codes["one"]) == (7, 7)
    pod = trial.pod({"one": sh(f"{FIRST}exit 0"), "two": sh(f"{AFTER}echo still here")})
    assert interleaved(trial.run(pod).stdout.splitlines(), "two") == ["still here"]


def test_post_stop_runs_after_a_failure_too(trial: Trial) -> None:
    handler = [{"name": "post-stop", "exec": ["/bin/echo", "after"]}]
    assert said(trial.run(trial.pod({"main": sh("echo before; exit 1", eventHandlers=handler)})).stdout) == ["before", "after"]


def test_what_an_app_leaves_behind_ends_with_it(trial: Trial) -> None:
    handler = [{"name": "post-stop", "exec": ["/bin/sh", "-c", "ps -o comm | grep -c sleep"]}]
    pod = trial.pod({"main": sh("(setsid sleep 1000 &); exit 0", eventHandlers=handler)})
    assert said(trial.run(pod).stdout) == ["0"]


def test_orphans_are_waited_for(trial: Trial) -> None:
    orphans = "for i in 1 2 3; do (sleep 0 & echo $! >> /tmp/pids); done"
    gone = "for pid in $(cat /tmp/pids); do while [ -d /proc/$pid ]; do sleep 0.02; done; done"  # one that nobody waits for stays
    assert trial.sh(f"{orphans}; {gone}; wc -l < /tmp/pids") == ["3"]


def test_the_output_says_when_and_by_whom(trial: Trial) -> None:
    pod = trial.pod({"web": sh("echo one; echo two >&2; printf three")})
    done = subprocess.run(trial.argv(pod), capture_output=True, timeout=60, check=True)
    lines = done.stdout.split(b"\r\n")
    assert lines.pop() == b""
    assert all(re.fullmatch(rb"\[ *\d+\.\d{3}\] web\[\d+\]: (one|two|three)", line) for line in lines)
    assert len(lines) == 3


# --- what an app finds ---


def test_apps_share_namespaces_and_have_roots_of_their_own(trial: Trial) -> None:
    look = "for n in pid net ipc uts mnt cgroup; do readlink /proc/self/ns/$n; done; hostname; touch /mine; ls -d /mine"
    look += "; touch /dev/shm/$AC_APP_NAME; until [ -e /dev/shm/one ] && [ -e /dev/shm/two ]; do sleep 0.02; done"
    done = trial.run(pod := trial.pod({"one": sh(look), "two": sh(look)}))
    one, two = (interleaved(done.stdout.splitlines(), name) for name in ("one", "two"))
    assert one[:4] == two[:4]
    assert not set(one[4:6]) & set(two[4:6])
    outside = [os.readlink(f"/proc/self/ns/{name}") for name in ("pid", "net", "ipc", "uts", "mnt", "cgroup")]
    assert not set(one) & set(outside)
    assert one[6:] == two[6:] == [f"rkt-{pod.uuid}", "/mine"]
    assert not (trial.tree / "mine").exists()


def test_what_the_kernel_shows(trial: Trial) -> None:
    devices = trial.sh("cd /dev; ls -d null zero full random urandom tty console pts ptmx shm; [ -c null ] && [ -c tty ] && echo nodes")
    assert devices == ["console", "full", "null", "ptmx", "pts", "random", "shm", "tty", "urandom", "zero", "nodes"]
    assert trial.sh("cat /proc/1/comm; ls /sys/class/net; ip addr show lo | grep -c 'LOOPBACK,UP'")[1:] == ["lo", "1"]
    files = "/proc/sys/kernel/core_pattern /proc/sysrq-trigger /sys/kernel/uevent_helper"
    refused = f"for f in {files}; do (echo x > $f) 2> /dev/null && echo $f; done; :"
    assert trial.sh(refused) == []
    assert trial.sh("cat /proc/timer_list | wc -c; echo x > /dev/shm/y && echo shm") == ["0", "shm"]


def test_shared_memory_is_the_pods(trial: Trial) -> None:
    reads = "until [ -s /dev/shm/word ]; do sleep 0.05; done; cat /dev/shm/word"
    pod = trial.pod({"one": sh("echo hello > /dev/shm/word"), "two": sh(reads)})
    assert interleaved(trial.run(pod).stdout.splitlines(), "two") == ["hello"]


def test_the_root_of_the_host_is_nowhere(trial: Trial) -> None:
    lines = trial.sh("cut -d' ' -f5 /proc/self/mountinfo; ls /..")
    assert "var" not in lines
    assert all(line.startswith(("/", "bin", "dev", "etc", "opt", "proc", "sys", "tmp")) for line in lines)
    assert str(trial.data) not in " ".join(lines)


def test_a_user_a_group_and_a_directory(trial: Trial) -> None:
    look = {"user": "www", "group": "www", "supplementaryGIDs": [44], "workingDirectory": "/opt/work"}
    assert trial.sh("id -u; id -g; id -G; pwd; grep -E 'CapEff|CapPrm' /proc/self/status | cut -f2", app=look) == [
        "33", "33", "33 44", "/opt/work", "0" * 16, "0" * 16,
    ]  # fmt: skip


def test_a_root_that_is_read_only_keeps_its_volumes_writable(trial: Trial) -> None:
    app = {"mountPoints": [{"name": "data", "path": "/data"}]}
    lines = trial.sh("touch /x 2> /dev/null || echo refused; touch /data/x && echo written", app=app, options={"readOnlyRootFS": True})
    assert lines == ["refused", "written"]


def test_links_of_an_image_lead_nowhere_outside(trial: Trial, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("untouched")
    (trial.tree / "etc/hosts").symlink_to(tmp_path / "victim")
    app = {"mountPoints": [{"name": "data", "path": "/data/below"}]}
    for up in ("", "../../../../../../../.."):
        (trial.tree / "data").unlink(missing_ok=True)
        (trial.tree / "data").symlink_to(f"{up}{tmp_path}")
        done = trial.run(trial.pod({"main": sh("echo ran", **app)}))
        assert (done.returncode, done.stdout) == (254, "")
        assert done.stderr.splitlines()[-1] == "stage1: app main: /data/below: No such file or directory"
    (trial.tree / "data").unlink()
    (trial.tree / "data").symlink_to("../../../../../../../../etc")
    assert trial.sh("grep -o ' /etc/below ' /proc/self/mountinfo", app=app) == [" /etc/below "]
    assert not Path("/etc/below").exists()
    assert sorted(os.listdir(tmp_path)) == ["victim"]
    assert (tmp_path / "victim").read_text() == "untouched"


def test_an_image_whose_proc_is_a_link_is_refused(trial: Trial) -> None:
    (trial.tree / "proc").rmdir()
    (trial.tree / "proc").symlink_to("/etc")
    done = trial.run(trial.pod({"main": sh("echo ran")}))
    assert (done.returncode, done.stdout) == (254, "")
    assert "/proc of the image is no directory" in done.stderr


# --- volumes ---


def test_a_volume_of_the_host(trial: Trial, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from outside\n")
    points = {"mountPoints": [{"name": "data", "path": "/deep/er/data"}]}
    volumes = [{"name": "data", "kind": "host", "source": str(tmp_path)}]
    assert trial.sh("cat /deep/er/data/file; echo inside > /deep/er/data/new", app=points, volumes=volumes) == ["from outside"]
    assert (tmp_path / "new").read_text() == "inside\n"
    volumes[0]["readOnly"] = True  # type: ignore[assignment]
    look = "(echo x > /deep/er/data/file) 2>&1 | grep -o 'Read-only file system'"
    assert trial.sh(look, app=points, volumes=volumes) == ["Read-only file system"]


def test_a_file_may_be_a_volume(trial: Trial, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("configured\n")
    volumes = [{"name": "data", "kind": "host", "source": str(tmp_path / "file"), "readOnly": True}]
    assert trial.sh("cat /etc/my.conf", app={"mountPoints": [{"name": "data", "path": "/etc/my.conf"}]}, volumes=volumes) == ["configured"]


def test_an_empty_volume_of_its_own_comes_with_a_warning(trial: Trial) -> None:
    pod = trial.pod({"main": sh("stat -c '%a %u' /data", mountPoints=[{"name": "data", "path": "/data"}])})
    done = trial.run(pod)
    assert said(done.stdout) == ["755 0"]
    assert 'no volume specified for mount point "data", implicitly creating an "empty" volume' in done.stderr


# --- isolators ---


def limited(trial: Trial, script: str, *asked: dict[str, object], **more: object) -> list[str]:
    return trial.sh(script, app={"isolators": list(asked), **more})


def test_capabilities(trial: Trial) -> None:
    bounding = "sed -n 's/^CapBnd:.//p; s/^CapEff:.//p; s/^CapInh:.//p' /proc/self/status"
    assert limited(trial, bounding) == ["0" * 16, "00000000a80425fb", "00000000a80425fb"]
    kept = isolator("os/linux/capabilities-retain-set", {"set": ["CAP_NET_ADMIN"]})
    assert limited(trial, bounding, kept)[1:] == ["0000000000001000"] * 2
    gone = isolator("os/linux/capabilities-remove-set", {"set": ["CAP_CHOWN"]})
    assert limited(trial, f"{bounding}; chown 1 /etc/passwd 2> /dev/null || echo refused", gone)[2:] == ["00000000a80425fa", "refused"]


@pytest.mark.parametrize("user", ["0", "www"])
def test_a_filter_of_system_calls(trial: Trial, user: str) -> None:
    no_mkdir = isolator("os/linux/seccomp-remove-set", {"set": ["mkdir", "mkdirat"], "errno": "ENOSYS"})
    look = "mkdir /tmp/x 2>&1 | grep -o 'Function not implemented'; sed -n 's/^Seccomp:.//p; s/^NoNewPrivs:.//p' /proc/self/status"
    assert limited(trial, look, no_mkdir, user=user) == ["Function not implemented", "0", "2"]


def test_a_call_that_is_not_allowed_may_kill(trial: Trial) -> None:
    no_mkdir = isolator("os/linux/seccomp-remove-set", {"set": ["mkdir", "mkdirat"]})
    assert trial.run(trial.pod({"main": main("/bin/mkdir", "/tmp/x", isolators=[no_mkdir])})).returncode == signal.SIGSYS


def test_no_new_privileges_and_the_score(trial: Trial) -> None:
    asked = isolator("os/linux/no-new-privileges", True), isolator("os/linux/oom-score-adj", 321)  # noqa: FBT003
    assert limited(trial, "sed -n 's/^NoNewPrivs:.//p' /proc/self/status; cat /proc/self/oom_score_adj", *asked) == ["1", "321"]


def test_a_limit_of_memory_is_seen_and_felt(trial: Trial) -> None:
    memory = isolator("resource/memory", {"limit": "32Mi"})
    look = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2> /dev/null; :"
    assert limited(trial, look, memory) == [str(32 << 20)]
    eats = main("/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1", isolators=[memory])
    assert trial.run(trial.pod({"main": eats})).returncode == signal.SIGKILL
    assert trial.run(trial.pod({"main": eats | {"isolators": []}})).returncode == 0


def test_limits_of_the_processor_are_seen(trial: Trial) -> None:
    asked = isolator("resource/cpu", {"limit": "250m"}), isolator("os/linux/cpu-shares", 512)
    v1 = hierarchies().version_of("cpu") == 1
    files = "cpu/cpu.cfs_quota_us cpu/cpu.shares" if v1 else "cpu.max cpu.weight"
    assert limited(trial, f"cd /sys/fs/cgroup; cat {files}", *asked) == (["25000", "512"] if v1 else ["25000 100000", "50"])


def test_kernel_parameters_of_the_pod(trial: Trial) -> None:
    asked = isolator("os/unix/sysctl", {"net.ipv4.ip_forward": "1", "kernel.shmmni": "100"})
    assert trial.sh("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni", isolators=[asked]) == ["1", "100"]
    refused = trial.run(trial.pod({"main": sh("echo ran")}, isolators=[isolator("os/unix/sysctl", {"kernel.core_pattern": "x"})]))
    assert (refused.returncode, refused.stdout) == (254, "")


def test_an_isolator_that_nobody_knows_is_reported(trial: Trial) -> None:
    done = trial.run(trial.pod({"main": sh("echo ran")}, isolators=[isolator("example.com/new", 1)]))
    assert said(done.stdout) == ["ran"]
    assert done.stderr.strip() == "stage1: warning: pod: isolator example.com/new is unknown, and ignored"


@pytest.mark.parametrize("net", ["host", "none"])
def test_a_prepared_port_that_can_lead_nowhere_is_named(trial: Trial, net: str) -> None:
    web = {"name": "web", "protocol": "tcp", "port": 80}
    done = trial.run(trial.pod({"main": sh("echo ran")}, ports=[{"name": "web", "hostPort": 8080, "podPort": web}]), net)
    assert (done.returncode, said(done.stdout)) == (0, ["ran"]), done.stderr
    assert f"stage1: warning: ports of the pod (web) lead nowhere with '{net}' networking" in done.stderr.splitlines()


# --- running pods ---


def test_a_stop_asks_and_a_forced_one_does_not(trial: Trial) -> None:
    script = "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.05; done"
    handler = [{"name": "post-stop", "exec": ["/bin/echo", "after"]}]
    for force, code, lines in ((False, 5, ["bye", "after"]), (True, 137, [])):
        pod = trial.pod({"main": sh(script, eventHandlers=handler)})
        process = trial.start(pod, stdout=subprocess.PIPE)
        assert heard(process) == "up"
        stage1.stop(pod, force=force)
        output, _ = process.communicate(timeout=30)
        assert (process.returncode, said(output)) == (code, lines)
        assert pod.exit_codes == ({"main": 5} if code == 5 else {})
        with pytest.raises(LabError, match="not running"):
            stage1.stop(pod)


def test_who_does_not_listen_is_killed_after_a_while(trial: Trial) -> None:
    pod = trial.pod({"main": sh("trap '' TERM; echo up; while :; do sleep 0.1; done")})
    process = trial.start(pod, stdout=subprocess.PIPE)
    assert heard(process) == "up"
    begin = time.monotonic()
    stage1.stop(pod)
    process.communicate(timeout=30)
    assert process.returncode == signal.SIGKILL
    assert time.monotonic() - begin >= init.GRACE - 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_supervisor_stops_the_pod(trial: Trial, number: int) -> None:
    pod = trial.pod({"main": sh("trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done")})
    process = trial.start(pod, "none", stdout=subprocess.PIPE)
    assert heard(process) == "up"
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 5
    assert not Path(f"/run/netns/rkt-{pod.uuid}").exists()


def test_with_its_supervisor_the_pod_dies_and_what_is_left_can_be_cleared(trial: Trial) -> None:
    pod = trial.pod({"one": sh("sleep 1000"), "two": sh("setsid sleep 1000 & sleep 1000")})
    process = trial.start(pod, "none")
    assert pod.state == "running"
    process.kill()
    process.wait()
    until(lambda: pod.state == "exited" and not processes_of(pod))
    assert str(trial.data) not in Path("/proc/self/mountinfo").read_text()
    from labkit.appc.networks import Networks

    wanted = Networks.parse(["none"], trial.data / "networks")
    stage1.clear(pod, wanted)
    stage1.clear(pod, wanted)
    assert not Path(f"/run/netns/rkt-{pod.uuid}").exists()


@pytest.mark.parametrize("net", ["none", "default"])
def test_a_supervisor_may_be_killed_at_any_moment(trial: Trial, net: str) -> None:
    from labkit.appc.networks import Networks

    whole = time.monotonic()
    trial.run(trial.pod({"main": sh("exit 0")}), net, "m")
    whole = time.monotonic() - whole
    for part in range(1, 11):
        pod = trial.pod({"main": sh("sleep 1000"), "other": sh("sleep 1000")})
        process = subprocess.Popen(trial.argv(pod, net, "m"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(whole * part / 10)  # no state is waited for: every moment counts
        process.kill()
        process.wait()
        until(lambda pod=pod: pod.state == "exited" and not processes_of(pod))
        stage1.clear(pod, Networks.parse([net], trial.data / "networks"))
        assert not Path(f"/run/netns/rkt-{pod.uuid}").exists()
        assert not [name for name in _mounted() if pod.uuid in name]


def _mounted() -> list[str]:
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def test_a_pod_that_cannot_start_leaves_nothing(trial: Trial) -> None:
    pod = trial.pod({"main": sh("", user="nobody")})
    done = trial.run(pod, "none")
    assert done.returncode == 254
    assert done.stderr.splitlines()[-1] == "stage1: user nobody: the image has none of this name in /etc/passwd"
    assert not Path(f"/run/netns/rkt-{pod.uuid}").exists()
    assert not processes_of(pod)


def test_enter(trial: Trial) -> None:
    pod = trial.pod({"main": sh("touch /here; sleep 1000", environment=[{"name": "A", "value": "b"}]), "other": sh("sleep 1000")})
    process = trial.start(pod)
    code = "import sys; from pathlib import Path; from labkit.appc import enter; from labkit.appc.pod import Pod\n"
    code += "sys.exit(enter.enter(Pod(Path(sys.argv[1]), sys.argv[2]), sys.argv[3], sys.argv[4:]))"

    def entered(app: str, *argv: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-c", code, str(trial.data), pod.uuid, app, *argv]
        return subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)

    until(lambda: entered("main", "/bin/ls", "/here").returncode == 0)
    look = "echo $A $AC_APP_NAME $(id -u) $(hostname) $(pwd); ls -d /here; sed -n 's/^CapBnd:.//p' /proc/self/status; exit 9"
    done = entered("main", "/bin/sh", "-c", look)
    assert (done.returncode, done.stdout.splitlines()) == (9, [f"b main 0 rkt-{pod.uuid} /", "/here", "00000000a80425fb"])
    assert entered("other", "ls", "/here").returncode == 1
    assert entered("zz", "ls").returncode == UNKNOWN_APP
    assert entered("main").returncode == 203  # no bash in this image
    with pytest.raises(LabError, match="specify app using"):
        enter.enter(pod, "")
    stage1.stop(pod, force=True)
    process.wait(30)
    with pytest.raises(LabError, match="isn't currently running"):
        enter.enter(pod, "main")


def foreground(pod: Pod) -> str | None:
    """Return the name of the leader of the foreground process group on the terminal of a pod's app; None while there is none."""
    group = cgroups.of(pod)
    shells = [stat_fields(pid) for pid in group.child("main").procs()] if group else []
    leader = int(shells[0][5]) if shells and shells[0] else 0
    return Path(f"/proc/{leader}/comm").read_text().strip() if leader > 0 else None


def test_a_real_terminal(trial: Trial) -> None:
    pod = trial.pod({"main": main("/bin/sh", "-i")})
    argv = trial.argv(pod, flags="i")
    with pexpect.spawn(argv[0], argv[1:], timeout=20, encoding="utf-8", dimensions=(33, 99)) as shell:
        shell.expect("# ")
        shell.sendline("tty; stty size; test -t 0 && echo is-one")
        shell.expect("/dev/console\r\n33 99\r\nis-one\r\n")
        shell.sendline("echo $((2 + 3))begun; sleep 1000")
        shell.expect("5begun\r\n")
        until(lambda: foreground(pod) not in (None, "sh"))
        shell.sendintr()
        shell.expect("# ")
        shell.setwinsize(20, 70)
        shell.sendline('until [ "$(stty size)" = "20 70" ]; do sleep 0.02; done; exit 6')
        shell.expect(pexpect.EOF)
    assert shell.exitstatus == 6


def test_interactive_without_a_terminal_hands_the_streams_through(trial: Trial) -> None:
    done = trial.run(trial.pod({"main": sh("cat; echo aside >&2")}), flags="i", stdin="typed\n")
    assert (done.stdout, done.stderr, done.returncode) == ("typed\n", "aside\n", 0)
