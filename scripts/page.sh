#!/usr/bin/env bash
# Builds the verifier's page: ringfence-verify as WebAssembly (WASI) in one HTML file that needs nothing else.
# Usage: scripts/page.sh [OUT.html]
set -euo pipefail
cd "$(dirname "$0")/.."

out=${1:-target/verify-page/ringfence-verify.html}
target=wasm32-wasip1
if ! rustc --print target-libdir --target $target 2> /dev/null | xargs -I{} test -d {}; then
  # Exit code 3: this Rust cannot compile for it, which says nothing of the page.
  command -v rustup > /dev/null || { echo "this Rust has no $target, and no rustup to add it: install rust-std for $target" >&2; exit 3; }
  rustup target add $target || { echo "rustup cannot add $target" >&2; exit 3; }
fi
# No path of this machine in the program: the same source and compiler give the same bytes.
export RUSTFLAGS="--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo --remap-path-prefix=$PWD=ringfence"
cargo build --quiet --locked --profile page --target $target -p ringfence-verifier --bin ringfence-verify

work=target/verify-page
mkdir -p "$work" "$(dirname "$out")"
cp crates/verifier/page/* "$work/"
if [ ! -d $work/node_modules/esbuild ]; then npm ci --silent --no-audit --no-fund --prefix $work; fi
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
node $work/build.mjs target/$target/page/ringfence-verify.wasm "$version" "$out"
