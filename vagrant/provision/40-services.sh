#!/bin/bash
# The services of the labs, up and answering, and the local registry as everybody's mirror of docker.io.
# Where `box` is a root file system that is being built, they are only told to start with its boot.
set -euo pipefail

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
labkit=$checkout/.venv/bin/labkit
what=${2:-lab}
if [ "$what" = box ] && [ -d /run/systemd/system ]; then # it has been booted
    what=lab
fi

case ${1:-need}-$what in
    need-lab | need-test)
        todo=$("$labkit" up --check)
        if [ -n "$todo" ]; then
            echo "services: $todo"
        fi
        ;;
    do-lab | do-test) "$labkit" up ;;
    need-box)
        if [ ! -e /etc/systemd/system/labkit-registry.service ]; then
            echo "services at boot"
        fi
        ;;
    do-box) "$labkit" up --at-boot ;;
esac
