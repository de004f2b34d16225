#!/bin/bash
# Print the key of the box: a hash of everything that decides what is in it. A box with the same key is not built again.
set -euo pipefail

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$checkout"
shopt -s nullglob
{
    echo "${LAB_ARCH:-$(dpkg --print-architecture)} ${LAB_MIRROR:-}"
    # What set-up does, what it pins, and what fills the offline registry. Labs and notebooks come with each `vagrant up`.
    find vagrant/box/{build,disk,root}.sh vagrant/box/{packages,root,vagrant.pub} vagrant/provision vagrant/not-synced labkit/images* requirements.lock -type f -not -name '*.pyc' -print0 |
        LC_ALL=C sort -z | xargs -0 sha256sum
} | sha256sum | cut -c 1-12
