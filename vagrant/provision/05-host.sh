#!/bin/bash
# In a virtual machine: take over the host's certificate authorities and proxy, which it leaves in /etc/labkit (host-ca.pem, host.env).
set -euo pipefail

place=/etc/labkit
stamp=$place/applied

key() {
    { cat "${BASH_SOURCE[0]}" "$place/host.env" "$place/host-ca.pem" 2> /dev/null || true; } | sha256sum
}

if [ "${2:-lab}" != box ] || { [ ! -e "$place/host.env" ] && [ ! -e "$place/host-ca.pem" ] && [ ! -e "$stamp" ]; }; then
    exit 0
fi
if [ "${1:-need}" = need ]; then
    if [ "$(cat "$stamp" 2> /dev/null)" != "$(key)" ]; then
        echo "the host's certificate authorities and proxy"
    fi
    exit 0
fi

# Each authority is a file of its own: update-ca-certificates takes one a file.
authorities=/usr/local/share/ca-certificates/labkit
if [ -d "$authorities" ]; then
    rm -r "$authorities"
    update-ca-certificates --fresh
fi
if [ -e "$place/host-ca.pem" ]; then
    mkdir -p "$authorities"
    awk -v to="$authorities" '/-BEGIN CERTIFICATE-/ { n++; on = 1 } on { print > (to "/host-" n ".crt") } /-END CERTIFICATE-/ { on = 0 }' \
        "$place/host-ca.pem"
    # What update-ca-certificates does for a new one; it looks at all the others, too, and takes minutes in an emulated machine.
    for file in "$authorities"/*; do
        ln -sf "$file" "/etc/ssl/certs/labkit-$(basename "$file" .crt).pem"
        ln -sf "$file" "/etc/ssl/certs/$(openssl x509 -noout -subject_hash -in "$file").0"
        cat "$file" >> /etc/ssl/certs/ca-certificates.crt
    done
fi

# The proxy: for login shells, for services and for apt, a file of ours in each place.
mkdir -p /etc/systemd/system.conf.d /etc/apt/apt.conf.d
rm -f /etc/systemd/system.conf.d/50-labkit.conf /etc/apt/apt.conf.d/50labkit-proxy /etc/profile.d/labkit-proxy.sh
if [ -s "$place/host.env" ]; then
    sed 's/.*/export "&"/' "$place/host.env" > /etc/profile.d/labkit-proxy.sh
    { echo '[Manager]'; sed 's/%/%%/g; s/.*/DefaultEnvironment="&"/' "$place/host.env"; } > /etc/systemd/system.conf.d/50-labkit.conf
    sed -n 's/^\(https\?\)_proxy=\([^"]*\)$/Acquire::\1::Proxy "\2";/p' "$place/host.env" > /etc/apt/apt.conf.d/50labkit-proxy
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reexec # it reads what services get
fi
key > "$stamp"
