# What people and CI run. `make` alone lists the targets.
#
# Everything made lands in build/ (and controller/api/web/dist for the web
# pages, which are embedded in the edgeherd binary). Targets run one after the
# other, and the tools they call use the cores; TOGETHER=1 is for those that have
# all they need.
ifndef TOGETHER
.NOTPARALLEL:
endif
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

PROGRAMS := edgeherd edgeherd-agent edgeherd-runner edgeherd-launcher edgeherd-load
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# Without cgo and paths everywhere, or each tool compiles all dependencies anew.
# The tools live for seconds, and collecting memory is a sixth of their time.
PLAIN := CGO_ENABLED=0 GOFLAGS=-trimpath GOGC=400 GOMEMLIMIT=4GiB
GOBUILD := $(PLAIN) go build -ldflags '-s -w -X main.version=$(VERSION)'
FUZZTIME ?= 2s

.PHONY: help up build web deps assets lint test gotest fuzz webtest webpages webtech prove bench dist clean

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' Makefile | expand -t 14

up: assets web build ## build all and start a demo fleet on this machine
	build/bin/edgeherd up

build: ## the binaries, into build/bin
	@mkdir -p build/bin controller/api/web/dist && touch controller/api/web/dist/.keep
	$(GOBUILD) -o build/bin/ $(addprefix ./cmd/,$(PROGRAMS))

# The stamp holds the sum of every input of the web build, so that switching
# branches back and forth neither misses a change nor repeats the work.
web: ## the dashboard, into controller/api/web/dist
	@sum=$$(.ci/websum.sh); \
	if [ "$$sum" = "$$(cat build/web.stamp 2>/dev/null)" ] && [ -f controller/api/web/dist/index.html ]; then exit 0; fi; \
	$(MAKE) --no-print-directory web/node_modules/.package-lock.json; \
	(cd web && npm run build); \
	touch controller/api/web/dist/.keep; mkdir -p build; echo "$$sum" >build/web.stamp

web/node_modules/.package-lock.json: web/package.json web/package-lock.json
	cd web && npm ci --no-audit --no-fund
	@touch $@

# Programs of others that tests talk to.
.ci/npm/node_modules/.package-lock.json: .ci/npm/package.json .ci/npm/package-lock.json
	cd .ci/npm && npm ci --ignore-scripts --no-audit --no-fund
	@touch $@

deps: ## what the tests need: installs it when root, else says what is missing
	.ci/deps.sh
	go mod download
	go -C .ci/tools mod download
	go -C .ci/s3 mod download
	go mod download $$(cat .ci/fixtures)
	@$(MAKE) --no-print-directory web/node_modules/.package-lock.json .ci/npm/node_modules/.package-lock.json

assets: ## ONNX Runtime and demo models, into build/assets
	@.ci/assets.sh

lint: build/tools/staticcheck ## gofmt, go vet, staticcheck
	@bad=$$(git ls-files -co --exclude-standard '*.go' | xargs -r gofmt -l); \
	[ -z "$$bad" ] || { echo "not formatted, run gofmt -w on:"; echo "$$bad"; exit 1; }
	$(PLAIN) go vet ./...
	$(PLAIN) build/tools/staticcheck ./...

# A module of its own keeps the linter's requirements out of ours.
build/tools/staticcheck: .ci/tools/go.mod .ci/tools/go.sum
	$(PLAIN) go build -C .ci/tools -o $(CURDIR)/$@ honnef.co/go/tools/cmd/staticcheck

# A real S3 server for tests, from a module of its own.
build/tools/versitygw: .ci/s3/go.mod .ci/s3/go.sum
	$(PLAIN) go build -C .ci/s3 -o $(CURDIR)/$@ github.com/versity/versitygw/cmd/versitygw

# Browsers wait for pages most of the time; fuzzing takes what they leave.
test: deps assets web build lint gotest ## everything CI checks
	$(MAKE) --no-print-directory -j3 --output-sync=target TOGETHER=1 fuzz webtest

gotest: build/tools/versitygw
	.ci/gotest.sh

fuzz: ## every fuzz target for FUZZTIME (2s)
	nice -n 10 .ci/fuzz.sh $(FUZZTIME)

webtest: webpages webtech

webpages:
	cd web && npm run lint && npm test && npm run test:browser

webtech:
	cd web && npm run test:tech

prove: assets web build build/tools/versitygw ## full counts and fault matrices: hours
	EDGEHERD_REQUIRE_ASSETS=1 EDGEHERD_PROVE=1 go test -race -shuffle=on -count=1 -timeout 8h ./...
	.ci/fuzz.sh 5m "$$(go env GOCACHE)/fuzz/$$(go list -m)"

bench: assets web build ## all figures, as ratios against their yardsticks
	rm -f build/bench.jsonl
	go test ./internal/bench -run '^TestBench$$' -v -count=1 -timeout 60m -args -bench.out=$(CURDIR)/build/bench.jsonl

bench-%: assets web build
	go test ./internal/bench -run '^TestBench$$' -v -count=1 -timeout 60m -args -bench.out=$(CURDIR)/build/bench.jsonl -bench.only=$*

dist: web assets ## what a controller or a box needs, for linux/amd64 and linux/arm64, into build/dist
	@rm -rf build/dist
	for arch in amd64 arm64; do d=build/dist/linux-$$arch && mkdir -p $$d && \
	  for p in $(PROGRAMS); do GOOS=linux GOARCH=$$arch $(GOBUILD) -o $$d/$$p ./cmd/$$p || exit 1; done && \
	  cp build/assets/onnxruntime/linux-$$arch/libonnxruntime.so.1 LICENSE $$d/ && \
	  cp -r deploy/licences deploy/bin deploy/config deploy/systemd deploy/udev deploy/prometheus deploy/grafana $$d/ || exit 1; \
	done
	cd build/dist && find . -type f ! -name SHA256SUMS -printf '%P\n' | LC_ALL=C sort | xargs sha256sum >SHA256SUMS && cat SHA256SUMS

clean: ## remove what was made, but not the download cache
	rm -rf build web/node_modules
	find controller/api/web/dist -mindepth 1 ! -name .keep -delete 2>/dev/null || true
