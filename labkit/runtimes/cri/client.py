"""A client of the Container Runtime Interface, CRI v1: the same calls to containerd, to CRI-O, to whatever serves them.

Requests and answers are dictionaries with the field names of the interface, as crictl's files and `crictl inspect` have them.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from labkit import trace
from labkit.errors import LabError
from labkit.kernel.commands import Completed
from labkit.runtimes.cri import messages

SECONDS = 60.0
"""How long an answer is waited for, unless the call says something else."""

Fields = Mapping[str, Any]
_CHANGES = (
    "CreateContainer", "ExecSync", "PullImage", "RemoveContainer", "RemoveImage", "RemovePodSandbox", "RunPodSandbox", "StartContainer",
    "StopContainer", "StopPodSandbox",
)  # fmt: skip
_WHOLE: dict[str, Any] = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}


class CallError(LabError):
    """Say what a server of the CRI answered to a call, or why it did not.

    Args:
        socket: of the server.
        call: the name of the call.
        code: the status of gRPC: "NOT_FOUND", "UNAVAILABLE", ...
        said: in the server's words.
    """

    def __init__(self, socket: Path, call: str, code: str, said: str, **why: str | None) -> None:
        super().__init__(f"{socket}: {call}: {code}" + (f": {said}" if said else ""), **why)
        self.socket, self.call, self.code, self.said = socket, call, code, said


class Client:
    """Speaks to one server; a `with` block closes the connection at its end.

    Args:
        socket: its unix socket.
    """

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._channel: Any = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; the next call makes a new one."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def call(self, name: str, timeout: float = SECONDS, /, **fields: Any) -> dict[str, Any]:
        """Make a call and return its answer; fields that the server left out have the value that stands for nothing.

        Args:
            name: as the interface has it, such as "RunPodSandbox".
            timeout: seconds.
            fields: of the request.

        Raises:
            CallError: the server's status and words; or it is not there, or went away meanwhile.
            LabError: the request has a field that there is not.
        """
        import grpc
        from google.protobuf import json_format

        classes = messages.classes()
        try:
            request = json_format.ParseDict(fields, classes[f"{name}Request"]())
        except json_format.ParseError as error:
            raise LabError(f"{name}: {' '.join(str(error).split())}") from error
        stub = self._connected().unary_unary(
            messages.path(name),
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=classes[f"{name}Response"].FromString,
        )
        try:
            answer = stub(request, timeout=timeout)
        except grpc.RpcError as error:
            raise self._failed(name, error) from error
        if name in _CHANGES:
            trace.record(shlex.join(["labkit", "cri", name, json.dumps(fields)]), calls=[messages.path(name)])
        told: dict[str, Any] = json_format.MessageToDict(answer, **_WHOLE)
        return told

    def version(self) -> dict[str, str]:
        """Return who serves: runtime_name, runtime_version, and the version of the interface, runtime_api_version.

        Shell:
            crictl version
        """
        return self.call("Version")

    def conditions(self) -> dict[str, dict[str, Any]]:
        """Return RuntimeReady and NetworkReady, each with status, reason and message.

        Shell:
            crictl info
        """
        return {condition["type"]: condition for condition in self.call("Status")["status"]["conditions"]}

    def images(self) -> list[dict[str, Any]]:
        """Return the images.

        Shell:
            crictl images
        """
        return list(self.call("ListImages")["images"])

    def image(self, name: str) -> dict[str, Any] | None:
        """Return an image, or None where the server has none of this name.

        Shell:
            crictl inspecti NAME
        """
        return self.call("ImageStatus", image={"image": name}).get("image")

    def pull(self, name: str, timeout: float = 300.0) -> str:
        """Fetch an image and return its id.

        Shell:
            crictl pull NAME
        """
        return str(self.call("PullImage", timeout, image={"image": name})["image_ref"])

    def remove_image(self, name: str) -> None:
        """Remove an image with all its names; one that is not there is no error.

        Shell:
            crictl rmi NAME
        """
        self.call("RemoveImage", image={"image": name})

    def run_pod(self, config: Fields, handler: str = "") -> str:
        """Start a pod sandbox and return its id.

        Shell:
            crictl runp pod.json

        Args:
            config: its PodSandboxConfig.
            handler: which of the server's low-level runtimes runs it; "" for the default one.
        """
        return str(self.call("RunPodSandbox", config=config, runtime_handler=handler)["pod_sandbox_id"])

    def pods(self, **labels: str) -> list[dict[str, Any]]:
        """Return the pod sandboxes, those that have these labels.

        Shell:
            crictl pods
        """
        return list(self.call("ListPodSandbox", filter={"label_selector": labels})["items"])

    def pod(self, identifier: str) -> dict[str, Any]:
        """Return the state of a pod sandbox; `info` is what the server tells besides, from its JSON.

        Shell:
            crictl inspectp POD
        """
        return _with_info(self.call("PodSandboxStatus", pod_sandbox_id=identifier, verbose=True))

    def stop_pod(self, identifier: str) -> None:
        """End all that runs in a pod and give back its network; one that is stopped stays so.

        Shell:
            crictl stopp POD
        """
        self.call("StopPodSandbox", pod_sandbox_id=identifier)

    def remove_pod(self, identifier: str) -> None:
        """Remove a pod with its containers; one that is not there is no error.

        Shell:
            crictl rmp POD
        """
        self.call("RemovePodSandbox", pod_sandbox_id=identifier)

    def create(self, pod: str, config: Fields, pod_config: Fields) -> str:
        """Make a container in a pod and return its id.

        Shell:
            crictl create POD container.json pod.json
        """
        fields = {"pod_sandbox_id": pod, "config": config, "sandbox_config": pod_config}
        return str(self.call("CreateContainer", **fields)["container_id"])

    def start(self, identifier: str) -> None:
        """Start a container that was made.

        Shell:
            crictl start CONTAINER
        """
        self.call("StartContainer", container_id=identifier)

    def containers(self, **labels: str) -> list[dict[str, Any]]:
        """Return the containers, those that have these labels, in whatever state.

        Shell:
            crictl ps -a
        """
        return list(self.call("ListContainers", filter={"label_selector": labels})["containers"])

    def container(self, identifier: str) -> dict[str, Any]:
        """Return the state of a container; `info` is what the server tells besides, such as its pid, from its JSON.

        Shell:
            crictl inspect CONTAINER
        """
        return _with_info(self.call("ContainerStatus", container_id=identifier, verbose=True))

    def exec(self, identifier: str, argv: Sequence[str], timeout: int = 0) -> Completed:
        """Run a program in a container to its end.

        Shell:
            crictl exec -s CONTAINER PROGRAM

        Args:
            identifier: of the container.
            argv: program and arguments.
            timeout: seconds after which the server ends it; 0 waits as long as for any call.
        """
        import base64

        done = self.call("ExecSync", timeout + SECONDS, container_id=identifier, cmd=list(argv), timeout=timeout)
        out, err = (base64.b64decode(done[stream]).decode("utf-8", "replace") for stream in ("stdout", "stderr"))
        return Completed(tuple(argv), done["exit_code"], out, err)

    def stats(self, identifier: str) -> dict[str, Any]:
        """Return what a container uses: cpu, memory, its writable layer.

        Shell:
            crictl stats CONTAINER
        """
        stats: dict[str, Any] = self.call("ContainerStats", container_id=identifier)["stats"]
        return stats

    def stop(self, identifier: str, timeout: int = 10) -> None:
        """Ask a container's first process to end, and kill it after `timeout` seconds.

        Shell:
            crictl stop --timeout SECONDS CONTAINER
        """
        self.call("StopContainer", timeout + SECONDS, container_id=identifier, timeout=timeout)

    def remove(self, identifier: str) -> None:
        """Remove a container, also one that runs; one that is not there is no error.

        Shell:
            crictl rm -f CONTAINER
        """
        self.call("RemoveContainer", container_id=identifier)

    def _connected(self) -> Any:
        """Return the channel; the server is not asked before the first call."""
        import grpc

        if self._channel is None:
            authority = ("grpc.default_authority", "localhost")  # the path of the socket, escaped, is no host name to some servers
            sizes = [("grpc.max_receive_message_length", 64 << 20), ("grpc.enable_http_proxy", 0)]
            self._channel = grpc.insecure_channel(f"unix:{self.socket}", options=[authority, *sizes])
        return self._channel

    def _failed(self, name: str, error: Any) -> CallError:
        code, said = error.code().name, " ".join(str(error.details()).split())
        cause = remedy = None
        if code == "UNAVAILABLE":
            self.close()  # a channel that failed waits before it tries again, and the next call should not
            cause, remedy = _why_unavailable(self.socket)
            said = ""
        elif code == "UNIMPLEMENTED":
            cause = f"it does not serve {messages.path(name)}"
        return CallError(self.socket, name, code, said, cause=cause, remedy=remedy)


def _why_unavailable(path: Path) -> tuple[str | None, str]:
    """Return why nobody answers at a socket, by asking it once more, and what to do."""
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as once:
        once.settimeout(1.0)
        try:
            once.connect(str(path))
            if once.recv(1):  # HTTP/2 lets the server begin; one that is ending closes what it has not accepted
                return "the connection ended before the answer came; the server is there now", "try again"
        except FileNotFoundError:
            return "there is no such socket", "labkit up containerd"
        except TimeoutError:
            return "somebody listens there, and does not say that it serves the CRI", "labkit status"
        except (ConnectionRefusedError, ConnectionResetError):
            pass
        except OSError as error:
            return f"connect: {error.strerror or error}", "sudo"
    return "the socket is there, and nobody listens on it", "labkit up containerd"


def _with_info(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the status in an answer with what the server adds in JSON."""
    info = {key: json.loads(value) if value.startswith(("{", "[")) else value for key, value in answer["info"].items()}
    return {**answer["status"], "info": info.get("info", info)}
