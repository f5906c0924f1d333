#!/usr/bin/env bash
# Makes the virtual environment and installs the package with pinned versions. Sourced by the other scripts; reuses what is there.
#
#   setup_environment FOLDER EXTRAS      e.g. setup_environment .venv quickstart
#
# EMBED_PYTHON names the interpreter (default: the first of python3.13, 3.12, 3.11 and python3 that is 3.11 to 3.13).

find_python() {
    local candidate
    for candidate in "${EMBED_PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "embed: no Python 3.11 to 3.13 found; install one or set EMBED_PYTHON to its path" >&2
    return 78
}

setup_environment() {
    local folder="$1" extras="$2" python version constraints stamp key
    python="$(find_python)" || return
    if [ -x "$folder/bin/python" ] && [ -z "${EMBED_PYTHON:-}" ]; then
        python="$folder/bin/python"
    fi
    version="$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
    constraints="launch/constraints-$version.txt"
    stamp="$folder/.embed-installed"
    key="$version $extras $(cat setup.py pyproject.toml "$constraints" | cksum)"
    if [ -f "$stamp" ] && grep -qxF "$key" "$stamp"; then
        return
    fi
    echo "setting up $folder with Python $version (a few minutes the first time)"
    if command -v uv >/dev/null 2>&1; then
        [ -x "$folder/bin/python" ] || uv venv --quiet --python "$(command -v "$python")" "$folder" || return
        uv pip install --quiet --python "$folder/bin/python" -c "$constraints" -e ".[$extras]" || return
    else
        [ -x "$folder/bin/python" ] || "$python" -m venv "$folder" || return
        "$folder/bin/python" -m pip install --quiet --disable-pip-version-check -c "$constraints" -e ".[$extras]" || return
    fi
    echo "$key" >>"$stamp"
}
