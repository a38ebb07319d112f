#!/bin/sh
# Makes an environment from a hashed lock and takes out what no image needs; run while images are built.
#   prune.sh LOCK ENVIRONMENT
set -eu
lock=$1 place=$2
/opt/build/bin/uv --quiet venv --python "$(command -v python3)" "$place"
/opt/build/bin/uv --quiet pip sync --python "$place/bin/python" --require-hashes "$lock"
packages=$("$place/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

# Tests and headers of packages. numpy.testing, sklearn.utils._testing and the like are imported, so only folders
# that are called exactly so go, and only those of packages that are large and were tried without them.
for package in numpy pandas scipy sklearn pyarrow matplotlib mpl_toolkits skops joblib narwhals fontTools lightgbm xgboost; do
  [ -d "$packages/$package" ] || continue
  find "$packages/$package" -type d -name tests -prune -exec rm -rf {} +
done
rm -rf "$packages/pyarrow/include" "$packages/numpy/_core/include" "$packages/pyarrow/src"
# Arrow's remote procedure calls, which nothing here speaks.
rm -f "$packages"/pyarrow/libarrow_flight* "$packages"/pyarrow/libarrow_python_flight* "$packages"/pyarrow/_flight*
# A second copy of every class of the client, for asyncio: 40 MB that nothing here imports.
rm -rf "$packages/kubernetes/aio"
find "$packages" -type d -name __pycache__ -prune -exec rm -rf {} +

# Bytecode that is valid by itself: checked against no clock, so it stays valid in any copy of the image.
"$place/bin/python" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$packages"
