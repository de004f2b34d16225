#!/bin/bash
# Set this machine up: setup.sh lab|test|bench|vm|box. Run as often as you like: what is there already is left alone.
#
# The steps are the numbered scripts beside this one. `STEP need WHAT` says in one line what is to be done, or nothing;
# `STEP do WHAT` does it. A step looks at what there is, so one that was interrupted is simply run again.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
what=${1:-lab}
state=${LABKIT_STATE:-/var/lib/labkit}
log=$state/setup.log

refusal=$("$here/refusal.sh" "$what")
if [ -n "$refusal" ]; then
    echo "$refusal" >&2
    exit 2
fi

mkdir -p "$state"
exec 9> /run/labkit-setup.lock
if ! flock --nonblock 9; then
    echo "another set-up runs on this machine: waiting for it to end"
    flock 9
fi

# Show that a long step lives: the seconds so far, on a terminal only.
elapsed() {
    while sleep 1; do
        printf '\r%s  %d s ' "$1" "$SECONDS"
    done
}

run() {
    local step=$1 title=$2 ticker='' status=0
    SECONDS=0
    printf '%s' "$title"
    if [ -t 1 ]; then
        elapsed "$title" 9>&- &
        ticker=$!
    fi
    "$step" 'do' "$what" >> "$log" 2>&1 9>&- || status=$?
    if [ -n "$ticker" ]; then
        kill "$ticker"
        wait "$ticker" 2> /dev/null || true
        printf '\r%s' "$title"
    fi
    if [ "$status" -ne 0 ]; then
        printf '  failed after %d s\n' "$SECONDS"
        echo "set-up stopped: $(grep -v '^ *$' "$log" | tail -n 1) (the whole log: $log)" >&2
        exit "$status"
    fi
    printf '  done in %d s    \n' "$SECONDS"
}

date --utc '+--- set-up, %FT%TZ' >> "$log"
for step in "$here"/[0-9]*.sh; do
    title=$("$step" need "$what")
    if [ -n "$title" ]; then
        run "$step" "$title"
    fi
done
