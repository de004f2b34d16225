#!/bin/bash
# In a virtual machine: what the packages would start at each boot stays off. `labkit up` starts what a lab needs, and a registry of
# Debian's would listen on every address. Each unit is switched off once: who switches it on again wants it on.
set -euo pipefail

seen=/etc/labkit/switched-off
profiles=/etc/apparmor.d

if [ "${2:-lab}" != box ]; then
    exit 0
fi
units=(
    containerd.service docker.service docker.socket docker-registry.service
    lxc.service lxc-net.service lxc-monitord.service lxcfs.service lxd-containers.service lxd.service lxd.socket
    incus.service incus.socket incus-startup.service incus-user.service incus-user.socket
    netavark-dhcp-proxy.service netavark-dhcp-proxy.socket netavark-firewalld-reload.service
    supervisor.service grub-common.service e2scrub_reap.service e2scrub_all.timer
)

# Units that are on and were not switched off before.
on() {
    systemctl list-unit-files --state=enabled --no-legend --plain "${units[@]}" 2> /dev/null | cut -d ' ' -f 1 |
        grep --line-regexp --invert-match --fixed-strings --file <(cat "$seen" 2> /dev/null) || true
}

# AppArmor's profiles of desktop programs: they only allow what a kernel of Ubuntu would forbid, and take long to compile.
idle_profiles() {
    grep --files-with-matches --no-messages 'flags=(.*unconfined' "$profiles"/* | while read -r profile; do
        if [ ! -e "$profiles/disable/${profile##*/}" ]; then
            echo "${profile##*/}"
        fi
    done
}

mapfile -t found < <(on)
mapfile -t idle < <(idle_profiles)
if [ "${1:-need}" = need ]; then
    if [ $((${#found[@]} + ${#idle[@]})) -gt 0 ]; then
        echo "what starts at boot (${#found[@]} units and ${#idle[@]} profiles less)"
    fi
    exit 0
fi

mkdir -p "${seen%/*}" "$profiles/disable"
for profile in "${idle[@]}"; do
    ln -s "../$profile" "$profiles/disable/$profile"
done
if [ "${#found[@]}" -gt 0 ]; then
    systemctl --quiet disable "${found[@]}"
    printf '%s\n' "${found[@]}" >> "$seen"
fi
