#!/usr/bin/env bash
# Generated sessions against limits, meter and record, shared out to processes with a seed each:
# scripts/generated.sh SESSIONS [PROCESSES] [FIRST-SEED]. Properties of generated queries come after them.
set -euo pipefail
cd "$(dirname "$0")/.."
sessions=${1:-100000}
processes=${2:-3}
seed=${3:-1}
cargo test --workspace --locked --no-run --test suite
suite=$(cargo test --workspace --locked --no-run --test suite --message-format=json 2> /dev/null \
  | sed -n 's/.*"executable":"\([^"]*\/suite-[^"]*\)".*/\1/p')
cd crates/ringfence
running=()
for ((n = 0; n < processes; n++)); do
  share=$(((sessions + n) / processes))
  echo "seed $((seed + n)): $share sessions"
  RF_GENERATED_SESSIONS=$share RF_GENERATOR_SEED=$((seed + n)) "$suite" limits::generator --nocapture &
  running+=($!)
done
failed=0
for process in "${running[@]}"; do wait "$process" || failed=1; done
RF_GENERATED_QUERIES=20000 "$suite" limits::properties || failed=1
exit $failed
