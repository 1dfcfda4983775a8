#!/usr/bin/env bash
# Prints one sum over everything the web build reads. It does without git, so
# that a source archive builds as well.
set -euo pipefail
cd "$(dirname "$0")/../web"
find . -name node_modules -prune -o -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1
