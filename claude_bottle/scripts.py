"""What is run in a bottle to get its work out: bash, as the agent's user, beside whatever the agent still runs."""

from claude_bottle.clone import OUT

_NAMED = 20  # branches, and files, at most
# $1 is the work directory, $2 the commit where it began, $3 a size in bytes or a commit. Whatever the agent has made of
# its .git: one that cannot be used is left as it is, and one of our own is put on top of its objects; an index that is
# locked or broken is replaced by one of our own. No hook, no signature, no file monitor; what is found is told a line
# each.
_GIT = """
cd "$1" || exit
start=$2 size=$3
git() { command git -c core.hooksPath=/dev/null -c core.fsmonitor= -c gc.auto=0 -c advice.addEmbeddedRepo=false "$@"; }
top=$(git rev-parse --show-toplevel 2>/dev/null)
if ! [ "$top" -ef . ]; then
  export GIT_DIR=${TMPDIR:-/tmp}/.claude-bottle.git GIT_WORK_TREE=$PWD
  git init --quiet || exit
  echo "$PWD/.git/objects" > "$GIT_DIR/objects/info/alternates"
  git rev-parse --quiet --verify HEAD > /dev/null || git update-ref HEAD "$start" 2> /dev/null
fi
index=$(git rev-parse --git-path index)
large() { find . -name .git -prune -o -type f -size +"$size"c -printf "$1\\\\0"; }
add() {
  { printf '.\\0'; large ':(exclude,literal)%P'; } |
    git add --all --ignore-errors --pathspec-from-file=- --pathspec-file-nul 2> /dev/null
  [ $? -le 1 ]
}
copied() { export GIT_INDEX_FILE; GIT_INDEX_FILE=$(mktemp -d)/index; cp -p "$index" "$GIT_INDEX_FILE" 2> /dev/null; }
fresh() { export GIT_INDEX_FILE; GIT_INDEX_FILE=$(mktemp -d)/index; git read-tree HEAD 2> /dev/null; }
"""
KEEP = f"""{_GIT}
old=$(git rev-parse --quiet --verify 'HEAD^{{commit}}')
add || {{ copied; add; }} || {{ fresh; add; }}
tree=$(git write-tree) || {{ fresh; add; tree=$(git write-tree); }}
if [ "$tree" ] && [ "$tree" != "$(git rev-parse --quiet --verify 'HEAD^{{tree}}')" ]; then
  export GIT_AUTHOR_NAME=claude-bottle GIT_AUTHOR_EMAIL=claude-bottle@localhost
  export GIT_COMMITTER_NAME=claude-bottle GIT_COMMITTER_EMAIL=claude-bottle@localhost
  new=$(git commit-tree ${{old:+-p}} $old "$tree" <<'END'
Keep what was left uncommitted

Made by claude-bottle as the work was fetched out of the bottle: no commit of the agent's.
END
  ) && git update-ref HEAD "$new" $old
fi
echo "tip $(git rev-parse --quiet --verify 'HEAD^{{commit}}')"
git for-each-ref --count={_NAMED} --no-merged=HEAD --format='other %(refname:short)' refs/heads refs/stash
large %P | head --zero-terminated --lines {_NAMED} | while read -r -d '' file; do
  [ -z "$(git --literal-pathspecs status --porcelain -- "$file")" ] || echo "large $file"
done
"""
LEAVE = f"""{_GIT}
git update-ref {OUT} "$3" || exit
not=; git cat-file -e "$start" 2> /dev/null && not="^$start"
git bundle create --quiet - {OUT} $not
"""
DIFF = f"""{_GIT}
copied; add || {{ fresh; add; }}
git -c core.quotePath=false -c color.ui=false diff --cached --no-ext-diff --no-textconv "$start" --
"""
