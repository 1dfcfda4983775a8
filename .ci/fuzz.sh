#!/usr/bin/env bash
# Runs every fuzz target of the tree for the given time each, two at once with
# one worker each. A failing input is written under testdata/fuzz of its package.
set -euo pipefail
cd "$(dirname "$0")/.."
fuzztime=${1:-3s}

one() {
	local dir=$1 name=$2 log try
	log=$(mktemp)
	trap 'rm -f "$log"' RETURN
	for try in 1 2; do
		if go test -run '^$' -fuzz "^$name\$" -fuzztime "$fuzztime" -parallel 1 "./$dir" >"$log" 2>&1; then
			printf 'fuzz ok    %s %s (%s)\n' "$dir" "$name" "$(grep -oE 'execs: [0-9]+' "$log" | tail -n 1)"
			return 0
		fi
		# The fuzzing engine can lose the race with its own deadline and fail without
		# an input: then, and only then, it gets a second run.
		if grep -q 'Failing input written' "$log" || ! grep -q 'context deadline exceeded' "$log"; then break; fi
	done
	printf 'fuzz FAILED %s %s\n' "$dir" "$name"
	cat "$log"
	return 1
}
export -f one
export fuzztime

targets=$(git ls-files -co --exclude-standard '*_test.go' | xargs -r grep -HoE '^func Fuzz[A-Za-z0-9_]+' |
	sed -E 's#^(.*)/[^/]+:func #\1 #' | sort -u) || true
[ -n "$targets" ] || { echo 'fuzz: no targets found' >&2; exit 1; }
xargs -P 2 -L 1 bash -c 'one "$1" "$2"' _ <<<"$targets"
