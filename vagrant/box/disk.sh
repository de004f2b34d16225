#!/bin/bash
# Make a bootable disk of a Debian root, without loop devices: disk.sh ROOT ARCH IMAGE. The disk is sparse; the root lies on its last partition.
set -euo pipefail

root=$1 arch=$2 image=$3
size=$((24 << 30)) # seen by the guest; what is not used takes no space
mib=$((1 << 20))

case $arch in
    amd64)
        # BIOS: the first sector is GRUB's, and GRUB's core follows it in the gap before the partition.
        start=1
        table="label: dos
               start=${start}MiB, type=83, bootable"
        ;;
    arm64)
        # UEFI: the firmware finds GRUB on a FAT partition.
        start=65
        table="label: gpt
               start=1MiB, size=64MiB, type=uefi
               start=${start}MiB, type=linux"
        ;;
esac

truncate --size "$size" "$image"
sfdisk --quiet "$image" <<< "$table"
case $arch in
    amd64)
        core=$root/boot/grub/core.img
        if [ "$(stat --format %s "$core")" -gt $((mib - 512)) ]; then
            echo "GRUB's core does not fit before the partition" >&2
            exit 1
        fi
        dd if="$root/usr/lib/grub/i386-pc/boot.img" of="$image" bs=440 count=1 conv=notrunc status=none
        dd if="$core" of="$image" bs=512 seek=1 conv=notrunc status=none
        ;;
    arm64)
        mkfs.vfat --offset 2048 -F 32 "$image" $((64 << 10)) > /dev/null
        mmd -i "$image@@1M" ::EFI ::EFI/BOOT
        mcopy -i "$image@@1M" "$root/boot/grub/core.img" ::EFI/BOOT/BOOTAA64.EFI
        ;;
esac
# Without orphan_file and metadata_csum_seed, whatever mkfs it is: GRUB has to read it.
mkfs.ext4 -q -L labkit-root -m 1 -E "offset=$((start * mib)),root_owner=0:0" -d "$root" "$image" "$(((size - start * mib) / 1024))k"
