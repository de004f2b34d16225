"""The verbs of a lab for the Container Network Model: the sandbox of a container, and its endpoints."""

from __future__ import annotations

from labkit import show
from labkit.course.image_views import ImageViews
from labkit.kernel.network import endpoints
from labkit.kernel.network.endpoints import Endpoint, Sandbox
from labkit.runtimes import docker_engine
from labkit.show import View


class Sandboxes(ImageViews):
    """What a lab can show of the networks of containers."""

    def sandbox(self, container: str) -> Sandbox:
        """Read the network namespace of a container, its links, and what those are joined to.

        Shell: nsenter --target PID --net ip -d addr

        Args:
            container: as for `xray`.

        Raises:
            LabError: nothing is called so, or it does not run.
        """
        return endpoints.sandbox(self.pid(container), docker_engine.sandboxes())

    def endpoints(self, container: str) -> tuple[Endpoint, ...]:
        """Return the links of a container but lo, each with what it is joined to.

        Shell: nsenter --target PID --net ip -d addr

        Args:
            container: as for `sandbox`.

        Raises:
            LabError: nothing is called so, or it does not run.
        """
        return self.sandbox(container).endpoints

    def sandboxes(self, *containers: str) -> View:
        """Tabulate the sandboxes of containers: a row an endpoint, with what it is joined to.

        Args:
            containers: as for `sandbox`.

        Raises:
            LabError: nothing is called so, or it does not run.
        """
        return show.sandbox_table([(one.rpartition("/")[2], self.sandbox(one)) for one in containers])
