#!/usr/bin/env bash
# Gemini Embedding's recipe at small scale, from a released model to a soup: stage one on all pairs, interpolation with the
# source, mined negatives, stage two in three mixtures, a weighted average of the three, and its interpolation with the source, which
# keeps what the source was good at.
#
#   launch/two_stages.sh SOURCE PAIRS OUTPUT [SEED]
#
# SOURCE  folder of sentence-transformers or Hugging Face, a bundle, or a name on the Hub
# PAIRS   folder of NAME.jsonl.gz; the mixtures name their files (gin/recipes/gemini_embedding/small_*.gin)
# OUTPUT  folder of the models; run it again: finished parts are kept, an interrupted one goes on
#
# Needs the environment of launch/setup.sh with the extra [quickstart]; about an hour and a half on one CPU core.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$here/launch/common.sh"
[ $# -ge 3 ] || usage
source=$1 pairs=$2 output=$3 seed=${4:-0}
recipes="$here/gin/recipes/gemini_embedding"
embed="${EMBED:-$here/.venv/bin/embed}"
cache="${CACHE:-$output/cache}"
alpha="${ALPHA:-0.3}"
# Of the soup in the final model. Chosen on text-small with one seed: its mean is 0.3 below the soup's alone, and no score of
# classification is below the base's.
share="${SHARE:-0.75}"
mined=(medquad factbook openstax-economics openstax-nc wiki-split indonli farstail-nli afriqa jsquad nl2bash tldr-command conala django tldr-bitext nusax-bitext)
# Its targets are there in ten languages, so that near texts are right ones: no negatives are mined for it.
plain=stsb-paraphrase

# step COMMAND...: shows it and runs it.
step() {
    printf '\n\033[1m$ embed %s\033[0m\n' "$(quoted "$@")"
    "$embed" "$@"
}

# made FOLDER COMMAND...: the same, where the folder is not there.
made() {
    [ -e "$1/model.json" ] || step "${@:2}"
}

files=()
for name in "${mined[@]}"; do
    files+=("$pairs/$name.jsonl.gz")
done
mkdir -p "$output"
made "$output/base" convert "$source" "$output/base"
step train --gin_file="$recipes/small_prefinetune.gin" --run_dir="$output/stage1" --gin.SEED="$seed" \
    --gin.SOURCE="'$output/base'" --gin.PAIRS="'$pairs/*.jsonl.gz'" --gin.CACHE_DIR="'$cache/pairs'"
made "$output/start" average "$output/base" "$output/stage1" --method=interpolate --alpha="$alpha" --output="$output/start"
step mine "$output/start" --pairs "${files[@]}" --output="$output/mined" --negatives=1 --max_length=128
for mixture in tasks languages code; do
    step train --gin_file="$recipes/small_$mixture.gin" --run_dir="$output/$mixture" --gin.SEED="$seed" \
        --gin.SOURCE="'$output/start'" --gin.PAIRS="('$output/mined/*.jsonl.gz', '$pairs/$plain.jsonl.gz')" \
        --gin.CACHE_DIR="'$cache/triplets'"
done
# Most weight on the mixture that learns most: above each of them alone, which their plain average is not always.
made "$output/soup" average "$output"/{tasks,languages,code} --method=weighted --weights=0.6,0.2,0.2 --output="$output/soup"
made "$output/final" average "$output/base" "$output/soup" --method=interpolate --alpha="$share" --output="$output/final"
printf '\nthe model is %s, the soup %s, its ingredients %s/{tasks,languages,code}; score them: embed evaluate %s --suite=...\n' \
    "$output/final" "$output/soup" "$output" "$output/final"
