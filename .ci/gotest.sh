#!/usr/bin/env bash
# Runs all Go tests as CI does, with go test's further flags as arguments.
#
# - Packages that take longest come first (go test keeps the order), or one of
#   them would run alone in the end.
# - One package more than there are cores, and twice as many tests that say
#   t.Parallel: much of what they do is waiting for processes.
# - Temporary files are in memory where there is room, since syncing thousands
#   of small databases is half of the time else. No test pulls the plug: those
#   of power loss record what is written and synced, and replay it.
# - SQLite, which is translated from C and guards itself, and the derivation of
#   keys from passphrases, which is arithmetic, are built without the race
#   detector and the checks of pointers: a quarter of all the time otherwise.
# - vet has been run by make lint, on everything.
# - Without paths in what is compiled, one checkout uses what another has compiled:
#   four minutes of a processor. The compiler and the linker have memory to spare
#   and collect it less often: a sixth of their time.
# - The race detector ends a process at once, not after the second in which it
#   waits for more races: hundreds of processes start and stop here.
# - Property tests draw from a fixed seed, so that a run can be repeated; make
#   prove draws afresh.
set -euo pipefail
cd "$(dirname "$0")/.."
cores=$(nproc)
long='./internal/e2e ./internal/fleettest ./agent/spool ./agent/activate ./agent/condition ./agent/serve ./agent/worker ./controller/store ./controller/broker ./cmd/edgeherd ./controller/store/powertest ./internal/fleettest/weights ./controller/cluster ./agent/inputs'

# room is a folder in memory that holds 6 GiB and runs programs, or nothing.
room() {
	local dir
	[ "$(df -k --output=fstype /dev/shm 2>/dev/null | tail -n 1)" = tmpfs ] || return 0
	[ "$(df -k --output=avail /dev/shm | tail -n 1)" -ge $((6 << 20)) ] || return 0
	[ "$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)" -ge $((12 << 20)) ] || return 0
	dir=$(mktemp -d /dev/shm/eh.XXXX) || return 0
	printf '#!/bin/sh\n' >"$dir/run" && chmod 755 "$dir/run"
	if ! "$dir/run" 2>/dev/null; then rm -rf "$dir"; return 0; fi
	chmod 1777 "$dir" # databases and brokers of tests run as users of their own
	echo "$dir"
}
memory=$(room)
if [ -n "$memory" ]; then
	trap 'rm -rf "$memory"' EXIT
	export GOTMPDIR=${GOTMPDIR:-${TMPDIR:-/tmp}} TMPDIR=$memory # what the compiler leaves is large
fi
# shellcheck disable=SC2086 # one word per package
EDGEHERD_REQUIRE_ASSETS=1 RAPID_SEED=1 GORACE=atexit_sleep_ms=0 go test -race -trimpath -toolexec 'env GOGC=400' -shuffle=on -vet=off -timeout 40m \
	-gcflags='modernc.org/...=-race=false -d=checkptr=0' -gcflags='golang.org/x/crypto/...=-race=false' \
	-p $((cores + 1)) -parallel $((2 * cores)) "$@" $long ./...
