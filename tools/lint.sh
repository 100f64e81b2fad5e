#!/usr/bin/env bash
# clang-format and clang-tidy. Without --all: the files changed since the branch point given in LINT_BASE, else since
# the last commit that touched this file's folder differently (HEAD~1). Wants a configured build/ for the commands.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" = "--all" ]; then
  mapfile -t files < <(git ls-files '*.cc' '*.h')
else
  mapfile -t files < <(git diff --name-only --diff-filter=d "${LINT_BASE:-HEAD~1}" -- '*.cc' '*.h')
fi
[ ${#files[@]} -eq 0 ] && { echo "lint: nothing to check"; exit 0; }

clang-format --dry-run --Werror "${files[@]}"
printf '%s\n' "${files[@]}" | grep '\.cc$' |
  xargs -r -P "$(nproc)" -n 4 clang-tidy -p build --quiet 2> >(grep -v 'warnings generated' >&2)
echo "lint: ${#files[@]} files are clean"
