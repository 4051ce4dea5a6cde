#!/bin/sh
# Lints the wire contracts with buf (proto/buf.yaml). Where there is no npx to run it with, it says so and passes.
set -eu
BUF_VERSION=1.75.0
cd "$(dirname "$0")"
if ! command -v npx >/dev/null 2>&1; then
    echo "proto/lint.sh: skipped, because npx (node) is not installed"
    exit 0
fi
exec npx --yes "@bufbuild/buf@$BUF_VERSION" lint
