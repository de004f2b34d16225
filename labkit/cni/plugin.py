"""Find a plugin, run it once, read its answer. See: CNI specification 1.0.0, section 2 (execution protocol)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from labkit.cni.attachment import Attachment
from labkit.errors import LabError, UnsupportedError
from labkit.kernel import commands

PLUGINS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
"""Where plugins lie: Debian's, then those that a person has put there."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SECONDS = 60.0
"""After which a plugin is killed; one that asks a DHCP server may take half of it."""

_MEANINGS = {
    1: "the plugin does not speak this version",
    2: "the configuration has a field that the plugin does not support",
    3: "the container is unknown, or its network namespace is gone",
    4: "a variable of the environment is missing or wrong",
    5: "the plugin could not read its standard input",
    6: "the plugin could not decode the configuration",
    7: "the configuration is not valid",
    11: "it shall be tried again later",
}


class CniError(LabError):
    """Say what a plugin answered instead of a result.

    Args:
        plugin: its type.
        command: the operation.
        code: the plugin's number for what went wrong; 0 where it gave none.
        message: what it says; `details` is what it adds.
    """

    def __init__(self, plugin: str, command: str, code: int, message: str, details: str = "") -> None:
        text = f"plugin {plugin}: {command}: {message}" + (f": {details}" if details else "")
        super().__init__(" ".join(text.split()), cause=_MEANINGS.get(code))
        self.plugin = plugin
        self.command = command
        self.code = code
        self.said = message


def find(kind: str, places: Sequence[Path] = PLUGINS) -> Path:
    """Return the program of a plugin.

    Raises:
        UnsupportedError: there is none in these directories.
    """
    for place in places:
        if os.access(place / kind, os.X_OK) and (place / kind).is_file():
            return place / kind
    where = ", ".join(str(place) for place in places)
    raise UnsupportedError(f"the CNI plugin {kind}", f"no such program in {where}", remedy="apt-get install containernetworking-plugins")


def call(
    command: str,
    configuration: Mapping[str, Any],
    attachment: Attachment,
    *,
    places: Sequence[Path] = PLUGINS,
    keep: Sequence[int] = (),
    seconds: float = SECONDS,
) -> dict[str, Any]:
    """Run a plugin once.

    Shell:
        CNI_COMMAND=ADD CNI_CONTAINERID=web CNI_NETNS=/run/netns/web CNI_IFNAME=eth0 CNI_PATH=/usr/lib/cni /usr/lib/cni/bridge < net.conf
    Args:
        command: ADD, CHECK, DEL or VERSION.
        configuration: what it gets on its standard input, with its `type`.
        attachment: the link that is meant.
        places: the directories of plugins.
        keep: descriptors that it inherits.
        seconds: after which it is killed.

    Returns:
        Its answer; {} where it gives none, as to CHECK and DEL.

    Raises:
        CniError: it failed, or what it wrote is no answer.
        UnsupportedError: there is no such plugin.
    """
    kind = str(configuration["type"])
    program = find(kind, places)
    environment = attachment.environment(command, ":".join(str(place) for place in places), PATH)
    done = commands.run([program], input=json.dumps(configuration), env=environment, timeout=seconds, check=False, keep=keep)
    answer = _json(done.stdout)
    if done.status != 0:
        if answer is None or "msg" not in answer:
            said = " | ".join(done.stderr.strip().splitlines()[-3:]) or "it said nothing"
            raise CniError(kind, command, 0, f"ended with status {done.status}", said)
        code = answer.get("code")
        raise CniError(kind, command, code if isinstance(code, int) else 0, str(answer["msg"]), str(answer.get("details") or ""))
    if answer is None and done.stdout.strip():
        raise CniError(kind, command, 0, "what it wrote is no JSON object", done.stdout[:100])
    return answer or {}


def supported(kind: str, places: Sequence[Path] = PLUGINS) -> tuple[str, ...]:
    """Return the versions that a plugin speaks.

    Shell:
        echo '{"cniVersion":"1.0.0"}' | CNI_COMMAND=VERSION /usr/lib/cni/bridge
    Raises:
        CniError: it failed.
        UnsupportedError: there is no such plugin.
    """
    answer = call("VERSION", {"cniVersion": "1.0.0", "type": kind}, Attachment("version", "/proc/self/ns/net"), places=places)
    return tuple(str(each) for each in answer.get("supportedVersions") or ())


def _json(text: str) -> dict[str, Any] | None:
    try:
        answer = json.loads(text)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None
