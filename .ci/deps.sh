#!/usr/bin/env bash
# Makes sure that what the tests need is on this machine. Root on Debian or
# Ubuntu gets it by apt; anyone else is told what is missing and how to get it.
set -euo pipefail
cd "$(dirname "$0")/.."

# A command or a file that proves presence, and the Debian package that has it.
needs='
gcc                                                build-essential
git                                                git
strace                                             strace
swtpm                                              swtpm
chromium                                           chromium
ffmpeg                                             ffmpeg
/usr/share/libonnx-testdata/data/node              libonnx-testdata
/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf    fonts-dejavu-core
/usr/share/fonts/truetype/wqy/wqy-microhei.ttc     fonts-wqy-microhei
/usr/lib/postgresql                                postgresql
/usr/sbin/mosquitto                                mosquitto
/usr/sbin/haproxy                                  haproxy
/usr/bin/docker-registry                           docker-registry
/usr/bin/victoria-metrics                          victoria-metrics
/usr/bin/promtool                                  prometheus
/usr/bin/prometheus-alertmanager                   prometheus-alertmanager
zbarimg                                            zbar-tools
pdftoppm                                           poppler-utils
systemd-analyze                                    systemd
/lib/nut/dummy-ups                                 nut-server
/usr/sbin/smartctl                                 smartmontools
/usr/bin/ipmitool                                  ipmitool
/usr/bin/ipmi_sim                                  openipmi
softhsm2-util                                      softhsm2
pkcs11-tool                                        opensc
'
arm=build/arm64-root
if [ "$(uname -m)" != aarch64 ]; then
	needs+='qemu-aarch64-static                        qemu-user-static'
fi

present() { case $1 in /*) [ -e "$1" ] ;; *) command -v "$1" >/dev/null ;; esac; }
can_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

missing() {
	local probe package
	while read -r probe package; do
		[ -z "$probe" ] || present "$probe" || printf '%s ' "$package"
	done <<<"$needs"
}

# arm64_root unpacks the C and C++ libraries of Debian's arm64 beside ours, so
# that the arm64 worker runs under qemu with the real ONNX Runtime. The lists
# and packages stay in a folder of their own: the system keeps its architecture.
arm64_root() {
	[ -e "$arm/.complete" ] && return
	command -v apt-get >/dev/null || { echo "deps: $arm needs apt-get: unpack libc6, libstdc++6 and libgcc-s1 for arm64 there and touch $arm/.complete" >&2; return 1; }
	local tmp opts deb
	tmp=$(mktemp -d)
	mkdir -p "$tmp/lists/partial" "$tmp/cache/archives/partial" "$tmp/debs"
	opts=(-qq -o Acquire::Retries=3 -o APT::Architecture=amd64 -o APT::Architectures::=amd64 -o APT::Architectures::=arm64
		-o "Dir::State::lists=$tmp/lists" -o "Dir::Cache=$tmp/cache" -o APT::Sandbox::User=)
	apt-get "${opts[@]}" update
	(cd "$tmp/debs" && apt-get "${opts[@]}" download libc6:arm64 libstdc++6:arm64 libgcc-s1:arm64)
	rm -rf "$arm" && mkdir -p "$arm"
	for deb in "$tmp"/debs/*.deb; do dpkg-deb -x "$deb" "$arm"; done
	touch "$arm/.complete"
	rm -rf "$tmp"
}

node_major=$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)
if [ "$node_major" -lt 20 ] || ! command -v npm >/dev/null; then
	echo "deps: Node.js 20 or newer with npm is needed (found: $(node --version 2>/dev/null || echo none)): see https://nodejs.org/en/download" >&2
	exit 1
fi
lack=$(missing)
if [ -n "$lack" ] && can_install; then
	# Tests start servers of their own; those of the packages stay down.
	export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
	# A machine that has just started may be updating itself, and mirrors hiccup.
	patient=(-qq -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3)
	# Install waits for the lock of packages, update not for that of their lists.
	until said=$(LC_ALL=C apt-get "${patient[@]}" update 2>&1); do
		if [[ $said != *"Could not get lock"* || $SECONDS -gt 600 ]]; then
			echo "$said" >&2
			exit 1
		fi
		sleep 5
	done
	# shellcheck disable=SC2086 # one word per package
	apt-get "${patient[@]}" install -y --no-install-recommends $lack >/dev/null
	lack=$(missing)
fi
if [ -n "$lack" ]; then
	echo "deps: missing, install as root: apt-get install --no-install-recommends $lack" >&2
	exit 1
fi
[ "$(uname -m)" = aarch64 ] || arm64_root
