#!/usr/bin/env bash
# A command of embed on a TPU slice: asks for it as a queued resource, brings this commit there, runs the same command on
# every host, follows it, and starts again what was preempted.
#
#   PROJECT=mine ZONE=us-west4-a TOPOLOGY=v5e:16x16 launch/tpu_vm.sh train NAME \
#       train --gin_file=gin/recipes/gemini_embedding/prefinetune.gin --run_dir=gs://BUCKET/stage1
#   launch/tpu_vm.sh create | setup | start NAME ... | follow | logs | status | delete NAME      its parts, one by one
#
# NAME       of the slice and its queued resource
# TOPOLOGY   v5e:16x16, v5p:4x4x4, v6e:8x8; SPOT=1 or RESERVED=1; SERVICE_ACCOUNT for the hosts, which needs no key file
# SECRETS    a file of NAME=VALUE lines, chmod 600, copied to the hosts as such
# The slice stays, and costs, until `delete NAME`; DELETE=1 deletes it at the end of `train`.
# OUTPUT     folder for the hosts' logs (default runs/)
# DRY_RUN=1 prints what would run; RETRIES (10) bounds the starts; POLL (30) seconds between two looks.
# The hosts share no disk: put the run, its token caches (--gin.CACHE_DIR) and what it reads into a bucket that they may use.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$here/launch/common.sh"
[ $# -ge 2 ] || usage
action=$1 NAME=$2
shift 2
need NAME '[a-z]([-a-z0-9]{0,60}[a-z0-9])?' 'a name of small letters, digits and dashes'
need PROJECT '[a-z][-a-z0-9]{4,28}[a-z0-9]' 'the name of a Google Cloud project'
need ZONE '[a-z]+-[a-z]+[0-9]+-[a-z]' 'a zone, such as us-west4-a'
place=(--project="$PROJECT" --zone="$ZONE")
if [ -n "${SERVICE_ACCOUNT:-}" ]; then
    need SERVICE_ACCOUNT '[-a-z0-9.]+@[-a-z0-9.]+' 'the address of a service account'
fi
no_secrets "$@"
OUTPUT="${OUTPUT:-$here/runs}"
mkdir -p "$OUTPUT"

ssh_all() {
    run gcloud compute tpus tpu-vm ssh "$NAME" "${place[@]}" --worker=all --command="$1"
}

create() {
    read_topology "${TOPOLOGY:-}"
    run gcloud compute tpus queued-resources create "$NAME" "${place[@]}" --node-id="$NAME" \
        --type="$TPU_TYPE" --topology="$TPU_SHAPE" --runtime-version="${VERSION:-$TPU_VERSION}" \
        ${SPOT:+--spot} ${RESERVED:+--reserved} ${SERVICE_ACCOUNT:+--service-account="$SERVICE_ACCOUNT"}
}

# state: of the queued resource; NONE where there is none, UNKNOWN where it cannot be asked for, as without a network.
state() {
    local told
    if told="$(gcloud compute tpus queued-resources describe "$NAME" "${place[@]}" --format='value(state.state)' 2>&1)"; then
        echo "$told"
    elif [[ "$told" == *NOT_FOUND* ]]; then
        echo NONE
    else
        echo UNKNOWN
    fi
}

# ready: waits until the slice is there; what has failed or was taken away is asked for anew.
ready() {
    local now before='' asked=0
    if [ "${DRY_RUN:-0}" = 1 ]; then
        create
        return
    fi
    while true; do
        now="$(state)"
        [ "$now" = "$before" ] || echo "embed: $NAME is $now"
        before="$now"
        case "$now" in
            ACTIVE) return ;;
            NONE)
                [ "$asked" -le "$RETRIES" ] || die "$PREEMPTED" "$NAME was asked for $asked times and never given"
                asked=$((asked + 1))
                create
                ;;
            FAILED | SUSPENDED) delete ;;
        esac
        sleep "${POLL:-30}"
    done
}

delete() {
    run gcloud compute tpus queued-resources delete "$NAME" "${place[@]}" --force --quiet
}

# setup: this commit, and the environment, on every host.
setup() {
    run git -C "$here" archive --format=tar.gz --prefix=embed/ -o "$OUTPUT/embed.tar.gz" HEAD || return
    run gcloud compute tpus tpu-vm scp "$OUTPUT/embed.tar.gz" "$NAME:embed.tar.gz" "${place[@]}" --worker=all || return
    if [ -n "${SECRETS:-}" ]; then
        run gcloud compute tpus tpu-vm scp "$SECRETS" "$NAME:embed.secrets" "${place[@]}" --worker=all || return
        ssh_all 'chmod 600 embed.secrets' || return
    fi
    ssh_all 'tar -xzf embed.tar.gz && cd embed && EXTRAS=tpu,quickstart,gcs launch/host.sh --version'
}

# start WORD...: the command on every host, in the background.
start() {
    [ $# -gt 0 ] || die 64 "start NAME needs a command of embed, such as: train --gin_file=... --run_dir=..."
    note_disks "$@"
    ssh_all "cd embed && LOG=../embed.log EXTRAS=tpu,quickstart,gcs ${SECRETS:+SECRETS=../embed.secrets }launch/host.sh $(quoted "$@") --distributed"
}

# follow: waits for the end, and returns the exit code: 0 where all hosts have it, 75 where the slice is gone.
follow() {
    local codes code
    [ "${DRY_RUN:-0}" != 1 ] || return 0
    while true; do
        sleep "${POLL:-30}"
        case "$(state)" in
            ACTIVE) ;;
            UNKNOWN) continue ;;
            *)
                echo "embed: $NAME is gone" >&2
                return "$PREEMPTED"
                ;;
        esac
        # One line a host: its exit code, or - while it runs.
        codes="$(gcloud compute tpus tpu-vm ssh "$NAME" "${place[@]}" --worker=all --command='cat embed.log.exit 2>/dev/null || echo -' 2>/dev/null)" || continue
        gcloud compute tpus tpu-vm ssh "$NAME" "${place[@]}" --worker=0 --command='tail -n 1 embed.log' 2>/dev/null || true
        # The others of a host that fails end because it is lost: its own code is the one that tells.
        local found=0
        for code in $codes; do
            case "$code" in
                0 | -) ;;
                *) if [ "$found" = 0 ] || worth_again "$found" 2; then found=$code; fi ;;
            esac
        done
        [ "$found" = 0 ] || return "$found"
        [[ "$codes" == *-* ]] || return 0
    done
}

# stop: ends what runs on the hosts, which saves first.
stop() {
    ssh_all "pkill -TERM -f '[e]mbed/.venv/bin/embed' || true; for i in \$(seq 60); do pgrep -f '[e]mbed/.venv/bin/embed' >/dev/null || break; sleep 1; done; pkill -KILL -f '[e]mbed/.venv/bin/embed' || true"
}

# logs: of every host into runs/NAME/.
logs() {
    local host
    read_topology "${TOPOLOGY:-}"
    run mkdir -p "$OUTPUT/$NAME"
    for ((host = 0; host < HOSTS; host++)); do
        run gcloud compute tpus tpu-vm scp "$NAME:embed.log" "$OUTPUT/$NAME/host-$host.log" "${place[@]}" --worker="$host" || break
    done
}

train() {
    local begun code
    [ $# -gt 0 ] || die 64 "train NAME needs a command of embed, such as: train --gin_file=... --run_dir=..."
    read_topology "${TOPOLOGY:-}"
    for ((begun = 0; begun <= RETRIES; begun++)); do
        code=0
        ready
        setup && start "$@" && { follow || code=$?; } || code=$PREEMPTED
        if ! worth_again "$code" "$HOSTS"; then
            break
        fi
        echo "embed: ended with $(told "$code"); start $((begun + 2)) of at most $((RETRIES + 1))" >&2
        [ "$(state)" != ACTIVE ] || stop || true
    done
    logs || true
    if [ "${DELETE:-0}" = 1 ]; then
        delete
    else
        echo "embed: $NAME stays, and costs; launch/tpu_vm.sh delete $NAME"
    fi
    return "$code"
}

case "$action" in
    create | setup | start | follow | logs | delete | train | stop) "$action" "$@" ;;
    status) run gcloud compute tpus queued-resources describe "$NAME" "${place[@]}" ;;
    *) die 64 "no action $action; known: train, create, setup, start, follow, stop, logs, status, delete" ;;
esac
