#!/bin/sh
# Build from a copy of a folder in which no mode depends on its user's umask: $1 is the folder, $2 the name of the
# Dockerfile in it, all else is `docker build` and its options. Docker itself reads the copy, so a .dockerignore holds.

folder=$1 name=$2 build=
shift 2
place=$(mktemp -d "${TMPDIR:-/tmp}/claude-bottle-context-XXXXXX") || exit
trap 'rm -rf "$place"' EXIT
trap '[ -z "$build" ] && exit 143; kill "$build"' HUP INT TERM
mkdir "$place/context" && cp -RPp "$folder/." "$place/context" && chmod -R u=rwX,go=rX "$place/context" || exit
file=$place/context/$name
[ ! -L "$file" ] || file=$folder/$name # it may lead out of the copy
"$@" --file "$file" "$place/context" &
build=$!
wait "$build"
code=$?
# A signal ends the wait, and is passed on; only then docker ends.
if kill -0 "$build" 2> /dev/null; then
    wait "$build"
    code=$?
fi
exit "$code"
