#!/usr/bin/env bash
# Everything that needs a GPU, on a machine that has one and need not be able to build: the tests labelled gpu, some of
# them under compute-sanitizer, and the measurements, as a table.
#
# usage: tools/gpu_check.sh [FOLDER]    FOLDER holds a build's bin, test, benchmark, share and goldens [build]
# Environment: MODELS ("base 1.3B 2.7B 13B"), SECONDS_EACH (2), SKIP ("tests sanitizer decode prefill").
set -uo pipefail
cd "$(dirname "$0")/.."
build=${1:-build}
models=${MODELS:-base 1.3B 2.7B 13B}
seconds=${SECONDS_EACH:-2}
skip=" ${SKIP:-} "
export HANLIN_DATA=$PWD/$build/share/hanlin HANLIN_GOLDENS_DEFAULT=$PWD/$build/goldens HANLIN_BIN=$PWD/$build/bin
[[ $build = /* ]] && export HANLIN_DATA=$build/share/hanlin HANLIN_GOLDENS_DEFAULT=$build/goldens HANLIN_BIN=$build/bin
failed=0

row() { printf '%-44s %s\n' "$1" "$2"; }

# A test's last line of interest: passed, or what failed.
run_test() {
  local name=$1 log
  shift
  if log=$("$@" 2>&1); then
    row "$name" "$(grep -c '^\[       OK' <<<"$log") passed, $(grep -c '^\[  SKIPPED \] .*(' <<<"$log") skipped"
  else
    failed=1
    row "$name" "FAILED"
    grep -E '^\[  FAILED|error|Error|Failure' <<<"$log" | head -20
  fi
}

if [[ $skip != *" tests "* ]]; then
  for test in "$build"/test/*_cuda_test "$build"/test/*_nccl_test "$build"/test/worker_cuda_executor_test \
    "$build"/test/model_forward_{golden,reference_model,invariance}_test; do
    [[ -x $test ]] && run_test "$(basename "$test")" "$test"
  done
fi

if [[ $skip != *" sanitizer "* ]] && command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    for filter in model_forward_cuda_test:'*' kernels_norm_cuda_test:'*' kernels_embed_cuda_test:'*'; do
      test=$build/test/${filter%%:*}
      [[ -x $test ]] || continue
      run_test "$tool ${filter%%:*}" compute-sanitizer --tool "$tool" --error-exitcode 9 "$test" \
        --gtest_filter="${filter#*:}"
    done
  done
fi

# bench KIND MODEL BATCH CONTEXT: one line of the table.
bench() {
  local json
  if json=$("$build"/bin/hanlin bench "$1" --device cuda --preset "$2" --batch "$3" --context "$4" --seconds "$seconds" \
    --json 2>&1); then
    row "$1 $2 batch $3 context $4" "$(python3 -c '
import json, sys
j = json.loads(sys.argv[1].strip().splitlines()[-1])
if j["bench"] == "decode":
    print("%8.3f ms, floor %.3f, %.0f %% of the read rate; loaded in %.1f s" % (
        j["milliseconds_per_step"], j["floor_milliseconds"], 100 * j["share_of_read_rate"], j["load_seconds"]))
else:
    print("%8.3f ms, %.0f TFLOP/s, peak %.0f" % (
        j["milliseconds_per_step"], j["gflop_per_second"] / 1e3, j["peak_gflop_per_second"] / 1e3))' "$json")"
  else
    failed=1
    row "$1 $2 batch $3 context $4" "FAILED: $(tail -1 <<<"$json")"
  fi
}

for model in $models; do
  if [[ $skip != *" decode "* ]]; then
    bench decode "$model" 1 256
    [[ $model = 2.7B || $model = 13B ]] && bench decode "$model" 32 512
    [[ $model = 2.7B ]] && bench decode "$model" 128 512
  fi
  if [[ $skip != *" prefill "* && $model = 2.7B ]]; then
    bench prefill "$model" 1 2048
    bench prefill "$model" 8 512
  fi
done
exit $failed
