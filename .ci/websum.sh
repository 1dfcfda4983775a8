#!/usr/bin/env bash
# Prints one sum over everything the web build reads, ignored files left out.
set -euo pipefail
cd "$(dirname "$0")/../web"
git ls-files -z -co --exclude-standard . | sort -z |
	while IFS= read -r -d '' f; do [ ! -f "$f" ] || sha256sum "$f"; done |
	sha256sum | cut -d' ' -f1
