#!/usr/bin/env bash
# fuzz.sh [TIME [CORPUS]] runs every fuzz target of the tree for TIME (2s) each,
# two at once with one worker each. They start from the seeds in the tree; with a
# folder CORPUS also from what earlier runs left there, which slow targets take
# longer to read than a short run lasts.
#
# What is new is told by the code that an input reaches. In a short run that is
# our code: building that of others to tell it as well, all of it for the one
# purpose, takes longer than fuzzing. With CORPUS all code tells it.
#
# A failing input is written under testdata/fuzz of its package as it was found:
# the engine's search for shorter ones is off, since it takes every input that
# reaches new code, and one of a kilobyte cost a short run all its time. To
# shorten a failing one: go test -run '^$' -fuzz NAME PACKAGE.
set -euo pipefail
cd "$(dirname "$0")/.."
fuzztime=${1:-2s}
bins=$(mktemp -d)
trap 'rm -rf "$bins"' EXIT
corpus=${2:-$bins/corpus}
guide=-fuzz=.
[ -n "${2:-}" ] || guide=-gcflags=$(go list -m)/...=-d=libfuzzer # what -fuzz does to every package

one() {
	local dir=$1 name=$2 bin=$3 log try
	log=$bin.$name.log
	for try in 1 2; do
		if (cd "$dir" && "$bin" -test.run '^$' -test.fuzz "^$name\$" -test.fuzztime "$fuzztime" -test.fuzzminimizetime 0s \
			-test.parallel 1 -test.paniconexit0 -test.fuzzcachedir "$corpus/$dir") >"$log" 2>&1; then
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

# package runs the targets of one package, which is built once for all of them.
package() {
	local dir=$1 bin=$bins/${1//\//_} name bad=0
	shift
	CGO_ENABLED=0 GOGC=400 go test -trimpath -vet=off -c "$guide" -o "$bin" "./$dir" || { printf 'fuzz FAILED %s: it does not build\n' "$dir"; return 1; }
	for name; do one "$dir" "$name" "$bin" || bad=1; done
	rm -f "$bin"
	return $bad
}
export -f one package
export fuzztime bins corpus guide

# One line for each package, those with the most targets first: DIR TARGET...
targets=$(git ls-files -co --exclude-standard '*_test.go' | xargs -r grep -HoE '^func Fuzz[A-Za-z0-9_]+' |
	sed -E 's#^(.*)/[^/]+:func #\1 #' | sort -u |
	awk '{ n[$1]++; names[$1] = names[$1] " " $2 } END { for (d in n) print n[d], d names[d] }' | sort -rn | cut -d' ' -f2-) || true
[ -n "$targets" ] || { echo 'fuzz: no targets found' >&2; exit 1; }
xargs -P 2 -L 1 bash -c 'set -euo pipefail; package "$@"' _ <<<"$targets"
