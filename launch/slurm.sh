#!/usr/bin/env bash
# A command of embed as a Slurm job, one process a node; put back in the queue after a preemption.
#
#   NODES=2 GPUS=8 TIME=24:00:00 launch/slurm.sh NAME train --gin_file=... --run_dir=/shared/run
#
# NODES, GPUS a node, TIME; PARTITION, ACCOUNT, QOS where the cluster asks for them
# OUTPUT     folder of the log (default runs/)
# Two minutes before its time is over a job is told, saves, and goes on as the same job later; RETRIES (10) times.
# The environment of this shell goes along, secrets in it too. DRY_RUN=1 prints the job and submits nothing.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$here/launch/common.sh"
[ $# -ge 2 ] || usage
NAME=$1
shift
NODES="${NODES:-1}" GPUS="${GPUS:-0}" TIME="${TIME:-24:00:00}" OUTPUT="${OUTPUT:-$here/runs}"
need NAME '[A-Za-z][-_A-Za-z0-9]{0,60}' 'a name of letters, digits and dashes'
need NODES '[1-9][0-9]*' 'a number of nodes'
need GPUS '[0-9]+' 'a number of GPUs a node'
need TIME '([0-9]+-)?[0-9]{1,2}(:[0-9]{2}){0,2}' 'a time, such as 24:00:00 or 2-00:00:00'
no_secrets "$@"
options=(--job-name="$NAME" --nodes="$NODES" --ntasks-per-node=1 --time="$TIME" --requeue --open-mode=append
    --signal=TERM@120 --output="$OUTPUT/$NAME-%j.log")
for option in PARTITION ACCOUNT QOS; do
    if [ -n "${!option:-}" ]; then
        need "$option" '[-_A-Za-z0-9,]+' "a name of the cluster's"
        options+=("--${option,,}=${!option}")
    fi
done
extras=quickstart
if [ "$GPUS" -gt 0 ]; then
    options+=(--gpus-per-node="$GPUS")
    extras=cuda,quickstart
fi
words=("$@")
if [ "$NODES" -gt 1 ]; then
    words+=(--distributed)
fi
# srun hands signals on to the processes; its code is the highest of theirs.
job="#!/usr/bin/env bash
set -uo pipefail
export EXTRAS=$extras
code=0
srun --kill-on-bad-exit=1 $(quoted "$here/launch/host.sh" "${words[@]}") || code=\$?
if [ \"\$code\" -eq 75 ] || { [ $NODES -gt 1 ] && [ \"\$code\" -ge 128 ]; }; then
    if [ \"\${SLURM_RESTART_COUNT:-0}\" -lt $RETRIES ]; then
        scontrol requeue \"\$SLURM_JOB_ID\"
        sleep 60
    fi
fi
exit \"\$code\"
"
printf '+ %s <<JOB\n%sJOB\n' "$(quoted sbatch "${options[@]}")" "$job"
if [ "${DRY_RUN:-0}" != 1 ]; then
    mkdir -p "$OUTPUT"
    sbatch "${options[@]}" <<<"$job"
fi
