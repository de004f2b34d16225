"""Checkpoints of lab 9.3, storage drivers: what is written, where it lands, and whose blocks it has."""

from __future__ import annotations

TITLE = "Storage drivers, and what copy-up costs"
AIMS = ("x",)
NEEDS = ("root", "namespaces", "overlay", "btrfs", "dockerd", "registry", "podman")
CLAIMS = (("storage driver", "overlay2"), ("storage driver", "vfs"), ("storage driver", "btrfs"))

IMAGE = r"""#!/bin/bash -e
# The image big on each engine named that has it not: alpine, a layer with a file of 64 MB, and a small one above
make() { # FROM NAME COMMAND...
    docker container run --name making "$1" "${@:3}"
    docker container commit making "$2"
    docker container rm making
}
{
    docker image inspect alpine || docker image pull alpine
    docker image inspect half || make alpine half dd if=/dev/urandom of=/big bs=1M count=64
    docker image inspect big || make half big sh -c 'echo small > /small'
} > image.log 2>&1
for engine in "$@"; do
    docker --context "$engine" image inspect big > /dev/null 2>&1 ||
        docker image save big | docker --context "$engine" image load > /dev/null
done
"""
EXAMPLES = {"image": {"image.sh": IMAGE}}
CHECKPOINTS = ()
