# The targets that people and CI use. `make help` lists them.
# Everything is built in one target directory under the user's cache, so that a second checkout or a second run is short.
CACHE := $(or $(GRAPHPLANE_CACHE_DIR),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/graphplane)
export CARGO_TARGET_DIR ?= $(CACHE)/target
export PATH := $(CACHE)/bin:$(HOME)/.cargo/bin:$(PATH)
DATA_DIR ?= .graphplane
KUBE_PORT ?= 6443
API_PORT ?= 8000
BIN := $(CARGO_TARGET_DIR)/debug

FUZZ_SECONDS ?= 15

.PHONY: help up test fuzz lint fmt bench build setup engines generate check-generated deny clean

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 18

up: build ## Build and start the whole control plane on this machine, until Ctrl-C
	@mkdir -p bin && ln -sf $(BIN)/graphplane $(BIN)/graphplane-node-agent bin/
	@if [ -x $(CACHE)/bin/kubectl ]; then ln -sf $(CACHE)/bin/kubectl bin/; fi
	@exec $(BIN)/graphplane up --data-dir $(DATA_DIR) --kube-port $(KUBE_PORT) --api-port $(API_PORT)

# The build of the tests makes the programs too; the scenarios take those instead of building them once more by themselves.
test: engines ## Run every test
	GRAPHPLANE_BIN=$(BIN) cargo test --workspace --locked --no-fail-fast

fuzz: setup ## Run every fuzz target for FUZZ_SECONDS
	@scripts/fuzz.sh $(FUZZ_SECONDS)

lint: engines check-generated ## Formatting, clippy without warnings, generated files, shell scripts, CloudFormation
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	shellcheck scripts/*.sh .ci/run cloudformation/*.sh cloudformation/node/*.sh
	"$$(scripts/venv.sh tests/python/requirements.txt)/bin/cfn-lint" cloudformation/*.yaml

build: engines
	cargo build --locked -p graphplane-cli -p graphplane-node-agent

# The benches that call the engines in process are part of the crate that links them. BENCH picks some by name.
PLANE_BENCHES := ready point-query idle store control
ENGINE_BENCHES := materialize queries streams staging many vectors
BENCH ?= $(PLANE_BENCHES) $(ENGINE_BENCHES)

bench: engines ## Run the benches with release builds and print the figures (BENCH=name picks)
	$(if $(filter $(PLANE_BENCHES),$(BENCH)),cargo build --release --locked --workspace --bins)
	$(if $(filter $(PLANE_BENCHES),$(BENCH)),$(CARGO_TARGET_DIR)/release/graphplane-benches $(filter $(PLANE_BENCHES),$(BENCH)))
	$(if $(filter $(ENGINE_BENCHES),$(BENCH)),cargo bench --locked --workspace --bench engines -- $(filter $(ENGINE_BENCHES),$(BENCH)))

generate: engines ## Write the generated files: CRDs, tiers, OpenAPI
	cargo run -q --locked -p graphplane-crds --bin crdgen
	cargo run -q --locked -p graphplane-api --example openapi > api/openapi.json
	cargo build -q --locked --workspace --examples && $(BIN)/examples/agent_openapi > node-agent/openapi.json

# Of node-agent/openapi.json a test of the agent says whether it is the present one: to build the agent for lint alone
# would compile Lance once more, with other features of what it shares with the rest.
check-generated: engines
	cargo run -q --locked -p graphplane-crds --bin crdgen -- --check
	cargo run -q --locked -p graphplane-api --example openapi | diff -u api/openapi.json - >/dev/null || \
	  { echo "api/openapi.json is not what the code says; run: make generate" >&2; exit 1; }

fmt: ## Format the code
	cargo fmt --all

deny: ## Check licences and duplicate versions (needs cargo-deny)
	cargo deny --locked check licenses bans sources

setup: ## Install what is missing: compilers, linker, kubectl
	@scripts/setup.sh

engines: setup ## Make the engines' libraries available
	@scripts/engines.sh

clean: ## Remove what was built for this checkout
	rm -rf .engines bin
	cargo clean
