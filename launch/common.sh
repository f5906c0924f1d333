#!/usr/bin/env bash
# What the launchers share. Sourced.
#
#   DRY_RUN=1   prints exactly what would run, and runs nothing
#   RETRIES=10  how often a run that was preempted (exit code 75) or lost a host is started again

RETRIES="${RETRIES:-10}"
PREEMPTED=75

# die CODE MESSAGE: one line, and the end.
die() {
    echo "embed: $2" >&2
    exit "$1"
}

# usage: the comment on top of the script that runs, without its first line, and the end.
usage() {
    sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0" >&2
    exit 64
}

# need NAME PATTERN WHAT: the variable must be set and match.
need() {
    local value="${!1:-}"
    [ -n "$value" ] || die 64 "set $1: $3"
    [[ "$value" =~ ^($2)$ ]] || die 64 "$1=$value is not $3"
}

# note_disks WORD...: says so where hosts without a common disk would each write to their own.
note_disks() {
    local word
    for word in "$@"; do
        case "$word" in
            --run_dir=gs://* | --run_dir=s3://* | --output=gs://* | --output=s3://*) ;;
            --run_dir=* | --output=*)
                echo "note: ${word} lies on the disk of each host; where they share none, name a place in a bucket: ${word%%=*}=gs://BUCKET/PATH"
                ;;
        esac
    done
}

# quoted WORD...: as one line that a shell reads back as these words.
quoted() {
    local line
    printf -v line '%q ' "$@"
    printf '%s' "${line% }"
}

# run COMMAND...: shows it and runs it.
run() {
    printf '+ %s\n' "$(quoted "$@")"
    if [ "${DRY_RUN:-0}" != 1 ]; then
        "$@"
    fi
}

# no_secrets WORD...: command lines are seen by everyone on a host, and end in logs.
no_secrets() {
    local word
    for word in "$@"; do
        case "$word" in
            *hf_[A-Za-z0-9]* | *sk-[A-Za-z0-9]* | *AIza[A-Za-z0-9]* | *api_key=* | *token=* | *password=*)
                die 64 "a word of the command looks like a secret (${word:0:6}...); give it in the environment, by a file or by the cluster"
                ;;
        esac
    done
}

# worth_again CODE HOSTS: preempted; or, of several hosts, one ended by a signal, as all are when one of them is lost.
worth_again() {
    [ "$1" -eq "$PREEMPTED" ] || { [ "$2" -gt 1 ] && [ "$1" -ge 128 ]; }
}

# told CODE: an exit code for people.
told() {
    case "$1" in
        "$PREEMPTED") echo "$1 (asked to stop, or another host is lost)" ;;
        134) echo "$1 (a host that it depends on is lost)" ;;
        *) if [ "$1" -gt 128 ]; then echo "$1 (ended by signal $(($1 - 128)))"; else echo "$1"; fi ;;
    esac
}

# read_topology KIND:SHAPE, such as v5e:16x16, sets what the clouds call it: CHIPS, HOSTS, CHIPS_A_HOST, TPU_TYPE (gcloud),
# TPU_VERSION (its image), TPU_LABEL (GKE), TPU_NAME (xpk).
read_topology() {
    local kind="${1%%:*}" shape="${1#*:}" sizes
    need TOPOLOGY 'v5e:[0-9]+x[0-9]+|v5p:[0-9]+x[0-9]+x[0-9]+|v6e:[0-9]+x[0-9]+' 'a TPU and its shape, such as v5e:16x16 or v5p:4x4x4'
    IFS=x read -ra sizes <<<"$shape"
    CHIPS=1
    for size in "${sizes[@]}"; do
        CHIPS=$((CHIPS * size))
    done
    CHIPS_A_HOST=4
    # Small slices lie in one host.
    if [ "$kind" != v5p ] && [ "$CHIPS" -le 8 ]; then
        CHIPS_A_HOST=$CHIPS
    fi
    HOSTS=$(((CHIPS + CHIPS_A_HOST - 1) / CHIPS_A_HOST))
    TPU_SHAPE="$shape"
    case "$kind" in
        v5e) TPU_TYPE=v5litepod TPU_VERSION=v2-alpha-tpuv5-lite TPU_LABEL=tpu-v5-lite-podslice TPU_NAME="v5litepod-$CHIPS" ;;
        v5p) TPU_TYPE=v5p TPU_VERSION=v2-alpha-tpuv5 TPU_LABEL=tpu-v5p-slice TPU_NAME="v5p-$((2 * CHIPS))" ;;
        v6e) TPU_TYPE=v6e TPU_VERSION=v2-alpha-tpuv6e TPU_LABEL=tpu-v6e-slice TPU_NAME="v6e-$CHIPS" ;;
    esac
    export CHIPS HOSTS CHIPS_A_HOST TPU_SHAPE TPU_TYPE TPU_VERSION TPU_LABEL TPU_NAME
}

need RETRIES '[0-9]+' 'a number of starts'
