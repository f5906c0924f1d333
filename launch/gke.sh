#!/usr/bin/env bash
# A command of embed on TPU slices of a GKE cluster, as a JobSet: all hosts start again when one is lost or preempted.
#
#   IMAGE=REGISTRY/embed:TAG TOPOLOGY=v5e:16x16 launch/gke.sh run NAME train --gin_file=... --run_dir=gs://BUCKET/run
#   launch/gke.sh manifest NAME ... | logs NAME | status NAME | delete NAME
#
# IMAGE      holds this repository at /embed with its environment: Python, and what launch/host.sh makes with EXTRAS=tpu,gcs
# SLICES     of this topology (default 1); NAMESPACE, QUEUE (Kueue), SERVICE_ACCOUNT (of Kubernetes)
# SECRET     name of a Kubernetes secret whose entries the command gets in its environment
# VOLUME     name of a persistent volume claim, mounted at /shared
# SPOT=1     on spot nodes; XPK=CLUSTER hands the command to xpk instead, by uvx
# DRY_RUN=1 prints what would run; RETRIES (10) bounds the starts.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$here/launch/common.sh"
[ $# -ge 2 ] || usage
action=$1 NAME=$2
shift 2
NAMESPACE="${NAMESPACE:-default}" SLICES="${SLICES:-1}"
export NAMESPACE SLICES RETRIES
need NAME '[a-z]([-a-z0-9]{0,38}[a-z0-9])?' 'a name of small letters, digits and dashes, at most 40'
need NAMESPACE '[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?' 'the name of a namespace'
need SLICES '[1-9][0-9]*' 'a number of slices'
for name in QUEUE SERVICE_ACCOUNT SECRET VOLUME XPK; do
    if [ -n "${!name:-}" ]; then
        need "$name" '[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?' 'a name of the cluster'
    fi
done
no_secrets "$@"

case "$action" in
    manifest | run)
        [ $# -gt 0 ] || die 64 "$action NAME needs a command of embed, such as: train --gin_file=... --run_dir=..."
        need IMAGE '[-a-z0-9._/:]+(@sha256:[0-9a-f]{64})?' 'a container image'
        read_topology "${TOPOLOGY:-}"
        [ -n "${VOLUME:-}" ] || [ "$action" = manifest ] || note_disks "$@"
        if [ -n "${XPK:-}" ] && [ "$action" = run ]; then
            run uvx xpk workload create --cluster="$XPK" --workload="$NAME" --tpu-type="$TPU_NAME" --num-slices="$SLICES" \
                --docker-image="$IMAGE" --max-restarts="$RETRIES" --restart-on-exit-codes=75 \
                --command="cd /embed && EXTRAS=tpu,quickstart,gcs launch/host.sh $(quoted "$@") --distributed"
            exit
        fi
        text="$(python3 "$here/launch/jobset.py" "$NAME" "$@")"
        printf '%s\n' "$text"
        if [ "$action" = run ]; then
            run kubectl apply --namespace="$NAMESPACE" -f - <<<"$text"
        fi
        ;;
    logs) run kubectl logs --namespace="$NAMESPACE" --selector="jobset.sigs.k8s.io/jobset-name=$NAME" --prefix --tail=-1 --max-log-requests=256 ;;
    status) run kubectl get jobset,pods --namespace="$NAMESPACE" --selector="jobset.sigs.k8s.io/jobset-name=$NAME" ;;
    delete) run kubectl delete jobset "$NAME" --namespace="$NAMESPACE" ;;
    *) die 64 "no action $action; known: run, manifest, logs, status, delete" ;;
esac
