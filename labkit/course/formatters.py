"""How the kernel's objects look as the last expression of a cell: the kernel's room itself knows nothing of that."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from labkit import show
from labkit.course import pictures
from labkit.images.image import ImageParts
from labkit.kernel import cgroups, namespaces, network, processes
from labkit.kernel.cgroups import Cgroup
from labkit.kernel.contents import Compared
from labkit.kernel.network import NetworkNamespace, Ping
from labkit.kernel.overlay import Overlay
from labkit.kernel.processes.process import Process
from labkit.kernel.union import Union
from labkit.show import View

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from labkit.course.lab import Lab


def draw_cgroup(group: Cgroup) -> View:
    """Draw a cgroup with what is below it."""
    own = [f"{directory}/" for directory in group.directories]
    states = [one for one in cgroups.states() if f"{one.directory}/".startswith(tuple(own))]
    named = [namespaces.process(pid, name=name) for pid, name in processes.names().items()]
    return show.cgroup_tree(pictures.without_followers(states, named), named)


def draw_process(process: Process) -> View:
    """Tabulate a process: name, whether it runs, and where it differs from us."""
    state = process.state()
    if not process.alive:
        return show.table(("process", "state"), [(process.name, f"ended, status {process.status}")])
    return show.process_table([state])


def draw_network_namespace(netns: NetworkNamespace) -> View:
    """Draw one network namespace with its links."""
    return show.network_picture([state for state in network.states() if state.name == netns.name])


def draw_ping(ping: Ping) -> View:
    """Tabulate what was sent and what came back; the time it took is left to `ping.text`."""
    header, row = ("to", "echo requests sent", "answers received"), (ping.address, str(ping.sent), str(ping.received))
    return show.table(header, [row], note=f"cause: {ping.cause}" if ping.cause else "")



DRAWINGS: dict[type, Callable[[Any], View]] = {
    Cgroup: draw_cgroup,
    Process: draw_process,
    NetworkNamespace: draw_network_namespace,
    Ping: draw_ping,
    ImageParts: show.image_tree,
    Compared: show.contents_view,
}


def register(shell: InteractiveShell, lab: Lab) -> None:
    """Let IPython draw the kernel's objects; a second time changes nothing."""
    formatter = shell.display_formatter.mimebundle_formatter
    for kind, draw in {**DRAWINGS, Overlay: lab.union_view, Union: lab.union_view}.items():
        formatter.for_type(kind, _bundle(draw))


def _bundle(draw: Callable[[Any], View]) -> Callable[..., dict[str, str]]:
    def bundle(thing: object, **_: object) -> dict[str, str]:
        return dict(draw(thing)._repr_mimebundle_())

    return bundle
