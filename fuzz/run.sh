#!/usr/bin/env bash
# Fuzzes for SECONDS each: fuzz/run.sh SECONDS [TARGET …]. Works on the stable toolchain: coverage by LLVM's own pass, no sanitizer
# (the code forbids `unsafe`; what is looked for are panics, overflows and broken promises).
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-60}; shift || true
targets=("$@"); [ ${#targets[@]} -gt 0 ] || targets=(frames scram statement condition ledger texts evidence copies)

export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Ccodegen-units=1 --cfg fuzzing"
host=$(rustc -vV | sed -n 's/^host: //p')
cargo build --release --quiet --target "$host" # with --target, build scripts go without instrumentation
for target in "${targets[@]}"; do
  mkdir -p corpus/"$target" seeds
  echo "== $target for $seconds s"
  dictionary=(); [ -f seeds/"$target".dict ] && dictionary=(-dict=seeds/"$target".dict)
  seeds=(); [ -d seeds/"$target" ] && seeds=(seeds/"$target")
  target/"$host"/release/"$target" -max_total_time="$seconds" -max_len=4096 -timeout=30 -rss_limit_mb=4096 \
    -print_final_stats=1 "${dictionary[@]}" corpus/"$target" "${seeds[@]}" 2>&1 | grep -E 'stat::|ERROR|panicked|SUMMARY' || true
  if compgen -G "crash-*" > /dev/null || compgen -G "timeout-*" > /dev/null; then echo "$target: found something (see fuzz/)"; exit 1; fi
done
