#!/bin/sh
# Builds our wheel and lays out what it adds to an environment of an image; run while images are built.
#   install.sh ENVIRONMENT PLACE
# PLACE is then copied over ENVIRONMENT: the images' last and smallest layer.
set -eu
environment=$1 place=$2
/opt/build/bin/python -m hatchling build --target wheel --directory /wheel
/opt/build/bin/uv --quiet venv --python "$(command -v python3)" "$environment"
/opt/build/bin/uv --quiet pip install --python "$environment/bin/python" --offline --no-deps /wheel/*.whl
mkdir -p "$place"
cd "$environment"
"$environment/bin/python" -m compileall -q --invalidation-mode unchecked-hash lib/python3*/site-packages/controller
cp --recursive --parents bin/mainspring bin/kubectl-mainspring \
  lib/python3*/site-packages/controller lib/python3*/site-packages/mainspring-*.dist-info "$place"
