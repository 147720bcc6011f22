#!/bin/bash
# Install, build and test. A lock file names the registry as cargo does, and the repository names none.
set -ex
index=$(grep -aom 1 'https://github.com/rust-lang/[a-z.]*-index' "$(command -v cargo)" | head -n 1)
sed -i "s|@index@|$index|" Cargo.lock
cargo build --locked
cargo test --locked
cargo clippy --locked
cargo fmt --check
