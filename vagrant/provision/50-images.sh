#!/bin/bash
# The images of the course, in the storage of the lab's registry: whether the registry runs now does not matter. And its two ACIs.
set -euo pipefail

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
storage=${LABKIT_STATE:-/var/lib/labkit}/registry
stamp=$storage/seeded
what=${2:-lab}

key() {
    cat "${BASH_SOURCE[0]}" "$checkout"/labkit/images/*.py "$checkout"/labkit/appc/{aci,course_images,publishing}.py | sha256sum
}

if [ "${1:-need}" = need ]; then
    if [[ $what != @(vm|site) ]] && [ "$(cat "$stamp" 2> /dev/null)" != "$(key)" ]; then
        echo "Images of the course ($(grep -c '^    Image($' "$checkout/labkit/images/catalogue.py"), real ones or stand-ins)"
    fi
    exit 0
fi

"$checkout/.venv/bin/labkit" images seed --storage "$storage"
"$checkout/.venv/bin/python" -m labkit.appc.course_images
key > "$stamp"
