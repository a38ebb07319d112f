#!/bin/sh
# Installs our wheel, which lies beside this file, into an environment of an image; run while images are built.
#   install.sh ENVIRONMENT
set -eu
here=$(dirname "$0") place=$1
"$here/uv" --quiet --no-cache pip install --python "$place/bin/python" --offline --no-deps --link-mode copy "$here"/*.whl
packages=$("$place/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$place/bin/python" -m compileall -q --invalidation-mode unchecked-hash "$packages/controller"
