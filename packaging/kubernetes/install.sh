#!/bin/sh
# Copies Inlay and Node to the node's disk, where runtimes find the plugin with all that it needs, and makes it known
# to them. What comes behind it is for `inlay cni install`.
set -eu
from=${INLAY_FROM:-/usr/share/inlay}
to=${INLAY_TO:-/opt/inlay}

# One installer at a time, and so whatever is half made is of one that was killed.
exec 9<"$to"
flock 9

# Each version has a folder of its own, so that a plugin that runs keeps what it began with.
files=$(cd "$from" && find dist package.json node_modules/.package-lock.json -type f | sort)
version=$( (cd "$from" && echo "$files" | xargs sha256sum && node --version) | sha256sum | cut -c1-12)
folder=$to/$version
if [ ! -d "$folder" ]; then
  rm -rf "$to"/.new-*
  fresh=$(mktemp -d "$to/.new-XXXXXX")
  cp -a "$from/." "$fresh/"
  mkdir "$fresh/bin"
  cp "$(command -v node)" "$fresh/bin/node"
  chmod 755 "$fresh"
  mv "$fresh" "$folder"
fi
"$folder/bin/node" "$folder/dist/cli.js" cni install "$@"

# This version and the one before it stay, and whatever is not a version.
touch "$folder"
ls -t "$to" | grep -xE '[0-9a-f]{12}' | tail -n +3 | while read -r old; do rm -rf "${to:?}/$old"; done
