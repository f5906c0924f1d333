#!/usr/bin/env bash
# From a fresh clone to a trained, averaged, scored and searched text embedding model, on two CPU cores in under ten minutes
# after the installation. Needs Python 3.11 to 3.13. Run it again: finished parts are kept, an interrupted one goes on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/setup.sh
setup_environment .venv quickstart

run=runs/quickstart
recipe=gin/recipes/quickstart.gin
mkdir -p "$run"

# step NAME COMMAND...: runs it, shows it, and notes how long it took.
step() {
    local name="$1" began ended
    shift
    printf '\n\033[1m$ embed %s\033[0m\n' "$(printf '%q ' "$@")"
    began="$(date +%s.%N)"
    .venv/bin/embed "$@"
    ended="$(date +%s.%N)"
    printf '%s\t%s\t%s\n' "$name" "$began" "$ended" >>"$run/timings.tsv"
}

queries=("return the number of seconds until the token expires" "parse a date from a string" "remove a file or folder and everything in it")

step prepare prepare --gin_file="$recipe"
step train train --gin_file="$recipe" --run_dir="$run"
if [ ! -e "$run/soup" ]; then
    step average average "$run" --last=3 --output="$run/soup"
fi
if [ ! -e "$run/scores" ]; then
    step evaluate evaluate best="$run" soup="$run/soup" --baselines=random,bm25 \
        --suite="$run/data/functions/suite.json" --output="$run/scores"
fi
step search search "$run/soup" "${queries[@]}" --prompt='code retrieval' --top=3 --corpus="$run/data/functions/dev/corpus.jsonl.gz"
.venv/bin/python launch/summary.py "$run"
