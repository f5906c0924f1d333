#!/usr/bin/env bash
# A command of embed on the GPUs of this machine, started again after a preemption.
#
#   launch/gpu.sh train --gin_file=gin/recipes/quickstart.gin --run_dir=runs/quickstart
#
# DEVICES    numbers of the GPUs to use, such as 0,1 (default: all)
# PROCESSES  as many processes as hosts (default 1), which meet on this machine; all start again when one is lost
# On several machines give the same command on each, with --distributed, JAX_COORDINATOR_ADDRESS=HOST:PORT,
# JAX_NUM_PROCESSES and JAX_PROCESS_ID. DRY_RUN=1 prints what would run; RETRIES (10) bounds the starts.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$here/launch/common.sh"
[ $# -gt 0 ] || usage
PROCESSES="${PROCESSES:-1}"
need PROCESSES '[1-9][0-9]*' 'a number of processes'
no_secrets "$@"
export EXTRAS="${EXTRAS:-cuda,quickstart}" EMBED_VENV="${EMBED_VENV:-$here/.venv-cuda}"
if [ -n "${DEVICES:-}" ]; then
    need DEVICES '[0-9]+(,[0-9]+)*' 'numbers of GPUs, such as 0,1'
    export CUDA_VISIBLE_DEVICES="$DEVICES"
fi
# Collectives beside the computation.
export XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_enable_latency_hiding_scheduler=true"

pids=()
stopped=0
sleeper=''

# end: asks the processes that are left to save and end; `once` ends them after GRACE seconds.
end() {
    [ ${#pids[@]} -gt 0 ] || return 0
    kill -TERM "${pids[@]}" 2>/dev/null || true
    if [ -z "$sleeper" ]; then
        sleep "${GRACE:-60}" >/dev/null 2>&1 &
        sleeper=$!
    fi
}
trap 'stopped=1; end' TERM INT

# once COMMAND...: runs all processes to their end, and sets `code`: the first that is not 0. One that fails takes the others
# with it.
once() {
    local process pid port=$((20000 + RANDOM % 20000)) own
    pids=() code=0
    for ((process = 0; process < PROCESSES; process++)); do
        if [ "$PROCESSES" -gt 1 ]; then
            JAX_COORDINATOR_ADDRESS="127.0.0.1:$port" JAX_NUM_PROCESSES="$PROCESSES" JAX_PROCESS_ID="$process" \
                "$here/launch/host.sh" "$@" &
        else
            "$here/launch/host.sh" "$@" &
        fi
        pids+=($!)
    done
    while [ ${#pids[@]} -gt 0 ]; do
        own=0
        wait -n -p pid "${pids[@]}" ${sleeper:+"$sleeper"} || own=$?
        # A signal to this script ends the wait and no process.
        [ -n "${pid:-}" ] || continue
        if [ "$pid" = "$sleeper" ]; then
            kill -KILL "${pids[@]}" 2>/dev/null || true
            sleeper=''
            continue
        fi
        for process in "${!pids[@]}"; do
            if [ "${pids[process]}" = "$pid" ]; then
                unset "pids[process]"
            fi
        done
        if [ "$own" -ne 0 ] && [ "$code" -eq 0 ]; then
            code=$own
            end
        fi
    done
    if [ -n "$sleeper" ]; then
        kill "$sleeper" 2>/dev/null || true
        sleeper=''
    fi
}

if [ "${DRY_RUN:-0}" = 1 ]; then
    echo "+ $(quoted env "EXTRAS=$EXTRAS" "XLA_FLAGS=$XLA_FLAGS" "$here/launch/host.sh" "$@")    ($PROCESSES process(es))"
    exit
fi
for ((start = 0; start <= RETRIES; start++)); do
    once "$@"
    if [ "$stopped" = 1 ] || ! worth_again "$code" "$PROCESSES"; then
        exit "$code"
    fi
    echo "embed: ended with $(told "$code"); start $((start + 2)) of at most $((RETRIES + 1))" >&2
    sleep "${PAUSE:-5}"
    [ "$stopped" = 0 ] || exit "$PREEMPTED"
done
die "$code" "given up after $((RETRIES + 1)) starts"
