#!/bin/sh
# Make a repository of examples/bikes as a team would have it, and push it.
#   sh examples/cluster/push.sh URL DIRECTORY
# URL: where to push from here. The ModelSpec names http://git/bikes.git, which is the same seen from a pod.
set -eu
url=$1 directory=$2
example=$(cd "$(dirname "$0")/../bikes" && pwd)
test ! -e "$directory" || { echo "$directory is there already; name a new directory" >&2; exit 1; }
mkdir -p "$directory/deploy"
cp -r "$example/." "$directory"
sed 's,https://git.example.com/team/bikes.git,http://git/bikes.git,; s,interval: 1m,interval: 10s,' \
  "$directory/model.yaml" > "$directory/deploy/model.yaml"
rm "$directory/model.yaml"
cd "$directory"
git init --quiet --initial-branch=main
git config user.name >/dev/null || git config user.name "$(id -un)"
git config user.email >/dev/null || git config user.email "$(id -un)@example.com"
git config http.postBuffer 100000000
git add --all
git commit --quiet --message 'Predict bike rentals'
git remote add origin "$url"
git push --quiet --set-upstream origin main
echo "pushed $(git rev-parse --short HEAD) to $url; go on in $directory"
