#!/usr/bin/env bash
# Sets up the environment with the test extras, then checks style and runs the tests. --slow runs the slow tests too. The programs
# of all tests are compiled in little time (tests/compiling.py), but for the slow tests that are marked as compiled: these run last,
# and their programs are compiled as users compile them. --long with it runs those that take minutes too, which CI leaves out.
# --parity makes a second environment with torch, transformers, sentence-transformers and mteb and runs the tests that
# compare with them; with --slow also against an older pair of them, in a third.
# Further arguments go to pytest: ./launch/test.sh tests/losses -k golden
# --jaxtyping-packages=embed,array_types.checked among them checks the shapes and dtypes of all arrays at run time.
# Files of tests run side by side: as many as there are cores and at most four, and one more of those without torch, as they wait for
# disks and servers. -n0 runs them one after the other.
# Tests that fail run again, one after the other, and show the values in their assertions. pytest takes a tenth of the time to
# rewrite all assertions for that, so the first run leaves it out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/setup.sh

# run_tests PYTHON MORE MARKS ARGUMENT...: runs the tests with these marks; MORE of them side by side than there are cores.
# Where the arguments select tests of other marks only, nothing runs.
run_tests() {
    local python="$1" more="$2" marks="$3" workers code=0
    workers="$("$python" -c "import os; print(min(4, (os.cpu_count() or 1) + $more))")"
    "$python" -m pytest -m "$marks" -n "$workers" --dist=loadfile --no-loadscope-reorder --assert=plain "${@:4}" || code=$?
    if [ "$code" -eq "$TESTS_FAILED" ]; then
        echo "the tests that failed run again"
        "$python" -m pytest -m "$marks" --last-failed --last-failed-no-failures=none "${@:4}" || true
    fi
    [ $# -gt 3 ] && [ "$code" -eq "$NO_TESTS" ] || return "$code"
}
TESTS_FAILED=1
NO_TESTS=5

slow=no
long=no
parity=no
while [ $# -gt 0 ]; do
    case "$1" in
        --slow) slow=yes ;;
        --long) long=yes ;;
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
        marks="parity and not long"
        [ "$long" = no ] || marks="parity"
        setup_old_stack "$folder-old"
        export EMBED_OLD_STACK_PYTHON="$PWD/$folder-old/bin/python"
        case "$folder" in /*) export EMBED_OLD_STACK_PYTHON="$folder-old/bin/python" ;; esac
    fi
    run_tests "$folder/bin/python" 0 "$marks" "${@:-tests/parity}"
    exit
fi

setup_environment "${EMBED_VENV:-.venv}" quickstart,test
python="${EMBED_VENV:-.venv}/bin/python"
"$python" -m ruff check .
"$python" -m ruff format --check .
if [ "$slow" = yes ]; then
    without=" and not long"
    [ "$long" = no ] || without=""
    run_tests "$python" 1 "not compiled$without" "$@"
    EMBED_TESTS_COMPILE=fully run_tests "$python" 1 "compiled$without" "$@"
else
    run_tests "$python" 1 "not slow" "$@"
fi
