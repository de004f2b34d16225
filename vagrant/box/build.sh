#!/bin/bash
# Build the box from Debian's own packages: build.sh [libvirt] [virtualbox]. Needs root, Debian's mirror and PyPI; no loop device, no docker.
#
# A box lies in $LAB_BOX_DIR/KEY; KEY is a hash of its inputs (key.sh), so one whose inputs have not changed is not built again.
# It is built under another name and renamed at the end: what is there is whole.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
store=${LAB_BOX_DIR:-/var/lib/labkit/box}
arch=${LAB_ARCH:-$(dpkg --print-architecture)}
mirror=${LAB_MIRROR:-http://deb.debian.org/debian}
security=${LAB_SECURITY_MIRROR:-http://deb.debian.org/debian-security}
suite=trixie
key=$("$here/key.sh")
box=$store/$key
formats=("${@:-libvirt}")

refuse() {
    echo "$*" >&2
    exit 2
}

say() {
    echo "box $key: $*"
}

case $arch in
    amd64) kernel=linux-image-amd64 grub=grub-pc-bin platform=i386-pc modules="biosdisk part_msdos" prefix="(hd0,msdos1)" ;;
    arm64) kernel=linux-image-arm64 grub=grub-efi-arm64-bin platform=arm64-efi modules="part_gpt" prefix="(hd0,gpt2)" ;;
    *) refuse "the box is built for amd64 and arm64, not for $arch" ;;
esac
[ "$(id -u)" = 0 ] || refuse "building the box needs root: it makes a Debian root; remedy: sudo make vm"
if [ "$arch" != "$(dpkg --print-architecture)" ] && ! grep --quiet '^enabled' /proc/sys/fs/binfmt_misc/qemu-aarch64 2> /dev/null; then
    refuse "this machine does not run $arch programs: no qemu-aarch64 in binfmt_misc; remedy: apt-get install qemu-user-static"
fi
if [ -z "${LABKIT_BOX_MOUNTS-}" ]; then
    # In a mount namespace of its own: whatever kills the build, no mount stays, and no `rm` goes through one.
    LABKIT_BOX_MOUNTS=own exec unshare --mount --propagation private "${BASH_SOURCE[0]}" "${formats[@]}"
fi
mkdir -p "$store"
exec 9> "$store/.lock"
if ! flock --nonblock 9; then
    say "another one is being built: waiting for it to end"
    flock 9
fi

if [ -e "$box/SHA256SUMS" ] && ! (cd "$box" && sha256sum --quiet --check SHA256SUMS > /dev/null 2>&1); then
    refuse "the box $box is damaged: a file is missing or has another checksum than SHA256SUMS; remedy: rm -r $box, the next run builds it anew"
fi

build() {
    local free work begin packages include quoted
    free=$(df --output=avail --block-size=M "$store" | tail -n 1 | tr -dc 0-9)
    [ "$free" -ge 12000 ] || refuse "building the box needs 12000 MiB, $free MiB are free at $store; remedy: free some space, or set LAB_BOX_DIR"
    work=$store/.building
    rm -rf --one-file-system "$work" # of a build that was interrupted
    mkdir -p "$work/out"
    trap 'rm -rf --one-file-system "$store/.building"' EXIT

    begin=$SECONDS
    say "Debian $suite and the set-up of the lab (log: $store/build.log)"
    mapfile -t packages < <(grep -v '^#' "$here/packages")
    include=$(IFS=, && echo "$kernel,$grub,grub-common,${packages[*]}")
    quoted=$(printf '%q' "$here/root.sh")
    if ! mmdebstrap --architectures="$arch" --variant=apt --mode=root --include="$include" --dpkgopt=force-unsafe-io \
        --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Retries "3"' --skip=cleanup/reproducible \
        --essential-hook="$quoted base \"\$1\"" \
        --customize-hook="$quoted lab \"\$1\"" \
        --customize-hook="chroot \"\$1\" grub-mkimage -O $platform -p '$prefix/boot/grub' -o /boot/grub/core.img \
            $modules ext2 normal linux serial terminal search configfile" \
        --customize-hook="$quoted record \"\$1\" $(printf '%q' "$work/out/packages.txt")" \
        "$suite" "$work/root" \
        "deb $mirror $suite main" "deb $mirror $suite-updates main" "deb $security $suite-security main" 9>&- > "$store/build.log" 2>&1; then
        refuse "the box was not built: $(grep --max-count=1 --extended-regexp '^(set-up stopped|E: )' "$store/build.log") (the whole log: $store/build.log)"
    fi
    rm -f "$work/root"/etc/dpkg/dpkg.cfg.d/99mmdebstrap "$work/root"/etc/apt/apt.conf.d/99mmdebstrap
    : > "$work/root/etc/machine-id" # the first boot makes one
    touch "$work/root/etc/.updated" "$work/root/var/.updated" # so that it does not make caches anew which are there
    say "root made in $((SECONDS - begin)) s, $(du --summarize --block-size=M "$work/root" | cut -f 1)"

    begin=$SECONDS
    "$here/disk.sh" "$work/root" "$arch" "$work/disk.raw"
    qemu-img convert -m 4 -W -O qcow2 -c -o compression_type=zstd "$work/disk.raw" "$work/out/box.img"
    say "disk made in $((SECONDS - begin)) s, $(du --block-size=M "$work/out/box.img" | cut -f 1)"
    cp --dereference "$work/root/vmlinuz" "$work/out/vmlinuz" # with which a host measures whether its KVM works
    rm -rf "$work/root" "$work/disk.raw"
    mv "$work/out" "$box"
}

if [ ! -d "$box" ]; then
    build
fi
"$here/catalogue.py" "$box" --arch "$arch" "${formats[@]}"
ln --symbolic --force --no-dereference "$key" "$store/current"
