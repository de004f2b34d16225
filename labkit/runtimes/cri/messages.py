"""The part of CRI v1 that the labs speak, as a table: messages with their fields and numbers, and the calls.

The classes are made of it when the first call is, by whatever protobuf is installed: there is no generated code. A field
that is not in the table is not sent, and ignored in an answer. See: k8s.io/cri-api, package runtime.v1
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

PACKAGE = "runtime.v1"

ENUMS = {
    "ContainerState": ("CONTAINER_CREATED", "CONTAINER_RUNNING", "CONTAINER_EXITED", "CONTAINER_UNKNOWN"),
    "NamespaceMode": ("POD", "CONTAINER", "NODE", "TARGET"),
    "PodSandboxState": ("SANDBOX_READY", "SANDBOX_NOTREADY"),
    "Protocol": ("TCP", "UDP", "SCTP"),
}
"""Each enumeration with its values, counted from 0."""

MESSAGES = {
    "Capability": "repeated string add_capabilities = 1; repeated string drop_capabilities = 2",
    "Container": "string id = 1; string pod_sandbox_id = 2; ContainerMetadata metadata = 3; ImageSpec image = 4; string image_ref = 5; "
    "ContainerState state = 6; int64 created_at = 7; map labels = 8; map annotations = 9",
    "ContainerAttributes": "string id = 1; ContainerMetadata metadata = 2; map labels = 3; map annotations = 4",
    "ContainerConfig": "ContainerMetadata metadata = 1; ImageSpec image = 2; repeated string command = 3; repeated string args = 4; "
    "string working_dir = 5; repeated KeyValue envs = 6; repeated Mount mounts = 7; map labels = 9; map annotations = 10; "
    "string log_path = 11; bool stdin = 12; bool tty = 14; LinuxContainerConfig linux = 15",
    "ContainerFilter": "string id = 1; string pod_sandbox_id = 3; map label_selector = 4",
    "ContainerMetadata": "string name = 1; uint32 attempt = 2",
    "ContainerStats": "ContainerAttributes attributes = 1; CpuUsage cpu = 2; MemoryUsage memory = 3; FilesystemUsage writable_layer = 4",
    "ContainerStatus": "string id = 1; ContainerMetadata metadata = 2; ContainerState state = 3; int64 created_at = 4; "
    "int64 started_at = 5; int64 finished_at = 6; int32 exit_code = 7; ImageSpec image = 8; string image_ref = 9; string reason = 10; "
    "string message = 11; map labels = 12; map annotations = 13; string log_path = 15",
    "CpuUsage": "int64 timestamp = 1; UInt64Value usage_core_nano_seconds = 2",
    "FilesystemIdentifier": "string mountpoint = 1",
    "FilesystemUsage": "int64 timestamp = 1; FilesystemIdentifier fs_id = 2; UInt64Value used_bytes = 3; UInt64Value inodes_used = 4",
    "Image": "string id = 1; repeated string repo_tags = 2; repeated string repo_digests = 3; uint64 size = 4; string username = 6",
    "ImageFilter": "ImageSpec image = 1",
    "ImageSpec": "string image = 1; map annotations = 2",
    "KeyValue": "string key = 1; string value = 2",
    "LinuxContainerConfig": "LinuxContainerResources resources = 1; LinuxContainerSecurityContext security_context = 2",
    "LinuxContainerResources": "int64 cpu_period = 1; int64 cpu_quota = 2; int64 cpu_shares = 3; int64 memory_limit_in_bytes = 4; "
    "int64 oom_score_adj = 5; string cpuset_cpus = 6; string cpuset_mems = 7; map unified = 9",
    "LinuxContainerSecurityContext": "Capability capabilities = 1; bool privileged = 2; NamespaceOption namespace_options = 3; "
    "bool readonly_rootfs = 7; bool no_new_privs = 11",
    "LinuxPodSandboxConfig": "string cgroup_parent = 1; LinuxSandboxSecurityContext security_context = 2; map sysctls = 3",
    "LinuxSandboxSecurityContext": "NamespaceOption namespace_options = 1; bool readonly_rootfs = 4; bool privileged = 6",
    "MemoryUsage": "int64 timestamp = 1; UInt64Value working_set_bytes = 2; UInt64Value available_bytes = 3; UInt64Value usage_bytes = 4; "
    "UInt64Value rss_bytes = 5",
    "Mount": "string container_path = 1; string host_path = 2; bool readonly = 3",
    "NamespaceOption": "NamespaceMode network = 1; NamespaceMode pid = 2; NamespaceMode ipc = 3; string target_id = 4",
    "PodSandbox": "string id = 1; PodSandboxMetadata metadata = 2; PodSandboxState state = 3; int64 created_at = 4; map labels = 5; "
    "map annotations = 6; string runtime_handler = 7",
    "PodSandboxConfig": "PodSandboxMetadata metadata = 1; string hostname = 2; string log_directory = 3; "
    "repeated PortMapping port_mappings = 5; map labels = 6; map annotations = 7; LinuxPodSandboxConfig linux = 8",
    "PodSandboxFilter": "string id = 1; map label_selector = 3",
    "PodSandboxMetadata": "string name = 1; string uid = 2; string namespace = 3; uint32 attempt = 4",
    "PodSandboxNetworkStatus": "string ip = 1",
    "PodSandboxStatus": "string id = 1; PodSandboxMetadata metadata = 2; PodSandboxState state = 3; int64 created_at = 4; "
    "PodSandboxNetworkStatus network = 5; map labels = 7; map annotations = 8; string runtime_handler = 9",
    "PortMapping": "Protocol protocol = 1; int32 container_port = 2; int32 host_port = 3; string host_ip = 4",
    "RuntimeCondition": "string type = 1; bool status = 2; string reason = 3; string message = 4",
    "RuntimeStatus": "repeated RuntimeCondition conditions = 1",
    "UInt64Value": "uint64 value = 1",
}  # fmt: skip
"""Each message with its fields: type, name and number, as a .proto file has them; `map` is map<string, string>."""

CALLS = {
    "RuntimeService": {
        "Version": ("string version = 1",
                    "string version = 1; string runtime_name = 2; string runtime_version = 3; string runtime_api_version = 4"),
        "Status": ("bool verbose = 1", "RuntimeStatus status = 1; map info = 2"),
        "RunPodSandbox": ("PodSandboxConfig config = 1; string runtime_handler = 2", "string pod_sandbox_id = 1"),
        "StopPodSandbox": ("string pod_sandbox_id = 1", ""),
        "RemovePodSandbox": ("string pod_sandbox_id = 1", ""),
        "PodSandboxStatus": ("string pod_sandbox_id = 1; bool verbose = 2", "PodSandboxStatus status = 1; map info = 2"),
        "ListPodSandbox": ("PodSandboxFilter filter = 1", "repeated PodSandbox items = 1"),
        "CreateContainer": ("string pod_sandbox_id = 1; ContainerConfig config = 2; PodSandboxConfig sandbox_config = 3",
                            "string container_id = 1"),
        "StartContainer": ("string container_id = 1", ""),
        "StopContainer": ("string container_id = 1; int64 timeout = 2", ""),
        "RemoveContainer": ("string container_id = 1", ""),
        "ListContainers": ("ContainerFilter filter = 1", "repeated Container containers = 1"),
        "ContainerStatus": ("string container_id = 1; bool verbose = 2", "ContainerStatus status = 1; map info = 2"),
        "ExecSync": ("string container_id = 1; repeated string cmd = 2; int64 timeout = 3",
                     "bytes stdout = 1; bytes stderr = 2; int32 exit_code = 3"),
        "ContainerStats": ("string container_id = 1", "ContainerStats stats = 1"),
    },
    "ImageService": {
        "ListImages": ("ImageFilter filter = 1", "repeated Image images = 1"),
        "ImageStatus": ("ImageSpec image = 1; bool verbose = 2", "Image image = 1; map info = 2"),
        "PullImage": ("ImageSpec image = 1; PodSandboxConfig sandbox_config = 3", "string image_ref = 1"),
        "RemoveImage": ("ImageSpec image = 1", ""),
    },
}  # fmt: skip
"""Each service with its calls, and the fields of their requests and answers (messages NAMERequest and NAMEResponse)."""

_FIELD = re.compile(r"(?P<repeated>repeated )?(?P<type>\w+) (?P<name>\w+) = (?P<number>\d+)")


def path(call: str) -> str:
    """Return the path of a call, as HTTP/2 carries it: /runtime.v1.RuntimeService/Version."""
    service = next(service for service, calls in CALLS.items() if call in calls)
    return f"/{PACKAGE}.{service}/{call}"


@cache
def classes() -> Mapping[str, Any]:
    """Return the class of each message, by its name without the package."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="labkit/cri.proto", package=PACKAGE, syntax="proto3")
    for name, values in ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    for name, fields in _all_messages().items():
        _describe(file.message_type.add(name=name), fields)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in _all_messages()}


def _all_messages() -> dict[str, str]:
    both = {name: fields for calls in CALLS.values() for name, fields in calls.items()}
    requests = {f"{call}Request": request for call, (request, _) in both.items()}
    return MESSAGES | requests | {f"{call}Response": answer for call, (_, answer) in both.items()}


def _describe(message: Any, fields: str) -> None:
    """Give a message the fields of a row."""
    for text in filter(None, fields.split("; ")):
        found = _FIELD.fullmatch(text)
        if found is None:
            raise ValueError(f"{message.name}: {text!r} is no field")
        field = message.field.add(name=found["name"], number=int(found["number"]), json_name=found["name"])
        kind, repeated = found["type"], bool(found["repeated"])
        if kind == "map":
            kind, repeated = f"{message.name}.{_entry(message, found['name'])}", True
        field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
        if kind in ENUMS or kind in MESSAGES or "." in kind:
            field.type = field.TYPE_ENUM if kind in ENUMS else field.TYPE_MESSAGE
            field.type_name = f".{PACKAGE}.{kind}"
        else:
            field.type = getattr(field, f"TYPE_{kind.upper()}")


def _entry(message: Any, name: str) -> str:
    """Add the message that carries one pair of a map, named as protobuf wants it."""
    entry = message.nested_type.add(name="".join(word.capitalize() for word in name.split("_")) + "Entry")
    entry.options.map_entry = True
    for number, word in enumerate(("key", "value"), 1):
        field = entry.field.add(name=word, number=number, json_name=word)
        field.type, field.label = field.TYPE_STRING, field.LABEL_OPTIONAL
    return str(entry.name)
