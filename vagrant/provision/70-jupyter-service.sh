#!/bin/bash
# In a virtual machine: JupyterLab as a service, on 127.0.0.1 with a token, and the student's own copy of the notebooks.
set -euo pipefail

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=/var/lib/labkit/notebooks
listing=/etc/labkit/notebooks
unit=labkit-jupyter.service
units=/etc/systemd/system

if [ "${2:-lab}" != box ]; then
    exit 0
fi

service() {
    cat << UNIT
[Unit]
Description=JupyterLab of the course
After=network.target

[Service]
Type=notify
ExecStart=$checkout/.venv/bin/labkit start --port 8888 --notebooks $work
Environment=HOME=/root
WorkingDirectory=$work
Restart=on-failure
RestartSec=2
# An emulated machine takes minutes.
TimeoutStartSec=600
# What the labs start counts as theirs: their cgroups, processes and killed processes are no matter of this unit.
Delegate=yes
TasksMax=infinity
OOMPolicy=continue

[Install]
WantedBy=multi-user.target
UNIT
}

# For hypervisors whose forwarded port ends at the network card (VirtualBox, VMware, Parallels): a door there for the host alone.
forward_socket() {
    local gateway
    gateway=$(ip -4 route show default | awk '{print $3; exit}')
    cat << UNIT
[Unit]
Description=The host's way to JupyterLab

[Socket]
ListenStream=0.0.0.0:8889
IPAddressDeny=any
IPAddressAllow=$gateway ${gateway%.*}.1

[Install]
WantedBy=sockets.target
UNIT
}

forward() {
    cat << UNIT
[Unit]
Description=The host's way to JupyterLab

[Service]
ExecStart=/usr/lib/systemd/systemd-socket-proxyd 127.0.0.1:8888
PrivateTmp=yes
UNIT
}

forwarded() {
    [ -d /run/systemd/system ] && [[ $(systemd-detect-virt) =~ ^(oracle|vmware|parallels)$ ]]
}

is_written() {
    cmp --quiet "$units/$unit" <(service) && {
        ! forwarded || { cmp --quiet "$units/labkit-forward.socket" <(forward_socket) && cmp --quiet "$units/labkit-forward.service" <(forward); }
    }
}

is_copied() {
    [ -d "$work" ] && cmp --quiet "$listing" <(cd "$checkout/notebooks" && notebooks 2> /dev/null) # cmp may not read to the end
}

runs() {
    [ ! -d /run/systemd/system ] || { systemctl --quiet is-active "$unit" && { ! forwarded || systemctl --quiet is-active labkit-forward.socket; }; }
}

notebooks() {
    find . -type f -not -path '*/.ipynb_checkpoints/*' -print0 | LC_ALL=C sort -z | xargs -0 --no-run-if-empty sha256sum
}

# A notebook that the student has changed stays as it is; any other one becomes the checkout's.
copy() {
    local name known
    mkdir -p "$work" "${listing%/*}"
    while read -r _ name; do
        if [ -e "$work/$name" ]; then
            known=$(awk -v name="$name" '$2 == name { print $1 }' "$listing" 2> /dev/null || true)
            if [ "$(sha256sum < "$work/$name" | cut -d ' ' -f 1)" != "$known" ]; then
                cmp --quiet "$work/$name" "$checkout/notebooks/$name" || echo "kept as it was changed: $work/$name"
                continue
            fi
        fi
        mkdir -p "$(dirname "$work/$name")"
        cp "$checkout/notebooks/$name" "$work/$name.new"
        mv "$work/$name.new" "$work/$name"
    done < <(cd "$checkout/notebooks" && notebooks)
    (cd "$checkout/notebooks" && notebooks) > "$listing"
}

if [ "${1:-need}" = need ]; then
    if ! is_written || ! is_copied || ! runs; then
        echo "JupyterLab as a service"
    fi
    exit 0
fi

is_copied || copy
changed=
if ! is_written; then
    service > "$units/$unit"
    if forwarded; then
        forward_socket > "$units/labkit-forward.socket"
        forward > "$units/labkit-forward.service"
    fi
    changed=yes
fi
systemctl --quiet enable "$unit"
if [ -d /run/systemd/system ]; then
    if [ -n "$changed" ]; then
        systemctl daemon-reload
        systemctl stop "$unit"
    fi
    if forwarded; then
        systemctl --quiet enable labkit-forward.socket
        systemctl restart labkit-forward.socket
    fi
    if ! systemctl start "$unit"; then # Type=notify: it has ended well when JupyterLab answers
        journalctl --unit "$unit" --lines 1 --output cat --no-pager
        exit 1
    fi
fi
