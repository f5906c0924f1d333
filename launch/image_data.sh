#!/usr/bin/env bash
# Real pictures without a dataset hub: packages are fetched by name, their sha256 is checked, and jsonl is written beside the images.
#
#   launch/image_data.sh OUTPUT [SET...]
#
# OUTPUT  the new folder; run it again: packages that are there whole are not fetched again
# SET     scenes   pictures made by rule, with captions of two kinds, classes, depths and normals; nothing is fetched
#         stamps   Tux Paint's stamps: drawings and photographs with captions in many languages, and categories (GPL-2)
#         emoji    the emoji of two vendors with names and categories (art of Google and Twitter: Apache 2.0, CC BY 4.0)
#         earth    tiles of the Earth: colours, heights, and which pixels are water (NASA's images)
#         composed queries of a text and emoji whose answer is another emoji (Google's font: OFL; names of emoji: BSD)
#         All of them when none is named.
#
# All but earth have a suite.json for `embed evaluate`. Needs apt-get and dpkg-deb for stamps and composed, pip for composed, npm for
# emoji and earth, and the environment of launch/setup.sh with the extra [images].
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$here/launch/common.sh"
[ $# -ge 1 ] || usage
output=$1
shift
sets=("$@")
[ $# -gt 0 ] || sets=(scenes stamps emoji earth composed)
python="${PYTHON:-$here/.venv/bin/python}"
packages="$output/packages"

# whole FILE SHA256: the file is there and has this digest.
whole() {
    [ -f "$1" ] && echo "$2  $1" | sha256sum --check --status
}

# fetched FILE SHA256 COMMAND...: runs COMMAND in the folder of packages unless the file is there, and checks its digest.
fetched() {
    local file="$packages/$1" digest="$2"
    whole "$file" "$digest" && return
    rm -f "$file"
    command -v "$3" >/dev/null 2>&1 || die 69 "$1 is fetched with $3, which is not installed; install it, or put the file into $packages"
    echo "fetching   $1"
    (cd "$packages" && "${@:3}" >/dev/null 2>&1) || die 69 "$3 could not fetch $1; look at its settings, or put the file into $packages"
    whole "$file" "$digest" || die 65 "$file: is another version than the one known, or damaged; remove it, and get sha256 $digest"
}

# unpack FILE.deb FOLDER: unpacks a Debian package of `packages` into a folder.
unpack() {
    command -v dpkg-deb >/dev/null 2>&1 || die 69 "$1 cannot be unpacked: dpkg-deb is not installed; install dpkg"
    dpkg-deb --extract "$packages/$1" "$2"
}

mkdir -p "$packages"
for name in "${sets[@]}"; do
    case "$name" in
        scenes) mkdir -p "$packages/$name" ;;
        stamps)
            fetched tuxpaint-stamps-default_2022.06.04-1_all.deb 6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34 \
                apt-get download tuxpaint-stamps-default=2022.06.04-1
            rm -rf "$packages/stamps"
            unpack tuxpaint-stamps-default_2022.06.04-1_all.deb "$packages/stamps"
            ;;
        composed)
            font=fonts-noto-color-emoji_2.042-0+deb12u1_all.deb names=emoji-2.16.0-py3-none-any.whl
            fetched "$font" a5ab0f69c7938423862320d9aca5dd187b3fd879d6a9a57dd52e17c3fa8d2751 apt-get download fonts-noto-color-emoji=2.042-0+deb12u1
            fetched "$names" c4230d80640def9071599ff56b1b5950fe13a2a94c0da98c5deab12431b24330 "$python" -m pip download --no-deps emoji==2.16.0
            rm -rf "$packages/composed"
            unpack "$font" "$packages/composed"
            "$python" -m zipfile --extract "$packages/$names" "$packages/composed"
            ;;
        emoji | earth)
            if [ "$name" = emoji ]; then
                file=emoji-datasource-16.0.0.tgz digest=2006725061dc0098daa832d65f854a7bec0740af2eb47cb5b23d89f7e2c849f9
            else
                file=three-globe-2.45.2.tgz digest=f6deff6848980a4bda13b0993e5ebc929b27e791e063a5517c87115ff7e669cb
            fi
            package="${file%.tgz}"
            fetched "$file" "$digest" npm pack "${package%-*}@${package##*-}"
            rm -rf "${packages:?}/$name"
            mkdir -p "$packages/$name"
            tar -xzf "$packages/$file" -C "$packages/$name"
            ;;
        *) die 64 "no set is called $name; known: scenes, stamps, emoji, earth, composed" ;;
    esac
    "$python" "$here/launch/image_data.py" "$name" "$packages/$name" "$output/$name"
    rm -rf "${packages:?}/$name"
done
