#!/usr/bin/env bash
# Everything that needs a GPU, on a machine that has one and need not be able to build: the tests labelled gpu, the kernels'
# small ones under compute-sanitizer too, and the measurements, as a table.
#
# usage: tools/gpu_check.sh [FOLDER]    FOLDER holds a build's bin, test, benchmark, share and goldens [build]
# Environment: MODELS ("base 1.3B 2.7B 13B"), SECONDS_EACH (2), SERVE_SECONDS (60), SERVE_REQUESTS (2000), SKIP (of
# "tests sanitizer faults decode prefill train serve start"). faults needs Python's grpc and the build's stubs.
set -uo pipefail
cd "$(dirname "$0")/.."
build=${1:-build}
models=${MODELS:-base 1.3B 2.7B 13B}
seconds=${SECONDS_EACH:-2}
skip=" ${SKIP:-} "
build=$(realpath "$build")
export HANLIN_DATA=$build/share/hanlin HANLIN_GOLDENS_DEFAULT=$build/goldens HANLIN_BIN=$build/bin
export HANLIN_STUBS=$build/stubs HANLIN_SOURCE=$PWD
failed=0
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

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
  for test in "$build"/test/*_cuda_{,causal_,train_,golden_,model_}test "$build"/test/*_nccl_test "$build"/test/worker_cuda_executor_test \
    "$build"/test/model_forward_{golden,reference_model,invariance}_test; do
    [[ -x $test ]] && run_test "$(basename "$test")" "$test"
  done
  # What a GPU other than Hopper's would run (common/cuda/capability.h).
  for test in common_cuda_test kernels_{attention,embed,gemm,norm,sampling}_cuda_test worker_cuda_executor_test \
    model_forward_{golden,reference_model}_test; do
    [[ -x $build/test/$test ]] && run_test "plain $test" env HANLIN_FAILPOINT_CUDA_PLAIN=1 "$build/test/$test"
  done
fi

if [[ $skip != *" sanitizer "* ]] && command -v compute-sanitizer >/dev/null; then
  # sanitize TOOL TEST: the tests of small shapes, or all where none is called so.
  sanitize() {
    local name="$1 $(basename "$2")" filter='*' log
    "$2" --gtest_list_tests | grep -q AFewSmallShapes && filter='*AFewSmallShapes*'
    if log=$(timeout 300 compute-sanitizer --tool "$1" --show-backtrace no --error-exitcode 9 "$2" \
      --gtest_filter="$filter" 2>&1); then
      row "$name" "$(grep -c '^\[       OK' <<<"$log") passed, $(sed -n 's/^=* [A-Z]* SUMMARY: //p' <<<"$log")"
    else
      row "$name" "FAILED
$(grep -E '^=========|^\[  FAILED' <<<"$log" | head -20)"
      return 1
    fi
  }
  export -f row sanitize
  # Racecheck does not see that what a warp read before __syncwarp comes before its lane's arrival at an mbarrier, by
  # which causal attention and the decode step free their slots.
  for tool in racecheck memcheck; do
    for test in "$build"/test/kernels_*_cuda_{,causal_,train_}test; do
      [[ $tool = racecheck && $test =~ _causal_test|_decode_step_ ]] && continue
      [[ -x $test ]] && echo "$tool $test"
    done
  done | xargs -P 8 -L 1 bash -c 'sanitize "$@"' sanitize || failed=1
fi

if [[ $skip != *" faults "* ]] && python3 -c 'import grpc' 2>/dev/null && [[ -d $HANLIN_STUBS ]]; then
  if log=$(python3 -B tests/e2e/gpu_fault_test.py 2>&1); then
    grep 'serves again' <<<"$log"
  else
    failed=1
    row "faults" "FAILED"
    tail -20 <<<"$log"
  fi
fi

# bench KIND MODEL BATCH CONTEXT: one line of the table, and the step's time in $milliseconds.
bench() {
  local json
  milliseconds=
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
    milliseconds=$(sed -n 's/.*"milliseconds_per_step": *\([0-9.e+-]*\).*/\1/p' <<<"$json")
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

# train MODEL BATCH CONTEXT ARGUMENTS: whole steps of training of a preset, or of a folder's model.
train() {
  local model=$1 batch=$2 context=$3 json
  shift 3
  if json=$("$build"/bin/hanlin bench train --device cuda "$([[ -d $model ]] && echo --model || echo --preset)" "$model" \
    --batch "$batch" --context "$context" --seconds "$seconds" --json "$@" 2>&1); then
    row "train $(basename "$model") batch $batch context $context $*" "$(python3 -c '
import json, sys
j = json.loads(sys.argv[1].strip().splitlines()[-1])
print("%.0f tok/s, %.2f ms, MFU %.3f, %.1f GB" % (
    j["tokens_per_second"], j["milliseconds_per_step"], j["mfu"], j["memory_used_gb"]))' "$json")"
  else
    failed=1
    row "train $(basename "$model") batch $batch context $context $*" "FAILED: $(tail -1 <<<"$json")"
  fi
}

if [[ $skip != *" train "* ]]; then
  # A vocabulary of 51200, as the larger sizes have; GPT-2's shape, whose GELU has the tanh form, and the family's own.
  if [[ $models = *base* ]]; then
    mkdir "$folder/124M"
    cat >"$folder/124M/config.json" <<<'{"model_type": "gpt2", "activation_function": "gelu_new", "n_embd": 768, "n_head": 12,
      "n_layer": 12, "n_positions": 1024, "vocab_size": 51200, "layer_norm_epsilon": 1e-5, "tie_word_embeddings": true}'
    train "$folder/124M" 64 1024
    train base 64 1024 --vocab-size 51200
  fi
  [[ $models = *1.3B* ]] && train 1.3B 8 2048
  if [[ $models = *2.7B* ]]; then
    train 2.7B 8 1024
    train 2.7B 16 1024 --recompute full
    train 2.7B 4 1024 --recompute full
  fi
fi

# serve CONCURRENCY: the whole service beside the raw figures of this run.
serve() {
  bench decode 2.7B "$1" 320
  local decode=$milliseconds json
  bench prefill 2.7B 8 512
  if json=$("$build"/bin/hanlin bench serve --device cuda --preset 2.7B --concurrency "$1" --decode-ms "$decode" \
    --prefill-ms-per-1k "$(python3 -c 'import sys; print(float(sys.argv[1]) / 4.096)' "$milliseconds")" \
    --seconds "${SERVE_SECONDS:-60}" --requests "${SERVE_REQUESTS:-2000}" --json 2>&1); then
    row "serve 2.7B concurrency $1" "$(tail -1 <<<"$json")"
  else
    failed=1
    row "serve 2.7B concurrency $1" "FAILED: $(tail -1 <<<"$json")"
  fi
}

if [[ $skip != *" serve "* && $models = *2.7B* ]]; then
  serve 32
  serve 128
fi

# From files in the page cache to the first token, graphs included.
if [[ $skip != *" start "* && $models = *2.7B* ]]; then
  tools/random_checkpoint.py "$build"/bin/hanlin 2.7B "$folder/2.7B" && cat "$folder"/2.7B/*.safetensors >/dev/null
  row "start 2.7B from files" "$("$build"/bin/hanlin bench start --device cuda --model "$folder/2.7B" --repeats 3 2>&1 |
    tail -2 | tr -s ' \n' ' ')"
fi
exit $failed
