#!/usr/bin/env bash
# What every recipe at paper scale needs of a TPU chip, by the TPU's own compiler and with no TPU: writes gin/needs.md and .json.
#
#   launch/compile_recipes.sh [RECIPE...]        such as gin/recipes/gemini_embedding/prefinetune.gin (default: all)
#
# TOPOLOGIES  separated by commas (default: v5e:16x16,v5p:4x4x4). About a minute a recipe and slice on two cores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/common.sh
source launch/setup.sh
recipes=("$@")
[ ${#recipes[@]} -gt 0 ] || recipes=(gin/recipes/{gemini_embedding,embedding_gemma}/{prefinetune,finetune}.gin gin/recipes/embedding_gemma/{adapt,distil,qat}.gin)
folder="${EMBED_TPU_VENV:-.venv-tpu}"
[ "${DRY_RUN:-0}" = 1 ] || setup_environment "$folder" tpu,quickstart
for recipe in "${recipes[@]}"; do
    # The source gives parameters, which compiling does not read.
    given=("--gin.SOURCE='none'")
    [[ "$recipe" != */distil.gin ]] || given+=("--gin.TEACHER_VECTORS='none'")
    run "$folder/bin/embed" compile "--gin_file=$recipe" "${given[@]}" --output=gin/needs.md --add \
        "--topology=${TOPOLOGIES:-v5e:16x16,v5p:4x4x4}"
done
