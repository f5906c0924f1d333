#!/usr/bin/env bash
# Sets up the environment with the test extras, then checks style and runs the tests. --slow runs the slow tests too.
# --parity makes a second environment with torch, transformers, sentence-transformers and mteb and runs the tests that
# compare with them; with --slow also against an older pair of them, in a third.
# Further arguments go to pytest: ./launch/test.sh tests/losses -k golden
# --jaxtyping-packages=embed,array_types.checked among them checks the shapes and dtypes of all arrays at run time.
# Files of tests run side by side, one more than there are cores and at most four, -n0 one after the other; those against torch always do so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/setup.sh

slow=no
parity=no
while [ $# -gt 0 ]; do
    case "$1" in
        --slow) slow=yes ;;
        --parity) parity=yes ;;
        *) break ;;
    esac
    shift
done

if [ "$parity" = yes ]; then
    folder="${EMBED_PARITY_VENV:-.venv-parity}"
    setup_parity_environment "$folder"
    marks="parity and not slow"
    if [ "$slow" = yes ]; then
        marks="parity"
        setup_old_stack "$folder-old"
        export EMBED_OLD_STACK_PYTHON="$PWD/$folder-old/bin/python"
        case "$folder" in /*) export EMBED_OLD_STACK_PYTHON="$folder-old/bin/python" ;; esac
    fi
    "$folder/bin/python" -m pytest -m "$marks" tests/parity "$@"
    exit
fi

setup_environment "${EMBED_VENV:-.venv}" quickstart,test
selected=(-m "not slow")
if [ "$slow" = yes ]; then
    selected=()
    export EMBED_TESTS_COMPILE=fully
fi
python="${EMBED_VENV:-.venv}/bin/python"
# Tests wait for disks and servers: one more of them runs than there are cores.
workers="$("$python" -c 'import os; print(min(4, (os.cpu_count() or 1) + 1))')"
side_by_side=(-n "$workers" --dist=loadfile --no-loadscope-reorder)
"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m pytest "${side_by_side[@]}" "${selected[@]}" "$@"
