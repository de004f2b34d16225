#!/bin/bash
# Make the Debian root of the box at the moments when mmdebstrap calls: root.sh base|lab|record ROOT [...].
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
checkout=$(cd "$here/../.." && pwd)
moment=$1 root=$2

# Before the packages: their scripts read this configuration.
base() {
    cp -r --no-preserve=ownership "$here/root/." "$root"
    printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d" # nothing that is installed is started in here
    chmod +x "$root/usr/sbin/policy-rc.d"
}

# After them: the user of Vagrant, then the very set-up that the machine itself runs, at native speed.
lab() {
    local authority=/run/labkit-ca.pem
    chroot "$root" useradd --create-home --shell /bin/bash --groups sudo vagrant
    install -d -m 700 "$root/home/vagrant/.ssh"
    install -m 600 "$here/vagrant.pub" "$root/home/vagrant/.ssh/authorized_keys" # the first `vagrant up` replaces it
    chroot "$root" chown -R vagrant:vagrant /home/vagrant
    chroot "$root" systemctl --quiet enable systemd-networkd systemd-resolved
    chroot "$root" ldconfig
    chroot "$root" journalctl --update-catalog
    chroot "$root" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer systemd-networkd-wait-online.service

    mkdir -p "$root/opt/labkit"
    rsync --archive --chown=root:root --exclude-from="$here/../not-synced" "$checkout/" "$root/opt/labkit/"
    chmod 755 "$root/opt/labkit"
    install -m 644 "${LAB_CA_BUNDLE:-/etc/ssl/certs/ca-certificates.crt}" "$root$authority"
    # As a mount of its own: steps that use unshare(1) change the propagation of /, which has to be one.
    # shellcheck disable=SC2016
    env -u PIP_FIND_LINKS -u LABKIT_STATE -u LAB_CA_BUNDLE \
        SSL_CERT_FILE="$authority" PIP_CERT="$authority" REQUESTS_CA_BUNDLE="$authority" PIP_NO_CACHE_DIR=1 DPKG_FORCE=unsafe-io \
        unshare --mount sh -c 'mount --rbind "$0" "$0" && exec chroot "$0" /opt/labkit/vagrant/provision/setup.sh box' "$root" || {
        tail -n 20 "$root/var/lib/labkit/setup.log" >&2
        exit 1
    }
    rm -f "$root$authority" "$root/usr/sbin/policy-rc.d"
}

# At the end: each package with its version and the hash of its .deb; then nothing that two machines must not share.
record() {
    local list=$3
    chroot "$root" sh -c "dpkg-query --show --showformat '\${Package}:\${Architecture}=\${Version}\n' | xargs apt-cache show" |
        awk '/^Package: /{p=$2} /^Version: /{v=$2} /^Architecture: /{a=$2} /^SHA256: /{print p, v, a, $2}' | LC_ALL=C sort -u > "$list"
    rm -f "$root"/etc/ssh/ssh_host_*
    rm -rf "$root"/var/cache/apt/*.bin "$root"/root/.cache "$root"/var/lib/labkit/setup.log
    ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
}

"$moment" "$@"
