#!/usr/bin/env bash
# Starts gateway, tokenizer and worker with the default model on a free port, streams a poem from a gRPC client and
# stops them again.
set -euo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
coproc SERVE { exec build/bin/hanlin serve --address 127.0.0.1:0 2>"$log"; }
serve_pid=$SERVE_PID
trap 'kill "$serve_pid" 2>/dev/null; wait "$serve_pid" 2>/dev/null; rm -f "$log"' EXIT
if ! read -r -t 60 -u "${SERVE[0]}" word address || [ "$word" != ready ]; then
  cat "$log" >&2
  echo "demo: the services did not start" >&2
  exit 1
fi
echo "Services are ready at $address. The prompt is 《春江花月夜》张若虚; the model goes on:" >&2
build/bin/hanlin generate --target "$address" --stream --prompt "${1:-《春江花月夜》张若虚
}"
