#!/usr/bin/env bash
# clang-format and clang-tidy. With --all: the whole tree. Without: the .cc files changed since a base, as many as fit
# into LINT_SECONDS (default 600; the rest is named and left unchecked). The base is LINT_BASE, else where this branch
# left the main branch, else ten commits ago, else the first commit. Wants a configured build folder with the generated
# headers (LINT_BUILD, default build): what is not compiled there, CUDA without a compiler for example, is left out.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${LINT_BUILD:-build}

# The commit to compare with; empty when there is only one.
base() {
  local head other
  head=$(git rev-parse HEAD)
  for other in "${LINT_BASE:-}" origin/main origin/master main master; do
    [ -n "$other" ] || continue
    other=$(git merge-base HEAD "$other" 2>/dev/null) || continue
    if [ "$other" != "$head" ]; then
      echo "$other"
      return
    fi
  done
  git rev-parse --verify -q HEAD~10 || git rev-list --max-parents=0 HEAD | tail -1
}

# Of the files on stdin those that the build folder compiles.
compiled() {
  python3 -c '
import json, os, sys
known = {os.path.relpath(entry["file"]) for entry in json.load(open(sys.argv[1] + "/compile_commands.json"))}
print("".join(line for line in sys.stdin if line.strip() in known), end="")' "$build"
}

if [ "${1:-}" = "--all" ]; then
  mapfile -t files < <(git ls-files '*.cc' '*.h')
  seconds=$((7 * 24 * 3600))
else
  mapfile -t files < <(git diff --name-only --diff-filter=d "$(base)" -- '*.cc' '*.h')
  seconds=${LINT_SECONDS:-600}
fi
[ ${#files[@]} -eq 0 ] && { echo "lint: nothing to check"; exit 0; }

clang-format --dry-run --Werror "${files[@]}"
mapfile -t sources < <(printf '%s\n' "${files[@]}" | grep '\.cc$' | compiled)

# One file at a time on each core, none begun after the time is over. Some flags are of gcc alone.
export LINT_BUILD=$build LINT_UNTIL=$(($(date +%s) + seconds))
export LINT_LEFT=$(mktemp)
trap 'rm -f "$LINT_LEFT"' EXIT
printf '%s\n' "${sources[@]}" | xargs -r -P "${LINT_JOBS:-$(nproc)}" -I{} bash -c '
  if [ "$(date +%s)" -ge "$LINT_UNTIL" ]; then echo "$1" >>"$LINT_LEFT"; exit 0; fi
  clang-tidy -p "$LINT_BUILD" --quiet --extra-arg=-Wno-unknown-warning-option "$1" 2> >(grep -v "warnings\? generated\|Suppressed\|header-filter" >&2)' _ {} || findings=1
if [ -s "$LINT_LEFT" ]; then
  echo "lint: out of time, not checked: $(tr '\n' ' ' <"$LINT_LEFT")"
fi
[ -z "${findings:-}" ] || { echo "lint: findings above"; exit 1; }
echo "lint: $((${#sources[@]} - $(wc -l <"$LINT_LEFT"))) of ${#sources[@]} source files are clean, ${#files[@]} are formatted"
