"""Run a pod: this process is the supervisor, which holds the pod's lock; process 1 of the pod is `init.py`, and dies with it.

The supervisor makes what must outlive a process or be undone from outside, cgroups and networks; everything else belongs to
namespaces, and goes with the last process in them. See: pid_namespaces(7), prctl(2) for PR_SET_PDEATHSIG
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

from labkit import trace
from labkit.appc import apps, cgroups, isolators, volumes
from labkit.appc.console import Lines, Terminal, write_all
from labkit.appc.process_one import Init, Stage1Error
from labkit.errors import LabError

if TYPE_CHECKING:
    from labkit.appc.networks import Networks
    from labkit.appc.pod import Pod
    from labkit.appc.pod_manifest import PodManifest


def run(pod: Pod, *, interactive: bool = False, net: Networks | None = None, mds: bool = False) -> int:
    """Run a pod to its end.

    The pod lies in run/ and is held by this process. Its files `pid`, `status/APP`, `appsinfo/APP/pid` say how it goes. Its networks and
    cgroups are gone when this returns; where this process is killed, `clear` takes them away.

    Args:
        pod: prepared: its manifest is complete, the trees of its images lie ready.
        interactive: give its one app the terminal, or our standard streams where they are none.
        net: its networks; None for a loopback of its own alone.
        mds: serve metadata to its apps.

    Returns:
        0, or the code of the app that failed first; then the others were stopped.

    Raises:
        LabError: the pod did not come to run.
    """
    manifest = pod.manifest
    if interactive and len(manifest.apps) != 1:
        raise Stage1Error("interactive option only supports pods with one app")
    limits = isolators.of(manifest)
    for line in (*volumes.warnings(manifest), *_reports(limits)):
        _say(line)
    with ExitStack() as undo, trace.silent():
        undo.callback(clear, pod, net)
        address, netns = _networks_up(pod, net, manifest)
        group = cgroups.create(pod, limits)
        volumes.make_empty(pod, manifest)
        (pod.directory / "shm").mkdir(exist_ok=True)
        (pod.directory / "shm").chmod(0o700)
        terminal = Terminal() if interactive and os.isatty(0) else None
        lines = {} if interactive else {app.name: Lines(app.name) for app in manifest.apps}
        own_network = net is None or not net.host
        process = Init(pod, new_network=net is None, netns=netns)
        undo.callback(process.end)
        hand = {"TERM": os.environ.get("TERM", "vt100")} if interactive else {}
        if mds:
            hand["AC_METADATA_URL"] = undo.enter_context(_metadata(pod, process.metadata))
        process.metadata.close()
        console = terminal.path if terminal else ""
        plans = [apps.plan(pod, manifest, app, group.child(app.name), hand, console) for app in manifest.apps]
        hostname = pod.settings.hostname or f"rkt-{pod.uuid}"
        for plan in plans:
            plan["files"] = apps.files(pod.settings, hostname, address)
        sysctl = {name: value for one in limits.values() for name, value in one.sysctl.items()}
        whole = {
            "hostname": hostname,
            "shm": str(pod.directory / "shm"),
            "outside": [str(directory) for directory in group.child(cgroups.STAGE1).directories],
            "sysctl": isolators.sysctl_files(sysctl, own_network=own_network),
            "apps": plans,
        }
        process.send(whole, lines, interactive=interactive and terminal is None)
        with _forwarding(process), terminal.joined() if terminal else ExitStack():
            return process.follow(lines, terminal)


def stop(pod: Pod, *, force: bool = False) -> None:
    """Let a running pod's process 1 end its apps: SIGTERM, and SIGKILL for who stays; or with `force` end all of it at once.

    Raises:
        LabError: it does not run.
    """
    pid = pod.pid
    if pod.state != "running" or pid is None:
        raise LabError(f'pod "{pod.uuid}" is not running')
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL if force else signal.SIGTERM)


def clear(pod: Pod, net: Networks | None = None) -> None:
    """Take away what outlives the processes of a pod: its cgroups and, where they are known, its networks; again and again if need be."""
    cgroups.remove(pod)
    if net is not None:
        from labkit.appc import networks

        networks.down(pod.uuid, net.state, net.plugins)


def _networks_up(pod: Pod, net: Networks | None, manifest: PodManifest) -> tuple[str, str]:
    """Attach the pod to its networks; return its address, or "", and the file of its network namespace, or ""."""
    if net is None:
        return "", ""
    from labkit.appc import networks, pod_netns, ports

    try:
        forwarded = ports.forwarded(manifest)
        if forwarded and (net.host or net.none):  # of a pod that was prepared with them: `rkt run` refuses
            named, forwarded = ", ".join(port.name for port in manifest.ports), ()
            _say(f"stage1: warning: ports of the pod ({named}) lead nowhere with '{net.wanted[0][0]}' networking")
        infos = networks.up(pod.uuid, None, net, pod.directory, forwarded, lambda text: _say(f"networking: {text}"))
    except LabError as error:
        raise Stage1Error(f"failed to setup network: {error}") from error
    return next((info.ip for info in infos), ""), "" if net.host else str(pod_netns.path(pod.uuid))


@contextmanager
def _forwarding(process: Init) -> Iterator[None]:
    """Pass on to the pod what should end this process: the first time as a request, then as an end."""
    asked: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        asked.append(number)
        if len(asked) == 1:
            process.terminate()
        else:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _metadata(pod: Pod, listening: socket.socket) -> Iterator[str]:
    from labkit.appc import metadata

    service = metadata.Metadata(pod, metadata.key(pod.data))
    server = metadata.serve(service, listening.dup())
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/{service.token}"
    finally:
        server.shutdown()
        server.server_close()


def _reports(limits: dict[str, isolators.Limits]) -> Iterator[str]:
    for name, each in limits.items():
        yield from (f"stage1: warning: {f'app {name}' if name else 'pod'}: {one}" for one in each.reported)


def _say(line: str) -> None:
    write_all(2, f"{line}\n".encode())
