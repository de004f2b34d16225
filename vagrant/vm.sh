#!/bin/bash
# The virtual machine on a Linux host, with libvirt and QEMU: vm.sh up|test|destroy|box. Needs root and no systemd, no KVM.
# The variables are those of the Vagrantfile (docs/vm.md). `up` and `test` build the box where it is missing.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
checkout=${here%/*}
export LAB_BOX_DIR=${LAB_BOX_DIR:-/var/lib/labkit/box}
export VAGRANT_CHECKPOINT_DISABLE=1 VAGRANT_NO_PARALLEL=1 VAGRANT_DEFAULT_PROVIDER=${VAGRANT_DEFAULT_PROVIDER:-libvirt}
export VAGRANT_DOTFILE_PATH=${VAGRANT_DOTFILE_PATH:-$checkout/.vagrant}
reports=${LAB_REPORTS:-$checkout/build/vm}
domain=${LAB_NAME:-labkit}-lab
daemons=/run/labkit-libvirt # who was started here, a file for each with its process id
cd "$checkout"

refuse() {
    echo "$*" >&2
    exit 2
}

say() {
    echo "$domain: $*"
}

virsh() {
    command virsh --quiet --connect qemu:///system "$@"
}

# Where systemd runs it starts libvirt's daemons; elsewhere they are started here, and stopped again by `destroy`.
daemons() {
    local name
    if virsh version > /dev/null 2>&1; then
        return
    fi
    if [ -d /run/systemd/system ]; then
        systemctl start virtlogd.socket libvirtd.socket
    else
        mkdir -p "$daemons"
        for name in virtlogd libvirtd; do
            "$name" --daemon --pid-file "$daemons/$name" > /dev/null 2>&1 9>&- || true
        done
    fi
    for _ in {1..100}; do
        if virsh version > /dev/null 2>&1; then
            return
        fi
        read -rt 0.1 <> <(:) || true
    done
    refuse "libvirtd does not answer: $(virsh version 2>&1 | tail -n 1); remedy: start it (libvirtd --daemon) and read what it says"
}

stop_daemons() {
    local name
    if [ -n "$(virsh list --name 2> /dev/null)" ]; then
        return # another machine runs in it
    fi
    for name in libvirtd virtlogd; do
        if [ -s "$daemons/$name" ] && [ "$(cat "/proc/$(< "$daemons/$name")/comm" 2> /dev/null)" = "$name" ]; then
            kill "$(< "$daemons/$name")"
            tail --pid="$(< "$daemons/$name")" --follow /dev/null 2> /dev/null
        fi
        rm -f "$daemons/$name"
    done
}

# Our box: built where its inputs have changed. A machine that is there keeps the one that it was made of.
box() {
    if [ -n "${LAB_BOX_URL-}" ] || [ "${LAB_BOX:-labkit}" != labkit ] || [ -e "$VAGRANT_DOTFILE_PATH/machines/lab/libvirt/id" ]; then
        return
    fi
    "$here/box/build.sh" 9>&-
    LAB_BOX_URL=file://$LAB_BOX_DIR/$("$here/box/key.sh")/metadata.json
    export LAB_BOX_URL
}

# A boot that hangs gets no address: it is reset once. Vagrant goes on waiting meanwhile.
watch_boot() {
    local limit=${LAB_HANG_SECONDS:-300} begin=$SECONDS
    while [ $((SECONDS - begin)) -lt "$limit" ]; do
        if [ -n "$(virsh domifaddr "$domain" 2> /dev/null)" ]; then
            return
        fi
        if ! virsh domstate "$domain" 2> /dev/null | grep --quiet running; then
            begin=$SECONDS # it has not started yet
        fi
        sleep 2
    done
    say "no address after $limit s, the boot hangs: reset"
    virsh reset "$domain"
}

up() {
    local watcher status=0
    daemons
    box
    watch_boot &
    watcher=$!
    vagrant up 2>&1 | shown || status=$?
    kill "$watcher" 2> /dev/null || true
    wait "$watcher" 2> /dev/null || true
    return "$status"
}

# Without the thousand steps of Vagrant's progress; its exit status counts (pipefail).
shown() {
    sed --unbuffered 's/\r\|\x1b\[K\|Progress: [0-9]*%//g; /^ *$/d'
}

guest() {
    vagrant ssh --command "$*" -- -T
}

# Every notebook, in the machine: compared with what is stored, and the executed ones come back, also those that differ.
check() {
    local status=0 executed=/var/lib/labkit/executed
    mkdir -p "$reports"
    guest sudo /opt/labkit/.venv/bin/labkit up || status=$?
    guest sudo /opt/labkit/.venv/bin/labkit doctor | tee "$reports/doctor.txt" || status=1
    guest sudo /opt/labkit/.venv/bin/labkit validate "$@" | tee "$reports/validate.txt" || status=1
    guest sudo rm -rf "$executed"
    guest sudo /opt/labkit/.venv/bin/labkit render --output "$executed" "$@" 2> /dev/null | tee "$reports/render.txt" || status=1
    guest sudo tar --create --directory "$executed" . | tar --extract --no-same-owner --directory "$reports" || status=1
    return "$status"
}

destroy() {
    if [ -e "$VAGRANT_DOTFILE_PATH/machines/lab/libvirt/id" ]; then
        daemons
        vagrant destroy --force
    fi
    stop_daemons
}

case ${1-} in
    up | destroy | box) "$1" ;;
    test)
        up
        check "${@:2}"
        ;;
    *) refuse "vm.sh ${1-}: there are up, test, destroy and box" ;;
esac
