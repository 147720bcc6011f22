#!/usr/bin/env bash
# Make the clone in the bottle, in the working directory; $1 is its branch, $2 the commit, $3 the URL of its origin or "".
# stdin: the lines of git's `shallow` file, an empty line, a bundle. Git reads the bundle through cat, since opening
# /dev/stdin again fails if the pipe belongs to another user. Git LFS downloads nothing: the bottle cannot reach it.
# shellcheck disable=SC2086  # the format may be empty

set -eu -o pipefail
branch=$1 commit=$2 origin=$3
format=; [ ${#commit} = 40 ] || format=--object-format=sha256
git init --quiet --initial-branch="$branch" $format
while read -r line && [ -n "$line" ]; do echo "$line" >> .git/shallow; done
cat | git bundle unbundle /dev/stdin > /dev/null
git update-ref HEAD "$commit"
GIT_LFS_SKIP_SMUDGE=1 git reset --quiet --hard
[ -z "$origin" ] || git remote add -- origin "$origin"
