#!/bin/bash
# The Python environment .venv: exactly the versions of the lock, each with its hash, and labkit itself.
set -euo pipefail

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
venv=$checkout/.venv
python=/usr/bin/python3             # Debian's own: another one in PATH may be gone tomorrow
what=${2:-lab}
case $what in
    test | bench | site) lock=$checkout/requirements-test.lock stamp=$venv/installed-test ;;
    *) lock=$checkout/requirements.lock stamp=$venv/installed-lab ;;
esac
unset PYTHONPATH PYTHONHOME PIP_USER PIP_TARGET PIP_PREFIX

# What the environment depends on; when one of them changes it is made up to date.
key() {
    { cat "$lock" "${BASH_SOURCE[0]}"; echo "$checkout"; "$python" --version; } | sha256sum
}

if [ "${1:-need}" = need ]; then
    if [ ! -x "$python" ] || [ ! -x "$venv/bin/python" ] || [ "$(cat "$stamp" 2> /dev/null)" != "$(key)" ]; then
        echo "Python environment .venv ($(grep -c '^[a-z0-9].*==' "$lock") packages, versions locked)"
    fi
    exit 0
fi

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "needs Python 3.11 or later, $python is $("$python" --version 2>&1); remedy: run it on Debian 12 or 13"
    exit 2
fi

if ! "$venv/bin/python" -c "import pip, sys; sys.exit(sys.version_info[:2] != $("$python" -c 'import sys; print(sys.version_info[:2])'))"; then
    "$python" -m venv --clear "$venv"
fi
# Wheels only: a source package would fetch its build tools, which no lock names.
"$venv/bin/python" -m pip install --no-input --disable-pip-version-check --progress-bar off \
    --require-hashes --no-deps --only-binary :all: --requirement "$lock"

# labkit runs from the checkout: a path file and a command, so that nothing has to be built.
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "$checkout" > "$site/labkit.pth"
printf '#!/bin/sh\nexec "%s/bin/python" -P -m labkit "$@"\n' "$venv" > "$venv/bin/labkit"
chmod +x "$venv/bin/labkit"
key > "$stamp"
