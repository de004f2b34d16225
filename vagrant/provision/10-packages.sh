#!/bin/bash
# Debian packages. `a|b` stands for the first of the two that this release has.
set -euo pipefail

lab=(
    bash coreutils procps util-linux ca-certificates
    python3 python3-venv
    cgroup-tools               # lscgroup
    attr                       # getfattr
    iproute2 iputils-ping net-tools nftables
    fuse3 'unionfs-fuse|fuse-overlayfs' 'unionfs-fuse|mergerfs' # unionfs-fuse is gone from Debian 13
)
tests=(
    bubblewrap chromium crun e2fsprogs fuse-overlayfs gcc git libc6-dev make mergerfs shellcheck
)
benchmarks=(
    bubblewrap crun gcc libc6-dev systemd # systemd-cgtop is a peer that is measured
)

what=${2:-lab}
wanted=("${lab[@]}")
case $what in
    test) wanted+=("${tests[@]}") ;;
    bench) wanted+=("${benchmarks[@]}") ;;
esac

declare -A installed=()
while read -r package status; do
    if [ "$status" = installed ]; then
        installed[$package]=yes
    fi
done < <(dpkg-query --show --showformat '${Package} ${db:Status-Status}\n')

known() {
    [ -n "$(apt-cache show --no-all-versions "$1" 2> /dev/null)" ] # its status is 0 for a name that is only mentioned, too
}

missing() {
    local package
    for package in "${wanted[@]}"; do
        if [ -z "${installed[${package%%|*}]-}${installed[${package#*|}]-}" ]; then
            echo "$package"
        fi
    done
}

resolved() {
    local package
    for package in "$@"; do
        if [ "${package%%|*}" != "$package" ] && ! known "${package%%|*}"; then
            echo "${package#*|}"
        else
            echo "${package%%|*}"
        fi
    done
}

mapfile -t todo < <(missing)

if [ "${1:-need}" = need ]; then
    if [ "${#todo[@]}" -gt 0 ]; then
        echo "Debian packages (${#todo[@]}): ${todo[*]:0:4}$([ "${#todo[@]}" -le 4 ] || echo ' ...')"
    fi
    exit 0
fi

export DEBIAN_FRONTEND=noninteractive
apt() {
    apt-get --quiet --yes -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 "$@"
}
install() {
    mapfile -t names < <(resolved "${todo[@]}")
    apt install --no-install-recommends "${names[@]}"
}

dpkg --configure -a                 # an earlier run may have been interrupted
if ! known python3-venv || ! install; then
    apt update                      # only when the lists are missing or too old
    install
fi
