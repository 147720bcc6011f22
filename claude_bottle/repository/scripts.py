"""What is run in a bottle to get its work out: bash, as the agent's user, beside whatever the agent still runs."""

from claude_bottle.repository.clone import OUT

_NAMED = 20  # files, at most
_TOLD = 100  # branches, at most
PART = 9  # the exit status of a difference that is not all of it
# $1 is the work directory, $2 the commit where it began, $3 a size in bytes or a commit. Whatever the agent has made of
# its .git: one that cannot be used, or written to, is left as it is, and one of our own, without filters, is put on top
# of its objects; an index that is locked or broken is replaced by one of our own. No hook, no signature, no file
# monitor; what is found is told a line each.
_GIT = r"""
cd "$1" || exit
start=$2 size=$3 theirs=$PWD/.git
RAW='-text -working-tree-encoding -ident'  # git refuses a file that these do not fit
git() { command git -c core.hooksPath=/dev/null -c core.fsmonitor= -c gc.auto=0 -c advice.addEmbeddedRepo=false "$@"; }
# $1 is where its HEAD shall be, $2 what else of the attributes shall not count.
own() {
  export GIT_DIR=${TMPDIR:-/tmp}/.claude-bottle.git GIT_WORK_TREE=$PWD
  local form=sha1; [ ${#start} = 40 ] || form=sha256
  git init --quiet --object-format=$form && mkdir -p "$GIT_DIR/info" || { unset GIT_DIR GIT_WORK_TREE; return 1; }
  echo "$theirs/objects" > "$GIT_DIR/objects/info/alternates"
  rm -rf "$GIT_DIR"/{packed-refs,refs,logs}
  cp -R "$theirs"/{packed-refs,refs,logs} "$GIT_DIR" 2> /dev/null
  git for-each-ref > /dev/null 2>&1 || { rm -rf "$GIT_DIR"/{packed-refs,refs,logs}; mkdir -p "$GIT_DIR/refs"; }
  cp "$theirs/info/exclude" "$GIT_DIR/info/exclude" 2> /dev/null
  echo "* -filter $2" > "$GIT_DIR/info/attributes"
  cp "$theirs/shallow" "$GIT_DIR/shallow" 2> /dev/null
  local at; at=$(cat "$theirs/HEAD" 2> /dev/null)
  at=$(git rev-parse --quiet --verify "${1:-${at#ref: }}^{commit}" 2> /dev/null) || at=$start
  git update-ref --no-deref HEAD "$at" 2> /dev/null
  [ "$GIT_INDEX_FILE" ] || git read-tree HEAD 2> /dev/null  # what is tracked and ignored is nowhere else
  :
}
top=$(git rev-parse --show-toplevel 2> /dev/null) || {
  export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1  # what the agent has set for itself may be at fault
  top=$(git rev-parse --show-toplevel 2> /dev/null)
}
if [ "$top" -ef . ]; then theirs=$(git rev-parse --absolute-git-dir); else own || exit; fi
index=$(git rev-parse --git-path index)
large() { find . -name .git -prune -o -type f -size +"$size"c -printf '%P\0'; }
nested() {
  find . -mindepth 2 -name .git -prune -printf '%h\0' | while read -r -d '' at; do printf '%s\0' "${at#./}"; done
}
# Files that the agent has told its git not to look at.
unhide() {
  git ls-files -v -z | sed -nz 's/^[a-z] //p' | git update-index --no-assume-unchanged -z --stdin
  git ls-files -t -z | sed -nz 's/^S //p' | while read -r -d '' at; do
    ! [ -e "$at" ] && ! [ -L "$at" ] || printf '%s\0' "$at"
  done | git update-index --no-skip-worktree -z --stdin
}
add() {
  unhide 2> /dev/null
  {
    printf '.\0'
    { large; nested; } | while read -r -d '' at; do  # git takes amiss what is excluded, and ignored or in a submodule
      git check-ignore --quiet -- "$at" 2> /dev/null; [ $? != 1 ] || printf ':(exclude,literal)%s\0' "$at"
    done
  } | git add --all --ignore-errors --pathspec-from-file=- --pathspec-file-nul
}
copied() { export GIT_INDEX_FILE; GIT_INDEX_FILE=$(mktemp -d)/index; cp -p "$index" "$GIT_INDEX_FILE" 2> /dev/null; }
fresh() { export GIT_INDEX_FILE; GIT_INDEX_FILE=$(mktemp -d)/index; git read-tree HEAD 2> /dev/null; }
readable() { git ls-files > /dev/null 2>&1; }
alone() { (unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE; cd "$1" && shift && git "$@" 2> /dev/null); }
# A submodule as it came, or another work tree of this very repository, whose branch comes by itself.
known() {
  [ -e "$1/.git" ] && [ "$(alone "$1" rev-parse --show-toplevel)" -ef "$1" ] || return
  [ "$(alone "$1" rev-parse --path-format=absolute --git-common-dir)" -ef "$theirs" ] &&
    [ "$(cat "$(alone "$1" rev-parse --absolute-git-dir)/gitdir" 2> /dev/null)" -ef "$1/.git" ] && return
  [ "$(git rev-parse --quiet --verify "$start:$1")" = "$(alone "$1" rev-parse HEAD)" ] &&
    [ -z "$(alone "$1" status --porcelain || echo fault)" ]
}
# Put the files of a repository inside this one, or where a submodule would be, in place of what the index has of it.
plain() {
  [ -d "$1" ] && ! [ -L "$1" ] || return 0
  git check-ignore --quiet -- "$1" 2> /dev/null; [ $? = 1 ] || return 0
  [ -z "$over" ] || [ "${1#"$over"/}" = "$1" ] || return 0
  ! known "$1" || { over=$1; return 0; }
  local tree
  tree=$(
    export GIT_DIR GIT_WORK_TREE=$PWD/$1 GIT_INDEX_FILE
    GIT_DIR=$(git rev-parse --absolute-git-dir) GIT_INDEX_FILE=$(mktemp -d)/index
    git read-tree "$(git rev-parse --quiet --verify "HEAD:$1")" 2> /dev/null
    cd "$1" && add && git write-tree
  ) || return
  [ "$tree" != "$(git hash-object -t tree /dev/null)" ] || return 0
  git --literal-pathspecs ls-files -z -- "$1" | git update-index -z --force-remove --stdin &&
    git read-tree --prefix="$1/" "$tree" || return
  echo "nested ${1//$'\n'/ }"
}
folders() {
  nested
  git ls-files --stage -z | while IFS=$'\t' read -r -d '' mode path; do
    [ "${mode%% *}" != 160000 ] || [ -e "$path/.git" ] || printf '%s\0' "$path"
  done
}
# All of it, what is inside another repository after that one's own: $said is why not.
whole() {
  local over=
  said=$(add 2>&1) || return
  found=$(folders | sort -z | { while read -r -d '' at; do plain "$at" || bad=1; done; exit $bad; } 2>&1) && return
  said=$found; return 1
}
# The same with a repository of our own, where the commit $1 is the HEAD; it fails where something stays out.
rescued() {
  { own "$1" && whole; } || { own "$1" "$RAW" && whole; } || { copied; own "$1" && whole; return 1; }
}
"""
KEEP = (
    _GIT
    + rf"""
named={_NAMED} told={_TOLD}
"""
    + r"""
busy() {
  local each; for each in MERGE_HEAD CHERRY_PICK_HEAD REVERT_HEAD rebase-merge rebase-apply; do
    ! [ -e "${index%/*}/$each" ] || return 0
  done; return 1
}
tree() { tree=$(git write-tree 2> /dev/null) || { why=${why:-$(git write-tree 2>&1)}; return 1; }; }
# Where the index is not the agent's own, its HEAD stays, too, and the same files make the same commit again.
commit() {
  export GIT_AUTHOR_NAME=claude-bottle GIT_AUTHOR_EMAIL=claude-bottle@localhost
  export GIT_COMMITTER_NAME=claude-bottle GIT_COMMITTER_EMAIL=claude-bottle@localhost
  local apart=$GIT_DIR$GIT_INDEX_FILE
  new=$(
    date=$(git log --max-count=1 --no-show-signature --format=@%cd --date=raw $old 2> /dev/null)
    [ -z "$apart" ] || export GIT_AUTHOR_DATE="$date" GIT_COMMITTER_DATE="$date"
    git commit-tree ${old:+-p} $old "$tree" 2> /dev/null << 'END'
Keep what was left uncommitted

Made by claude-bottle as the work was fetched out of the bottle: no commit of the agent's.
END
  ) && { [ "$apart" ] || git update-ref HEAD "$new" $old 2> /dev/null || :; }
}
# What was left in this work tree, $1 where it is another than the main one, becomes a commit: $new, on top of $old.
keep() {
  local code=0
  old=$(git rev-parse --quiet --verify 'HEAD^{commit}')
  if ! [ -e "$index" ]; then fresh; elif busy; then copied; fi
  whole || { copied; readable || fresh; whole; } || { why=$said; rescued "$old"; } || code=1
  tree || { copied; tree; } || { own "$old" && tree; } || { fresh; whole; tree; } || code=1
  if [ "$tree" ] && [ "$tree" != "$(git rev-parse --quiet --verify "$old^{tree}")" ]; then
    commit || { own "$old" && commit; } || code=1
  fi
  [ "$1" ] || printf 'tip %s\nbefore %s\n' "${new:-$old}" "$old"
  [ $code = 0 ] || echo "failed ${1:+in $1: }$(echo "${why:-git cannot write}" | grep -v '^nested ' | tail -n 1)"
  echo "$found" | sed -n 's/^nested //p' | while read -r at; do echo "nested ${1:+$1/}$at"; done
  large | head --zero-terminated --lines $named | while read -r -d '' file; do
    [ -z "$(git --literal-pathspecs status --porcelain -- "$file")" ] || echo "large ${1:+$1/}$file"
  done
}
# What is on no way to the HEAD: other branches, stashes, commits that were made on none.
old=$(git rev-parse --quiet --verify 'HEAD^{commit}')
seen=$theirs
theirs() { command git --git-dir="$seen" "$@" 2> /dev/null; }
theirs for-each-ref --count=1 > /dev/null || seen=$(own "$old" > /dev/null 2>&1; echo "${GIT_DIR:-$theirs}")
base=${old:-$start}
loose() {
  [ -z "$1" ] || theirs merge-base --is-ancestor "$1" "$base" || theirs merge-base --is-ancestor "$1" "$start" ||
    [ "$(theirs for-each-ref --count=1 --contains="$1" refs/heads)" ] || echo "also $1 $2"
}
# What was left in another work tree, which has its index and its HEAD in the folder $1, becomes a commit there.
beside() (
  unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE why new found
  at=$(cat "$1/gitdir") && what="work tree ${at%/.git}"
  cd -- "$1" && cd -- "$(dirname -- "$at")" && [ "$(sed -n 's/^gitdir: //p' .git)" -ef "$1" ] || {
    loose "$(command git --git-dir="$1" rev-parse --quiet --verify 'HEAD^{commit}')" "$what"; exit
  }
  [ "$(git rev-parse --show-toplevel)" -ef . ] || { at=$(cat "$1/HEAD"); own "${at#ref: }"; } || {
    echo "failed in $PWD: its repository cannot be used"; exit
  }
  index=$1/index
  keep "$PWD"
  at=$(git symbolic-ref --quiet --short HEAD) && what="branch $at"
  if [ "$new" ]; then echo "also $new $what"; echo "over $new $old"; else loose "$old" "$what"; fi
) 2> /dev/null
! theirs cat-file -e "$start" || not=--no-merged=$start
form='also %(objectname) branch %(refname:lstrip=2)'
refs() { theirs for-each-ref ${old:+--no-merged=$old} $not --format="$form" "$@"; }
{
  theirs reflog show --format='also %H stash %gd' refs/stash --
  cat "$theirs/logs/HEAD" "$theirs"/worktrees/*/logs/HEAD 2> /dev/null |
    sed -n 's/^\([0-9a-f]\{40,\}\) .*\tcheckout: moving from \([^ ]*\) to .*/\1 \2/p' | sort -u |
    while read -r left from; do
      theirs show-ref --verify --quiet "refs/heads/$from" || loose "$left" "commit ${left::12}"
    done
} | head -n $told
{ refs refs/heads/bottle; refs refs/heads; } | head -n $told
keep
for each in "$theirs"/worktrees/*; do beside "$each"; done
"""
)
LEAVE = (
    _GIT
    + rf"""
out={OUT}
"""
    + r"""
tip=$3; shift 3
git cat-file -e "$tip^{commit}" 2> /dev/null || own || exit
git update-ref "$out" "$tip" 2> /dev/null || { own && git update-ref "$out" "$tip"; } || exit
not=; git cat-file -e "$start" 2> /dev/null && not="^$start"
for each; do  # what came out before
  git cat-file -e "$each^{commit}" && ! git merge-base --is-ancestor "$tip" "$each" && not+=" ^$each"
done 2> /dev/null
git bundle create --quiet - "$out" $not
"""
)
DIFF = f"""{_GIT}
copied; readable && [ -e "$index" ] || fresh
whole || rescued "$(git rev-parse --quiet --verify HEAD)" || part={PART}
git -c core.quotePath=false -c color.ui=false diff --cached --no-ext-diff --no-textconv "$start" -- && exit $part
"""
# Take back the commit $2 of what was left, on top of $3, in whichever work tree it is the HEAD's.
BACK = r"""
cd "$1" && git worktree list --porcelain -z | sed -nz 's/^worktree //p' | while read -r -d '' at; do
  git -C "$at" -c core.hooksPath=/dev/null update-ref HEAD "$3" "$2"
done
"""
# With no program but bash itself, which a bottle without room for another process can still start: stop all that the
# agent runs, so that nothing new comes of it, and end it, but not what holds the bottle: that reads the input of its
# first process. What the agent has given that input too lives on.
CLEAR = r"""
holder=
for each in /proc/[0-9]*; do
  each=${each#/proc/}
  [ "$each" = 1 ] || [ "$each" = $$ ] || ! [ "/proc/$each/fd/0" -ef /proc/1/fd/0 ] || holder+=" $each"
done
[ "$holder" ] || exit
kill -STOP -1
for each in /proc/[0-9]*; do
  each=${each#/proc/}
  [ "$each" = 1 ] || [ "$each" = $$ ] || [[ " $holder " = *" $each "* ]] || kill -KILL "$each"
done 2> /dev/null
kill -CONT $holder
"""
