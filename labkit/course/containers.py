"""The verbs of a lab for containers: thin, each one call of labkit.runtimes with the lab's places filled in."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from labkit import runtimes, show, trace
from labkit.course import rkt_pods
from labkit.course.cni_networks import CniNetworks
from labkit.course.mechanisms import Place
from labkit.course.sessions import Session
from labkit.course.terminal import Terminal
from labkit.errors import LabError
from labkit.host import account, containers
from labkit.host.measures import Machine
from labkit.images import conformance as image_conformance
from labkit.kernel import trees
from labkit.kernel.processes.process import Process
from labkit.runtimes import Runtime, bundle, conformance, containerd_daemon, crio, crio_conf, nspawn, oci, rkt_by_hand, rootfs
from labkit.runtimes.cri.pod import Pod
from labkit.runtimes.lifecycle import Lifecycle
from labkit.show import View
from labkit.show.text import short_ids

LOGIN = r"login: $"
_PROMPT = 60.0  # seconds that an engine may take to the first prompt of a container
_BOOT = 180.0  # seconds that a system may take to its login prompt: in a virtual machine without KVM it takes one


class Containers(CniNetworks):
    """What a lab can do with the runtimes and their root file systems."""

    def runtime(self, name: str) -> Runtime:
        """Return a runtime: start, list, exec, stop and remove containers.

        Raises:
            LabError: there is none of this name.
        """
        self.must_be_open()
        return runtimes.find(name)

    def rootfs(self, name: Place, image: str = "debian", runtime: str = "chroot") -> Path:
        """Unpack a root file system in the lab's directory, or return the one that is there.

        Shell: mkdir $LAB/NAME; tar -xJf /var/lib/labkit/rootfs/debian.tar.xz -C $LAB/NAME

        Args:
            name: of the directory.
            image: "debian", of another release than this machine's and with systemd, or "busybox".
            runtime: who will run it: of an unprivileged one the files belong to the ids that it maps.
        """
        self.must_be_open()
        return rootfs.unpack(self.path(name), image, runtimes.find(runtime).id_map())

    def bundle(self, name: str, argv: Sequence[str] = ("sleep", "600")) -> Path:
        """Make an OCI bundle in the lab's directory: busybox, and what `runc spec` writes with the program and a cgroup of the lab put in.

        Shell: mkdir $LAB/NAME; runc spec --bundle $LAB/NAME; sed -i ... $LAB/NAME/config.json

        Args:
            name: of the directory, and of the container in its `cgroupsPath`; one that is there already stays as it is.
            argv: the program and its arguments.

        Raises:
            UnsupportedError: there is no runc.
        """
        self.must_be_open()
        place = trees.make_tree(self.path(name))
        rootfs.unpack(place / "rootfs", "busybox")
        if not (place / bundle.CONFIG).exists():
            self.lifecycle("runc").example(place, argv, name)
        return place

    def exported(self, image: str, name: str) -> Path:
        """Make an OCI bundle of an image: the root file system that docker exports, and what `runc spec` writes; what is there stays.

        Shell: docker container export $(docker container create IMAGE) | tar -C NAME/rootfs -x; runc spec --bundle NAME

        Args:
            image: one that docker has, or can pull.
            name: of the bundle, a directory in the lab's.

        Raises:
            CommandError: docker, tar or runc refused.
        """
        self.must_be_open()
        place = self.path(name)
        if not (place / "rootfs/bin").is_dir():
            root = shlex.quote(f"{name}/rootfs")
            create = f"docker container create --quiet {shlex.quote(image)}"
            self.run(f"mkdir -p {root}\ndocker container export $({create}) | tar -C {root} -x")
        if not (place / bundle.CONFIG).exists():
            self.run(f"runc spec --bundle {shlex.quote(name)}")
        return place

    def lifecycle(self, name: str) -> Lifecycle:
        """Return the operations of the OCI runtime specification with a runtime: create, state, start, kill, delete.

        Raises:
            LabError: there is no such runtime, or it has others.
        """
        self.must_be_open()
        runtime = runtimes.find(name)
        if not isinstance(runtime, oci.Runc):
            raise LabError(f"{name} is not driven by the operations of the OCI runtime specification", remedy="runc or crun")
        return runtime.lifecycle()

    def containerd(self, name: str) -> Process:
        """Start a containerd of the lab's own, as it is where nobody has set up a network, or return the one of this name.

        Its socket is $LAB/NAME/containerd.sock, and what lies in $LAB/NAME/cni is its network for pods.

        Shell: unshare --mount --net containerd --address $LAB/NAME/containerd.sock ... &

        Args:
            name: of the directory below $LAB that has all it keeps, and of the process.

        Raises:
            UnsupportedError: there is no containerd.
            LabError: it does not come up, with the last line of its log.
        """
        self.must_be_open()
        known = self.started.get(name)
        if known is not None and known.alive:
            return known
        self.started[name] = process = containerd_daemon.serve(self.path(name))
        return process

    def problems(self, name: Place) -> View:
        """Tabulate what in a bundle, or in an image on disk, breaks the specification of OCI: field, problem and clause."""
        self.must_be_open()
        place = self.path(name)
        is_image = (place / "oci-layout").exists()
        found = image_conformance.validate(place) if is_image else conformance.validate(bundle.load(place), place)
        clauses = [one.clause.removeprefix("runtime-spec ").removeprefix("image-spec ") for one in found]
        rows = [(one.field, short_ids(self.short(one.message)), clause) for one, clause in zip(found, clauses, strict=True)]
        title = f"{self.short(str(place if is_image else place / bundle.CONFIG))} keeps to the specification" if not found else ""
        return show.notice("passed", title) if title else show.table(("field", "what is wrong", "clause"), rows)

    def pod(self, name: str, handler: str = "") -> Pod:
        """Make a pod sandbox, or return the lab's one of this name; its verbs are calls of the CRI, to CRI-O where there is one.

        Shell: labkit cri RunPodSandbox '{"config": {"metadata": {"name": NAME, ...}, ...}}'

        Args:
            name: of the pod; the logs of its containers lie in the lab's directory.
            handler: the low-level runtime that makes it; "" for the server's default.
        """
        self.must_be_open()
        return Pod(crio.endpoint().socket(), name, self.directory, handler).run()

    def crio_conf(self, name: Place = "crio.conf") -> Path:
        """Write a crio.conf for a CRI-O that keeps its state in the lab's directory; one that is there already stays as it is.

        Shell: labkit crio write $LAB/crio.conf
        """
        self.must_be_open()
        place = self.path(name)
        if not place.exists():
            place.write_text(crio.configuration(self.directory))
            trace.record(shlex.join(["labkit", "crio", "write", str(place)]))
        return place

    def crio_problems(self, name: Place = "crio.conf") -> View:
        """Tabulate what in a crio.conf cannot stand: table, and what is wrong with the key.

        Shell: labkit crio judge $LAB/crio.conf

        Raises:
            LabError: it is not TOML, or there is no such file.
        """
        self.must_be_open()
        place = self.path(name)
        if not place.is_file():
            raise LabError(f"there is no {self.short(str(place))}", remedy="lab.crio_conf() writes one")
        found = crio_conf.problems(place.read_text(), place.name)
        if not found:
            return show.notice("passed", f"CRI-O can take {self.short(str(place))}")
        return show.table(("table", "what is wrong"), [(f"[{one.table}]", self.short(one.message)) for one in found])

    def boot(self, root: Place, name: str = "") -> Terminal:
        """Boot the system in a directory with systemd-nspawn, and return its console, at its login prompt.

        Shell: systemd-nspawn -bD $LAB/ROOT

        Args:
            root: of a root file system with an init; a relative one lies in the lab's directory.
            name: of the machine; that of the directory by default.

        Raises:
            LabError: it did not come up, with what it printed last.
        """
        self.must_be_open()
        place = self.path(root)
        machine = name or place.name
        known = self.terminals.get(machine)
        if known is not None and known.alive:
            return known
        with nspawn.Nspawn().making(place, machine) as (entry, ready):
            command = shlex.join(nspawn.command(place, machine, boot=True))
            environment = nspawn.environment(ready)
            options = {"env": environment, "typed": nspawn.typed(command), **nspawn.surroundings()}
            terminal = Terminal.open(self, command, machine, prompt=LOGIN, patience=_BOOT, **options)
            nspawn.note(entry, terminal.process, ready)
        self.terminals[machine] = terminal
        self.started[machine] = terminal.process
        return terminal

    def visit(self, command: str, *lines: str, name: str = "visit", **options: Any) -> None:
        """Hold an interactive session from its first prompt to its end, as by hand: each line is typed when the prompt is there.

        Shell: COMMAND

        Args:
            command: what runs on the pseudo-terminal, such as "docker container run -it --rm alpine sh".
            lines: what is typed; the last one ends it. Where that is keys, such as "^P^Q", they leave it, and what runs in it goes on.
            name: how lab and shell lines call it.
            options: of `terminal`.

        Raises:
            LabError: no prompt came in time, or it did not end.
        """
        *typed, last = lines or ("exit",)
        with self.terminal(command, name, **{"patience": _PROMPT, **options}) as terminal:
            for line in typed:
                terminal.run(line)
            terminal.detach(last) if last.startswith("^") else terminal.leave(last)

    def rkt(self, line: str, name: str) -> Process:
        """Run a pod in the background until each of its apps has begun; the one of this line and name that runs is returned.

        Shell: rkt run IMAGE... > $LAB/NAME.log 2>&1 &

        Args:
            line: a `rkt run`; the shell reads it.
            name: how lab and shell lines call its supervisor; the pod's UUID is in `$LAB/NAME.uuid`.

        Raises:
            LabError: it ended at once, or does not begin.
        """
        supervisor = self.spawn(line, name)
        pod = rkt_pods.started(supervisor, rkt_by_hand.data(self.directory))
        self.path(f"{name}.uuid").write_text(f"{pod.uuid}\n")
        held = f"readlink /proc/${name}/fd/* 2> /dev/null | sed -n 's,.*/pods/run/,,p'"
        trace.record(f"until {held} | grep . > $LAB/{name}.uuid; do sleep 0.05; done")
        trace.record(f"rkt status --wait-ready $(cat $LAB/{name}.uuid) > /dev/null")
        return supervisor

    def doctor(self, *checks: str) -> View:
        """Measure again what `labkit doctor` measures, with cause and remedy where it is not as it should be.

        Shell: labkit doctor

        Args:
            checks: ids of its checks. Without any: what keeps the labs' user from running containers in this lab's places.

        Raises:
            LabError: the doctor has no such check.
        """
        from labkit.host import doctor

        if checks:
            return show.stack(*(show.finding(finding) for finding in doctor.examine(checks).findings if finding.id in checks))
        session = self.session()
        found = containers.lxc_unprivileged(Machine(), session.home, [each for each in session.cgroups if each.exists()])
        return show.finding(replace(found, id="lxc-unprivileged"), self.short)

    def session(self, user: str = account.STUDENT) -> Session:
        """Return the session of a user who is not root: its home directory and its cgroup in this lab.

        Shell: mkdir -m 711 $LAB/home; chown labkit-student: $LAB/home; $LAB/labkit-student bash
        """
        self.must_be_open()
        return Session.open(self, user)
