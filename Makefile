# Builds tiflow, tests it, shows it.  `make help` lists the targets.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
# bpftool is in sbin, which a user's PATH leaves out.
export PATH := $(PATH):/usr/sbin:/sbin

PACKAGES := $(shell sed '/^\#/d' packages.txt)
OUT := dist
MODULES := node_modules/.package-lock.json
GENERATED := src/boundary/abi.gen.ts
BPF_OBJECT := bpf/boundary.bpf.o
# clang does not look into the multiarch directory when the target is bpf.  v3: 32-bit atomics.
BPF_FLAGS := -O2 -g -target bpf -mcpu=v3 -Wall -Wextra -Werror -Ibpf -I/usr/include/$(shell uname -m)-linux-gnu
# What is run is what has a source: tsc leaves the output of files that are gone.
TESTS = find test -name '*.test.ts' | sed -e 's,^,$(OUT)/,' -e 's,ts$$,js,' | sort
# Two files at a time: most of a test is waiting, and its networks and names are its own.
RUN_TESTS := node --test --test-concurrency=2 --test-reporter=spec --test-reporter-destination=stdout
RUNGS := --test-reporter=./$(OUT)/test/rungs.js --test-reporter-destination=stdout
# Folders whose tests need root, network namespaces or BPF; all others run in `make check`.
ROOT_FOLDERS := attack boundary bpf cases guest-net kernel libc libvirt link matrix migrate-qemu net vm
NEEDS_ROOT := $(foreach folder,$(ROOT_FOLDERS),-e '^$(OUT)/test/$(folder)/')
NEWER = $(shell find src test bench -name '*.ts' 2>/dev/null)

##: first steps
.PHONY: help
help: ## this list
	@sed -n -e 's/^##: \(.*\)/\n\1/p' -e 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

.PHONY: build
build: packages $(MODULES) $(BPF_OBJECT) $(OUT)/.built tiflow ## everything; leaves ./tiflow
	@echo 'built: ./tiflow'

.PHONY: demo
demo: build root ## an ssh session and a transfer go on while their server moves
	./tiflow lab run paper --show

.PHONY: demo-vm
demo-vm: build root ## a real guest goes to a hypervisor in another subnet, its connections with it
	./tiflow lab run vm-live-hypervisor --show

##: before a commit
.PHONY: check
check: $(MODULES) format types units abi-check ## format, types, lint, units: no root, under a minute

.PHONY: test
test: build root format types abi-check ## everything, of long series a sample: 30 minutes at most
	$(RUN_TESTS) $(RUNGS) $$($(TESTS))

.PHONY: test-all
test-all: ## `make test` with every family, fault, stage and seed instead of samples: hours
	TIFLOW_TEST_ALL=1 $(MAKE) test

.PHONY: bench
bench: build root ## measurements side by side, as ratios; writes bench/results.json
	node $(OUT)/bench/main.js

##: parts
.PHONY: middleboxes
middleboxes: build root ## play the middlebox matrix; writes docs/MIDDLEBOXES.md
	./tiflow lab run matrix --page docs/MIDDLEBOXES.md

.PHONY: hosts
hosts: build root ## play the cases of hosts with other software; writes docs/HOSTS.md
	./tiflow lab run hosts --page docs/HOSTS.md

.PHONY: format
format: $(MODULES) ## format and lint
	npx biome ci --colors=off --error-on-warnings .

.PHONY: types
types: $(OUT)/.built ## TypeScript

.PHONY: units
units: $(OUT)/.built $(BPF_OBJECT) ## tests that need no root
	$(RUN_TESTS) $$($(TESTS) | grep -v $(NEEDS_ROOT))

.PHONY: abi
abi: $(MODULES) ## write src/boundary/abi.gen.ts from bpf/abi.h
	@$(call generate-abi,$(GENERATED).new)
	@mv $(GENERATED).new $(GENERATED)

.PHONY: abi-check
abi-check: $(MODULES) ## is src/boundary/abi.gen.ts what bpf/abi.h says?
	@mkdir -p $(OUT)
	@$(call generate-abi,$(OUT)/abi.gen.ts.new)
	@diff -u $(GENERATED) $(OUT)/abi.gen.ts.new || { echo 'run `make abi`'; exit 1; }

.PHONY: clean
clean: ## remove what was built; node_modules stay
	rm -rf $(OUT) tiflow $(BPF_OBJECT)

# The generator is compiled alone: it must work when the file that it writes is missing.
define generate-abi
npx tsc --ignoreConfig --outDir $(OUT)/generate --target ES2022 --module NodeNext --types node \
  --strict src/boundary/generate-abi.ts
node $(OUT)/generate/generate-abi.js bpf/abi.h \
  | npx biome format --stdin-file-path=$(GENERATED) > $(1)
endef

$(BPF_OBJECT): bpf/boundary.bpf.c $(wildcard bpf/*.h)
	clang $(BPF_FLAGS) -c $< -o $@

# tsc leaves its output even when it finds errors: the stamp says that it found none.
$(OUT)/.built: $(MODULES) tsconfig.json $(NEWER)
	npx tsc --outDir $(OUT)
	@touch $@

tiflow: Makefile
	@printf '%s\n' '#!/bin/sh' '# Runs the CLI, or the lab, from this checkout.' \
	  'part=cli; [ "$${1-}" = lab ] && part=lab' \
	  'exec node "$$(dirname "$$(readlink -f "$$0")")/$(OUT)/src/$$part/main.js" "$$@"' > $@
	@chmod +x $@

node_modules/.package-lock.json: package-lock.json
	npm ci --no-audit --no-fund
	@touch $@

# Of what the lab's programs come with as system services, none is needed.  invoke-rc.d(8) asks this file.
POLICY := /usr/sbin/policy-rc.d
SERVICES := postgresql nginx redis-server rsync
quiet-services = [ -e $(POLICY) ] || { trap 'rm -f $(POLICY)' EXIT; \
  printf '\#!/bin/sh\nexit 101\n' > $(POLICY); chmod +x $(POLICY); }

.PHONY: packages
packages:
	@missing=$$(for p in $(PACKAGES); do \
	    [ "$$(dpkg-query -W -f '$${db:Status-Status}' $$p 2>/dev/null)" = installed ] || echo $$p; \
	  done | xargs); \
	if [ -n "$$missing" ]; then \
	  [ "$$(id -u)" = 0 ] || { echo "missing, install them as root: apt-get install $$missing"; exit 1; }; \
	  $(quiet-services); \
	  had=" $$(ls /etc/init.d | xargs) "; \
	  apt-get update -q && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -q -y --no-install-recommends $$missing; \
	  for p in $(SERVICES); do \
	    case "$$had" in *" $$p "*) ;; *) update-rc.d $$p disable;; esac; \
	  done; \
	fi

.PHONY: root
root:
	@[ "$$(id -u)" = 0 ] || { echo 'needs root: network namespaces and BPF'; exit 1; }
