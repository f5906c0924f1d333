#!/usr/bin/env bash
# What every recipe at paper scale needs of a TPU chip, by the TPU's own compiler and with no TPU: writes gin/needs.md and .json.
#
#   launch/compile_recipes.sh [RECIPE...]        such as gin/recipes/gemini_embedding/prefinetune.gin (default: all)
#
# TOPOLOGIES  separated by commas (default: v5e:16x16,v5p:4x4x4; of universal/ v5e:8x8,v5p:4x4x4). About a minute a recipe and slice on two cores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/common.sh
source launch/setup.sh
recipes=("$@")
[ ${#recipes[@]} -gt 0 ] || recipes=(
    gin/recipes/{gemini_embedding,embedding_gemma}/{prefinetune,finetune}.gin gin/recipes/embedding_gemma/{adapt,distil,qat}.gin
    gin/recipes/tips/{b14,distill,high_resolution,g14_pod}.gin gin/recipes/universal/{specialist,universal,udon}.gin
    gin/recipes/mmir/{b14,embeddinggemma2}.gin
)
folder="${EMBED_TPU_VENV:-.venv-tpu}"
[ "${DRY_RUN:-0}" = 1 ] || setup_environment "$folder" tpu,quickstart
# A task per file asks that the file is there.
files="$(mktemp -d)"
trap 'rm -rf "$files"' EXIT
echo '{"image": "none.png", "label": "none"}' >"$files/domain.jsonl"
printf '%s\n' {0..15400} >"$files/classes.txt"
for recipe in "${recipes[@]}"; do
    # Compiling reads neither data nor the parameters of what a run starts from. Sizes of classes are those of UnED's domains.
    given=("--gin.START='none'")
    model=()
    topologies="${TOPOLOGIES:-v5e:16x16,v5p:4x4x4}"
    case "$recipe" in
        */gemini_embedding/* | */embedding_gemma/*) given=("--gin.SOURCE='none'") ;;&
        */embedding_gemma/distil.gin) given+=("--gin.TEACHER_VECTORS='none'") ;;
        */tips/*) given=("--gin.PICTURES='none'") ;;&
        */tips/b14.gin | */tips/g14_pod.gin) given+=("--gin.VOCABULARY='none'") ;;
        */tips/distill.gin) given+=("--gin.VOCABULARY='none'" "--gin.TEACHER='none'") ;;
        */tips/high_resolution.gin)
            given+=("--gin.START='none'" "--gin.dual_encoder.ImageEmbedder.image_size=448")
            model=(gin/models/tips_b14.gin)
            ;;
        */universal/*) # UDON's batch of 128 examples does not split over 256 chips
            given+=("--gin.DOMAINS='$files/domain.jsonl'")
            model=(gin/models/vit_b14.gin)
            topologies="${TOPOLOGIES:-v5e:8x8,v5p:4x4x4}"
            ;;&
        */universal/specialist.gin) given+=("--gin.CLASSES='$files/classes.txt'" --gin.NUM_CLASSES=15401) ;;
        */universal/universal.gin) given+=("--gin.TEACHERS=('none',)" --gin.TEACHER_DIM=64) ;;
        */universal/udon.gin) given+=("--gin.CLASSES='$files/classes.txt'" "--gin.CLASS_COUNTS=(98, 11318, 3985)") ;;
        */mmir/*) given+=("--gin.TABLES='none'" "--gin.FOLDER='none'" "--gin.CONTACT='none'") ;;
    esac
    # Where START would bring the model it is given beside the recipe.
    [ ${#model[@]} -eq 0 ] || given+=("${model[@]/#/--gin_file=}" "--gin.recipe.Recipe.model_changes={}")
    run "$folder/bin/embed" compile "--gin_file=$recipe" "${given[@]}" --output=gin/needs.md --add \
        "--topology=$topologies"
done
