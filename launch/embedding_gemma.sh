#!/usr/bin/env bash
# EmbeddingGemma's recipe at small scale, from nothing: a causal language model, an encoder and a decoder from it on UL2's denoisers,
# pairs, triplets with mined negatives, a teacher, 4-bit weights; then the scores of every stage.
#
#   launch/embedding_gemma.sh TEACHER PAIRS OUTPUT [SUITE [SEED]]
#
# TEACHER  what the student learns from: a MODEL, a folder of sentence-transformers or Hugging Face, or a name on the Hub
# PAIRS    folder of NAME.jsonl.gz with {"query", "positive"}
# OUTPUT   folder of the models; run it again: finished parts are kept, an interrupted one goes on
# SUITE    a suite of `embed evaluate`, which every stage is scored on
#
# FILES    names of the files of PAIRS that are used, NAME of NAME.jsonl.gz (default: all)
# PLAIN    names of those for which no negatives are mined, as many targets are right for a query (default: none)
# PROMPTS  prompts of single files, as gin reads them: "{'NAME': ('code retrieval', 'document')}" (default: 'query' and 'document')
# STEPS    training steps of every stage, for a trial
#
# Needs the environment of launch/setup.sh with the extra [quickstart]. With ten files of pairs in English, 68,306 queries, and
# all-MiniLM-L6-v2 (55.3) as the teacher it takes 77 minutes on two cores. The suite text-small, mean of its eight types, one run: causal
# 25.4, adapted 25.8, pre-finetuned 43.5, fine-tuned 43.9, distilled 42.4, 4 bits 42.4 in 0.15 of the size. The teacher helps on ten
# tasks unlike the pairs (49.6 to 50.2), and costs on those like them, where 300 steps are too few to come near it.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$here/launch/common.sh"
[ $# -ge 3 ] || usage
teacher=$1 pairs=$2 output=$3 suite=${4:-} seed=${5:-0}
recipes="$here/gin/recipes/embedding_gemma"
embed="${EMBED:-$here/.venv/bin/embed}"
data="${CACHE:-$output/data}"
read -ra names <<<"${FILES:-}"
read -ra plain <<<"${PLAIN:-}"
if [ ${#names[@]} -eq 0 ]; then
    names=("$pairs"/*.jsonl.gz)
    names=("${names[@]##*/}")
    names=("${names[@]%.jsonl.gz}")
fi
for name in "${plain[@]}"; do
    [[ " ${names[*]} " == *" $name "* ]] || die 64 "PLAIN: '$name' is not among the files that are used: ${names[*]}"
done
files=() mined=() near=()
for name in "${names[@]}"; do
    [ -f "$pairs/$name.jsonl.gz" ] || die 66 "$pairs/$name.jsonl.gz: no such file; FILES names files of PAIRS"
    files+=("$pairs/$name.jsonl.gz")
    if [[ " ${plain[*]} " == *" $name "* ]]; then near+=("$pairs/$name.jsonl.gz"); else mined+=("$pairs/$name.jsonl.gz"); fi
done
[ ${#mined[@]} -gt 0 ] || die 64 "PLAIN names all files; leave one that negatives are mined for"
steps=()
[ -z "${STEPS:-}" ] || steps=("--gin.TRAIN_STEPS=$STEPS" --gin.WARMUP_STEPS=0)

# step COMMAND...: shows it and runs it.
step() {
    printf '\n\033[1m$ embed %s\033[0m\n' "$(quoted "$@")"
    "$embed" "$@"
}

# paths FILE...: the paths as gin reads them.
paths() {
    printf "("
    printf "'%s', " "$@"
    printf ")"
}

# made FILE COMMAND...: runs the command where FILE is not there, or is older than the newest step of the last stage.
made() {
    [ "$1" -nt "$output/int4/checkpoints" ] || step "${@:2}"
}

# stage NAME RECIPE [OPTION...]: trains one stage, or goes on with it.
stage() {
    step train --gin_file="$recipes/$2.gin" --run_dir="$output/$1" --gin.SEED="$seed" --gin.CACHE_DIR="'$data'" "${steps[@]}" "${@:3}"
}

mkdir -p "$output"
words=("--gin.VOCABULARY='$data/vocabulary.model'" "--gin.PAIRS=$(paths "${files[@]}")")
prompts=()
[ -z "${PROMPTS:-}" ] || prompts=("--gin.PROMPTS=$PROMPTS")
stage causal small_causal "${words[@]}"
stage adapted small_adapt "${words[@]}" "--gin.START='$output/causal'"
stage prefinetuned small_prefinetune "${prompts[@]}" "--gin.PAIRS=$(paths "${files[@]}")" "--gin.START='$output/adapted'"

step mine "$output/prefinetuned" --pairs "${mined[@]}" --output="$output/mined" --negatives=1 --max_length=64
stage_two=("${prompts[@]}" "--gin.PAIRS=$(paths "$output/mined/*.jsonl.gz" "${near[@]}")")
triplets=("${stage_two[@]}" "--gin.START='$output/prefinetuned'")
stage finetuned small_finetune "${triplets[@]}"

step encode "$teacher" --gin_file="$recipes/small_finetune.gin" --output="$output/taught" --max_length=128 \
    --gin.CACHE_DIR="'$data'" "${triplets[@]}"
# The size of the teacher's vectors, as numpy writes it in front of them.
size="$(head -c 128 "$output/taught/query/vectors.npy" | LC_ALL=C sed -n "s/.*'shape': ([0-9]*, \([0-9]*\)).*/\1/p")"
taught=("${stage_two[@]}" "--gin.TEACHER_VECTORS='$output/taught'" "--gin.PROJECTION=(384, $size)")
stage distilled small_distil "${taught[@]}" "--gin.START='$output/finetuned'"
stage int4 small_qat "${taught[@]}" "--gin.START='$output/distilled'"
made "$output/packed/model.json" export "$output/int4" "$output/packed" --format=bundle

if [ -n "$suite" ]; then
    models=()
    for name in causal adapted prefinetuned finetuned distilled int4 packed; do
        models+=("$name=$output/$name")
    done
    made "$output/scores/results.json" evaluate "${models[@]}" --suite="$suite" --output="$output/scores" --baselines=bm25
fi
printf '\nthe model is %s, in four bits %s; its stages are beside it\n' "$output/distilled" "$output/packed"
