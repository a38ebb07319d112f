#!/bin/sh
# Installs our wheel into an environment and takes out what no image needs; run while images are built.
#   prune.sh ENVIRONMENT WHEEL
set -eu
place=$1 wheel=$2
/opt/build/bin/uv --quiet pip install --python "$place/bin/python" --offline --no-deps "$wheel"
packages=$("$place/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

# Tests and headers of packages. numpy.testing, sklearn.utils._testing and the like are imported, so only folders
# that are called exactly so go, and only those of packages that are large and were tried without them.
for package in numpy pandas scipy sklearn pyarrow matplotlib mpl_toolkits skops joblib narwhals fontTools lightgbm xgboost; do
  [ -d "$packages/$package" ] || continue
  find "$packages/$package" -type d -name tests -prune -exec rm -rf {} +
done
rm -rf "$packages/pyarrow/include" "$packages/numpy/_core/include" "$packages/pyarrow/src"
find "$packages" -type d -name __pycache__ -prune -exec rm -rf {} +

# Bytecode that is valid by itself: checked against no clock, so it stays valid in any copy of the image.
"$place/bin/python" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$packages"
