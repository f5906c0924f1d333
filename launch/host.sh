#!/usr/bin/env bash
# What every host of every launcher runs: the environment, then `embed` with the words given.
#
#   launch/host.sh train --gin_file=... --run_dir=... --distributed
#
# EXTRAS  of the package (default: quickstart; tpu and cuda bring JAX for them)
# EMBED   the program, where it is installed already, as in a container
# LOG     a file: the command goes on in the background and writes there, and its exit code to LOG.exit at its end
# SECRETS a file of NAME=VALUE lines, readable by its owner alone, that the command gets in its environment
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/common.sh
source launch/setup.sh
[ $# -gt 0 ] || usage

# read_secrets FILE: its lines are data, and are not run.
read_secrets() {
    local name value
    [ "$(stat -c %a "$1")" = 600 ] || die 78 "$1 holds secrets and others may read it; chmod 600 it"
    while IFS='=' read -r name value; do
        [[ "$name" =~ ^[A-Z_][A-Z0-9_]*$ ]] || die 78 "$1: a line is not NAME=VALUE"
        export "$name=$value"
    done <"$1"
}

if [ -n "${LOG:-}" ]; then
    log="$LOG"
    rm -f "$log.exit"
    # shellcheck disable=SC2016
    LOG='' setsid nohup bash -c 'code=0; "${@:2}" || code=$?; echo "$code" >"$1"' log "$log.exit" "$PWD/launch/host.sh" "$@" \
        >"$log" 2>&1 </dev/null &
    echo "started, writes to $log"
    exit
fi
if [ -z "${EMBED:-}" ]; then
    setup_environment "${EMBED_VENV:-.venv}" "${EXTRAS:-quickstart}"
fi
if [ -n "${SECRETS:-}" ]; then
    read_secrets "$SECRETS"
fi
exec "${EMBED:-${EMBED_VENV:-.venv}/bin/embed}" "$@"
