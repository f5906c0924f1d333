#!/usr/bin/env bash
# Sets up the environment with the test extras, then checks style and runs the tests. --slow runs the slow tests too.
# Further arguments go to pytest: ./launch/test.sh tests/losses -k golden
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/setup.sh
setup_environment "${EMBED_VENV:-.venv}" quickstart,test

selected=(-m "not slow")
if [ "${1:-}" = --slow ]; then
    selected=()
    shift
fi
python="${EMBED_VENV:-.venv}/bin/python"
"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m pytest "${selected[@]}" "$@"
