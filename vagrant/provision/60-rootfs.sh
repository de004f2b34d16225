#!/bin/bash
# What the labs of chapter 3 unpack: a Debian of another release than this machine's, with systemd, and its LXC metadata;
# and the account that runs containers without root.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
what=${2:-lab}
place=${LABKIT_ROOTFS:-/var/lib/labkit/rootfs}
student=labkit-student
usernet=/etc/lxc/lxc-usernet
plug="$student veth lxcbr0 10" # how many ends of a veth it may put into the bridge
include=systemd-sysv,dbus,procps,iproute2,hostname

# shellcheck source=/dev/null
host=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
case $host in
    trixie) release=bookworm ;;
    *) release=trixie ;;
esac

# mmdebstrap mounts /proc and more in its tree: where nobody else sees it, and gone with this set-up when that is killed.
# The box is built in such a place already.
alone=(setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --mount-proc)
if [ "$what" = box ]; then
    alone=()
fi

# Make the two files in a directory.
# shellcheck disable=SC2016
pack() {
    local mirror # the one that this machine uses for Debian itself
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Label: Debian' 2> /dev/null | head -n 1)
    # Root has no password: it is the login prompt of a lab's container, which nothing outside can reach.
    "${alone[@]}" mmdebstrap --quiet --variant=minbase --include="$include" --aptopt='Acquire::Languages "none"' \
        --aptopt='Acquire::Retries "3"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --customize-hook='rm -f "$1/etc/hostname" "$1/etc/resolv.conf"; : > "$1/etc/machine-id"' \
        --customize-hook='chroot "$1" passwd --delete root' \
        "$release" "$1/debian.tar" "${mirror:-http://deb.debian.org/debian}"
    python3 "$here/store-xz.py" < "$1/debian.tar" > "$1/debian.tar.xz"
    rm "$1/debian.tar"

    # What `lxc-create -t local` wants beside it.
    mkdir "$1/metadata"
    printf 'lxc.include = LXC_TEMPLATE_CONFIG/debian.common.conf\nlxc.arch = linux64\n' > "$1/metadata/config"
    cp "$1/metadata/config" "$1/metadata/config-user"
    echo 'lxc.include = LXC_TEMPLATE_CONFIG/debian.userns.conf' >> "$1/metadata/config-user"
    echo './dev/*' > "$1/metadata/excludes-user"
    tar --create --xz --file "$1/metadata.tar.xz" --directory "$1/metadata" .
}

# What the tarball depends on; when one of them changes it is made anew.
key() {
    { declare -f pack; cat "$here/store-xz.py"; echo "$release $include"; dpkg --print-architecture; } | sha256sum
}

ids() { # whether a file gives the account ids of its own
    grep --quiet "^$student:" "/etc/sub$1" 2> /dev/null
}

if [ "${1:-need}" = need ]; then
    if [[ $what != @(vm|site) ]]; then
        if [ "$(cat "$place/key" 2> /dev/null)" != "$(key)" ] || [ ! -e "$place/debian.tar.xz" ]; then
            echo "a root file system of Debian $release, and the user $student"
        elif ! getent passwd "$student" > /dev/null || ! ids uid || ! ids gid || ! grep --quiet --line-regexp "$plug" "$usernet" 2> /dev/null; then
            echo "the user $student"
        fi
    fi
    exit 0
fi

# useradd takes subordinate ids that nobody has yet. Others may go through the home directory: root inside is such another.
if ! getent passwd "$student" > /dev/null; then
    useradd --create-home --key HOME_MODE=0711 --shell /bin/bash --comment 'labkit (containers without root)' "$student"
fi
for kind in uid gid; do
    if ! ids "$kind"; then
        first=$(awk -F: '$2 + $3 > last { last = $2 + $3 } END { print last < 100000 ? 100000 : last }' "/etc/sub$kind" 2> /dev/null || echo 100000)
        usermod "--add-sub${kind}s" "$first-$((first + 65535))" "$student"
    fi
done
if ! grep --quiet --line-regexp "$plug" "$usernet" 2> /dev/null; then
    mkdir -p /etc/lxc
    echo "$plug" >> "$usernet"
fi

if [ "$(cat "$place/key" 2> /dev/null)" = "$(key)" ] && [ -e "$place/debian.tar.xz" ]; then
    exit 0
fi
mkdir -p "$place"
half=$(mktemp --directory "$place/half.XXXXXX")
trap 'rm -rf "$half"' EXIT
find "$place" -maxdepth 1 -name 'half.*' ! -path "$half" -exec rm -rf {} + # of a set-up that was killed

pack "$half"
mv "$half/metadata.tar.xz" "$half/debian.tar.xz" "$place/"
chmod -R a+rX "$place"
key > "$place/key"
