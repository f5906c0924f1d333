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

# read_topology KIND:SHAPE, such as v5e:16x16, sets what the clouds call it: chips, hosts, chips_a_host, tpu_type (gcloud),
# tpu_version (its image), tpu_label (GKE), tpu_name (xpk).
read_topology() {
    local kind="${1%%:*}" shape="${1#*:}" sizes
    need TOPOLOGY 'v5e:[0-9]+x[0-9]+|v5p:[0-9]+x[0-9]+x[0-9]+|v6e:[0-9]+x[0-9]+' 'a TPU and its shape, such as v5e:16x16 or v5p:4x4x4'
    IFS=x read -ra sizes <<<"$shape"
    chips=1
    for size in "${sizes[@]}"; do
        chips=$((chips * size))
    done
    chips_a_host=4
    # Small slices lie in one host.
    if [ "$kind" != v5p ] && [ "$chips" -le 8 ]; then
        chips_a_host=$chips
    fi
    hosts=$(((chips + chips_a_host - 1) / chips_a_host))
    tpu_shape="$shape"
    case "$kind" in
        v5e) tpu_type=v5litepod tpu_version=v2-alpha-tpuv5-lite tpu_label=tpu-v5-lite-podslice tpu_name="v5litepod-$chips" ;;
        v5p) tpu_type=v5p tpu_version=v2-alpha-tpuv5 tpu_label=tpu-v5p-slice tpu_name="v5p-$((2 * chips))" ;;
        v6e) tpu_type=v6e tpu_version=v2-alpha-tpuv6e tpu_label=tpu-v6e-slice tpu_name="v6e-$chips" ;;
    esac
    export chips hosts chips_a_host tpu_shape tpu_type tpu_version tpu_label tpu_name
}
