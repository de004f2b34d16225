#!/bin/bash
# Debian packages. `a|b|c` stands for any of them that is installed, else for the first that this release has.
set -euo pipefail

lab=(
    bash coreutils procps util-linux ca-certificates
    python3 python3-venv
    cgroup-tools               # lscgroup
    attr                       # getfattr
    iproute2 iputils-ping net-tools nftables
    fuse3 'unionfs-fuse|fuse-overlayfs' 'unionfs-fuse|mergerfs' # unionfs-fuse is gone from Debian 13
    # A Docker of docker.com is left alone; Debian 13 has taken the client and buildx out of docker.io.
    'docker.io|docker-ce' 'docker-cli|docker-ce-cli|docker.io' 'docker-buildx|docker-buildx-plugin|docker.io'
    'containerd|containerd.io' 'runc|containerd.io' crun
    podman buildah skopeo containernetworking-plugins netavark aardvark-dns catatonit fuse-overlayfs slirp4netns iptables
    debootstrap mmdebstrap busybox-static systemd-container apparmor
    lxc lxc-templates lxd uidmap dnsmasq-base
    docker-registry apache2-utils openssl   # htpasswd, the accounts of a registry
    gpg gpgv gpgconf gpg-agent              # signatures of App Container images
    supervisor                              # starts the services where systemd does not run
    btrfs-progs e2fsprogs                   # disks of a lab, one a storage driver
    rsync xz-utils zstd curl
)
machine=(
    vagrant vagrant-libvirt libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils ovmf
    dnsmasq-base dosfstools e2fsprogs fdisk mmdebstrap mtools openssh-client rsync
)
tests=(
    "${machine[@]}"
    bubblewrap chromium crun e2fsprogs fuse-overlayfs gcc git libc6-dev make mergerfs shellcheck tini
)
benchmarks=(
    bubblewrap crun gcc libc6-dev systemd # systemd-cgtop is a peer that is measured
)

# shellcheck source=/dev/null
if [ "$(. /etc/os-release && echo "${VERSION_CODENAME:-}")" != bookworm ]; then # which has no Incus
    lab+=(incus-base)
fi

what=${2:-lab}
wanted=("${lab[@]}")
case $what in
    test) wanted+=("${tests[@]}") ;;
    bench) wanted+=("${benchmarks[@]}") ;;
    site) wanted=(bash coreutils ca-certificates python3 python3-venv chromium) ;;
    vm) wanted=(bash coreutils ca-certificates python3 python3-venv busybox-static docker-registry skopeo curl "${machine[@]}") ;;
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
    local packages package
    for packages in "${wanted[@]}"; do
        for package in ${packages//|/ }; do
            if [ -n "${installed[$package]-}" ]; then
                continue 2
            fi
        done
        echo "$packages"
    done
}

resolved() {
    local packages package
    for packages in "$@"; do
        for package in ${packages//|/ }; do
            if known "$package"; then
                break
            fi
        done
        echo "$package" # where none is known the last one: apt then names it
    done
}

mapfile -t todo < <(missing)

if [ "${1:-need}" = need ]; then
    if [ "${#todo[@]}" -gt 0 ]; then
        names=("${todo[@]%%|*}")
        echo "Debian packages (${#todo[@]}): ${names[*]:0:4}$([ "${#todo[@]}" -le 4 ] || echo ' ...')"
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

# What is installed here is started by `labkit up` alone: a registry of Debian's would listen on every address.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ] || grep --quiet 'set-up of labkit runs' "$policy"; then # or left by one that was killed
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\n# the set-up of labkit runs\nexit 101\n' > "$policy"
    chmod +x "$policy"
fi

dpkg --configure -a                 # an earlier run may have been interrupted
if ! known python3-venv || ! install; then
    apt update                      # only when the lists are missing or too old
    install
fi
