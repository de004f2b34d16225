#!/bin/bash
# Print what runs the virtual CPUs: kvm where a kernel really boots in it, else tcg. LAB_ACCEL=kvm|tcg decides it; auto, the default, measures.
#
# /dev/kvm alone says little: inside some virtual machines it opens, makes machines, and their kernels hang.
set -euo pipefail

kernel=${1:-/var/lib/labkit/box}/current/vmlinuz
measured=${XDG_RUNTIME_DIR:-/run}/labkit-accelerator-$(cat /proc/sys/kernel/random/boot_id)

boots() {
    local said
    # Without a root file system a kernel that runs ends in a panic within a second or two, and panic=-1 with -no-reboot ends QEMU.
    said=$(timeout --kill-after=1 "${LAB_ACCEL_SECONDS:-20}" qemu-system-x86_64 -accel kvm -cpu host -m 512 -nodefaults -display none -serial stdio \
        -no-reboot -kernel "$kernel" -append 'console=ttyS0 panic=-1' 2> /dev/null < /dev/null | tr -d '\0') || true
    [[ $said == *'Kernel panic'* ]]
}

case ${LAB_ACCEL:-auto} in
    kvm | tcg)
        echo "$LAB_ACCEL"
        exit
        ;;
    auto) ;;
    *)
        echo "LAB_ACCEL=$LAB_ACCEL is no accelerator; remedy: kvm, tcg or auto" >&2
        exit 2
        ;;
esac
if [ ! -w /dev/kvm ]; then
    echo tcg
elif [ -s "$measured" ]; then
    cat "$measured"
elif [ ! -r "$kernel" ] || [ "$(uname -m)" != x86_64 ]; then
    echo kvm # no kernel to try it with
elif boots; then
    echo kvm | tee "$measured" 2> /dev/null
else
    echo tcg | tee "$measured" 2> /dev/null
fi
