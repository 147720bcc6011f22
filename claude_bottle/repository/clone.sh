#!/usr/bin/env bash
# Make the clone in the bottle, in the work directory; $1 is its branch, $2 the commit, $3 a URL for its origin, or empty.
# On stdin: the lines of git's `shallow` file, an empty line, a bundle. The cat is there since /dev/stdin, opened anew,
# may be another user's pipe. What Git LFS keeps elsewhere stays there: the bottle could not reach it.
# shellcheck disable=SC2086  # there may be no format to give

set -eu -o pipefail
branch=$1 commit=$2 origin=$3
format=; [ ${#commit} = 40 ] || format=--object-format=sha256
git init --quiet --initial-branch="$branch" $format
while read -r line && [ -n "$line" ]; do echo "$line" >> .git/shallow; done
cat | git bundle unbundle /dev/stdin > /dev/null
git update-ref HEAD "$commit"
GIT_LFS_SKIP_SMUDGE=1 git reset --quiet --hard
[ -z "$origin" ] || git remote add -- origin "$origin"
