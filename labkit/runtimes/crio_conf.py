"""crio.conf(5): what the labs tell CRI-O, and the rules by which a file is judged before a daemon reads it.

An error names table and key, as they stand in the file.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from labkit.host.services.places import SYSTEMD

Rule = Callable[[Any], str | None]
"""Says what is wrong with a value, or None."""


def _one_of(*words: str) -> Rule:
    return lambda value: None if value in words else f"must be one of {', '.join(words)}"


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) else "must be a string"


def _flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def _texts(value: Any) -> str | None:
    return None if isinstance(value, list) and all(isinstance(one, str) for one in value) else "must be an array of strings"


def _path(value: Any) -> str | None:
    return None if isinstance(value, str) and (not value or os.path.isabs(value)) else "must be an absolute path"


def _program(value: Any) -> str | None:
    return _path(value) or (None if not value or os.access(value, os.X_OK) else "there is no such program")


def _paths(value: Any) -> str | None:
    return _texts(value) or next((f"{one!r} {why}" for one in value if (why := _path(one))), None)


def _driver(value: Any) -> str | None:
    """Judge the cgroup driver: that of systemd asks systemd for each cgroup."""
    if value == "systemd" and not SYSTEMD.is_dir():
        return "systemd does not run here, which would make the cgroups"
    return _one_of("cgroupfs", "systemd")(value)


def _pause(value: Any) -> str | None:
    return _path(value) or ("must be one path, without arguments" if " " in value else None)


def _number(least: int) -> Rule:
    def rule(value: Any) -> str | None:
        return None if isinstance(value, int) and not isinstance(value, bool) and value >= least else f"must be a number, {least} or more"

    return rule


def _log_size(value: Any) -> str | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return None if whole and (value < 0 or value >= 8192) else "must be negative, for no limit, or 8192 or more, what conmon reads at once"


def _mounts_file(value: Any) -> str | None:
    """Judge the file of the mounts that every container gets: a line /SOURCE:/TARGET each."""
    if why := _path(value):
        return why
    try:
        lines = [line.strip() for line in Path(value).read_text().splitlines()] if value else []
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    for number, line in enumerate(lines, 1):
        source, _, target = line.partition(":")
        if line and not line.startswith("#") and not (os.path.isabs(source) and os.path.isabs(target)):
            return f"line {number}, {line!r}, must be /SOURCE:/TARGET"
        if line and not line.startswith("#") and not os.path.exists(source):
            return f"line {number}: there is no {source}"
    return None


RULES: Mapping[str, Mapping[str, Rule]] = {
    "crio": {"root": _path, "runroot": _path, "imagestore": _path, "storage_driver": _text, "storage_option": _texts, "log_dir": _path,
             "version_file": _path, "version_file_persist": _path, "clean_shutdown_file": _path, "internal_wipe": _flag},
    "crio.api": {"listen": _path, "stream_address": _text, "stream_port": _text, "stream_enable_tls": _flag,
                 "grpc_max_send_msg_size": _number(0), "grpc_max_recv_msg_size": _number(0)},
    "crio.runtime": {
        "default_runtime": _text, "runtimes": lambda value: None if isinstance(value, dict) else "must be a table",
        "cgroup_manager": _driver, "conmon": _program, "conmon_cgroup": _text, "conmon_env": _texts,
        "default_mounts_file": _mounts_file, "default_capabilities": _texts, "default_sysctls": _texts, "default_env": _texts,
        "default_ulimits": _texts, "additional_devices": _texts, "hooks_dir": _paths, "seccomp_profile": _path, "apparmor_profile": _text,
        "pids_limit": _number(-1), "log_size_max": _log_size, "log_to_journald": _flag, "log_filter": _text,
        "log_level": _one_of("fatal", "panic", "error", "warn", "info", "debug", "trace"), "namespaces_dir": _path,
        "pinns_path": _program, "container_exits_dir": _path, "container_attach_socket_dir": _path, "read_only": _flag,
        "ctr_stop_timeout": _number(0), "drop_infra_ctr": _flag, "no_pivot": _flag, "selinux": _flag, "uid_mappings": _text,
        "gid_mappings": _text, "bind_mount_prefix": _path,
    },
    "crio.runtime.runtimes.*": {"runtime_path": _program, "runtime_type": _one_of("oci", "vm", "pod"), "runtime_root": _path,
                                "monitor_path": _program, "monitor_cgroup": _text, "monitor_env": _texts, "allowed_annotations": _texts,
                                "privileged_without_host_devices": _flag},
    "crio.image": {"default_transport": _text, "global_auth_file": _path, "pause_image": _text, "pause_image_auth_file": _path,
                   "pause_command": _pause, "signature_policy": _path, "image_volumes": _one_of("mkdir", "bind", "ignore"),
                   "insecure_registries": _texts, "short_name_mode": _one_of("enforcing", "disabled")},
    "crio.network": {"cni_default_network": _text, "network_dir": _path, "plugin_dirs": _paths},
}  # fmt: skip
"""Each table with its keys and what their values must be."""


@dataclass(frozen=True)
class Problem:
    """What cannot stand in a configuration.

    Attributes:
        table: as it stands in the file, such as "crio.runtime".
        key: in that table; "" where the table itself is wrong.
        message: what is wrong.
        remedy: what helps, where that is known.
    """

    table: str
    key: str
    message: str
    remedy: str | None = None

    def __str__(self) -> str:
        return f"[{self.table}] {self.message}" if self.key else self.message


def problems(text: str, name: str = "crio.conf") -> tuple[Problem, ...]:
    """Return all that cannot stand in a configuration: each table and key by itself, then what goes against something else.

    Args:
        text: of the file.
        name: of the file, for the error.

    Raises:
        LabError: not TOML.
    """
    told = _tables(text, name)
    found = [Problem(table, "", f"[{table}] is no table of CRI-O", "every table begins with crio") for table in told if table != "crio"]
    found += _judge(told.get("crio", {}), "crio")
    return tuple(found or _together(told.get("crio", {}).get("runtime", {})))


def validate(text: str, name: str = "crio.conf") -> dict[str, Any]:
    """Return what a configuration says, once it keeps to the rules.

    Args:
        text: of the file.
        name: of the file, for the error.

    Raises:
        LabError: not TOML; or the first table and key that cannot stand, and why.
    """
    for problem in problems(text, name):
        raise LabError(f"{name}: {problem}", remedy=problem.remedy)
    return _tables(text, name)


def _tables(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise LabError(f"{name} is not TOML: {error}") from error


def _judge(table: Any, path: str) -> Iterator[Problem]:
    """Judge a table and those below it, each key by itself."""
    if not isinstance(table, dict):
        yield Problem(path, "", f"{path} = {table!r} must be a table")
        return
    rules = RULES.get(path) or RULES["crio.runtime.runtimes.*"]
    for key, value in table.items():
        below = f"{path}.{key}"
        if below in RULES:
            yield from _judge(value, below)
        elif key not in rules:
            near = difflib.get_close_matches(key, rules, 1)
            yield Problem(path, key, f"has no key {key!r}", f"{near[0]!r}?" if near else f"it has {', '.join(sorted(rules))}")
        elif why := rules[key](value):
            yield Problem(path, key, f"{key} = {json.dumps(value, default=str)}: {why}")
        elif below == "crio.runtime.runtimes":
            for handler, settings in value.items():
                yield from _judge(settings, f"{below}.{handler}")


def _together(runtime: Mapping[str, Any]) -> Iterator[Problem]:
    """Judge what stands in two places: the default handler, and the cgroups of the monitors, which the cgroup driver makes."""
    handlers, default = runtime.get("runtimes", {}), runtime.get("default_runtime")
    if default is not None and default not in handlers:
        there = f"runtimes there are: {', '.join(handlers) or 'none'}"
        yield Problem("crio.runtime", "default_runtime", f"default_runtime = {default!r} has no table below", there)
    driver = runtime.get("cgroup_manager", "systemd")
    monitors = {("crio.runtime", "conmon_cgroup"): runtime.get("conmon_cgroup", "")}
    monitors |= {(f"crio.runtime.runtimes.{name}", "monitor_cgroup"): one.get("monitor_cgroup", "") for name, one in handlers.items()}
    for (table, key), value in monitors.items():
        if value not in ("", "pod") and (driver == "cgroupfs" or not value.endswith(".slice")):
            wanted = '"pod", or empty' if driver == "cgroupfs" else '"pod", or a slice'
            yield Problem(table, key, f"{key} = {json.dumps(value)}: with the cgroup driver {driver} it must be {wanted}")


def write(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Return tables as TOML, each with its keys."""
    parts = []
    for table, keys in tables.items():
        lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
        parts.append("\n".join([f"[{table}]", *lines]))
    return "\n\n".join(parts) + "\n"


def configuration(directory: Path, programs: Mapping[str, str | None], network: Path, default: str = "runc") -> str:
    """Return the configuration of a CRI-O of the labs, which keeps everything below one directory.

    Args:
        directory: of its state.
        programs: where runc, crun, conmon and pinns are; those that are not there are left out.
        network: the directory of CNI's configuration.
        default: the low-level runtime for pods that ask for none: "runc" or "crun".
    """
    there = {name: program for name, program in programs.items() if program}
    handlers = {name: there[name] for name in ("runc", "crun") if name in there}
    systemd = SYSTEMD.is_dir()
    monitor = {"monitor_path": there.get("conmon", ""), "monitor_cgroup": "system.slice" if systemd else "pod"}
    return write({
        "crio": {"root": f"{directory}/root", "runroot": f"{directory}/run", "storage_driver": "overlay", "log_dir": f"{directory}/log",
                 "version_file": f"{directory}/version", "clean_shutdown_file": f"{directory}/clean"},
        "crio.api": {"listen": f"{directory}/crio.sock", "stream_address": "127.0.0.1", "stream_port": "0"},
        "crio.runtime": {
            "default_runtime": default, "cgroup_manager": "systemd" if systemd else "cgroupfs",
            "conmon_cgroup": "system.slice" if systemd else "pod", "default_mounts_file": f"{directory}/mounts.conf", "pids_limit": 1024,
            "log_size_max": -1, "log_to_journald": False, "log_level": "info", "namespaces_dir": f"{directory}/ns",
            "container_exits_dir": f"{directory}/exits", "container_attach_socket_dir": f"{directory}/attach", "hooks_dir": [],
            "drop_infra_ctr": False,
            **{key: there[name] for key, name in (("conmon", "conmon"), ("pinns_path", "pinns")) if name in there},
        },
        **{f"crio.runtime.runtimes.{name}": {"runtime_path": program, "runtime_type": "oci", "runtime_root": f"{directory}/{name}",
                                             **monitor}
           for name, program in handlers.items()},
        "crio.image": {"pause_image": "registry.k8s.io/pause:3.6", "pause_command": "/pause", "image_volumes": "mkdir"},
        "crio.network": {"network_dir": str(network), "plugin_dirs": ["/usr/lib/cni", "/opt/cni/bin"]},
    })  # fmt: skip
