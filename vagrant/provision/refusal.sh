#!/bin/bash
# Print in one line why this machine cannot be set up; print nothing where it can. Changes nothing.
set -eu
verb="make ${1:-lab}"

system=$(uname -s)
if [ "$system" != Linux ]; then
    echo "$verb needs a Linux kernel, this is $system; remedy: run it in a Debian 12 or 13 virtual machine"
elif ! command -v apt-get > /dev/null; then
    echo "$verb needs Debian's package manager, apt-get is not in PATH; remedy: run it on Debian 12 or 13"
elif [ "$(id -u)" != 0 ]; then
    echo "$verb needs root, it changes the kernel's state; remedy: sudo $verb"
fi
