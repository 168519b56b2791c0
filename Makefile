# `make help` lists what can be made. Everything installs what it needs by itself (scripts/install.sh).
.DEFAULT_GOAL := help
.PHONY: help demo check page test test-long generated regression bench soak build lint fuzz clean

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: build ## Start the demo: PostgreSQL, data, gateway; Ctrl-C stops all of it
	@./target/release/ringfence demo

check: build ## Walk the README's tour against a demo and say what was seen
	@./target/release/ringfence demo --check

build: ## Build the program (target/release/ringfence and ringfence-verify)
	@scripts/install.sh build
	cargo build --release --locked -p ringfence -p ringfence-verifier

page: ## The verifier as one HTML page (target/verify-page/ringfence-verify.html)
	@scripts/install.sh build page
	scripts/page.sh

test: ## Everything that CI runs: format, lints, unit tests, end to end, attacks, crashes, drivers
	@scripts/install.sh build test
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo test --workspace --locked

regression: build ## PostgreSQL's own regression suite, directly and through the gateway; SOURCE=postgresql-15.x
	tests/regression/run.sh $(SOURCE) session
	tests/regression/run.sh $(SOURCE) transaction

bench: build ## Side by side with direct PostgreSQL and PgBouncer; writes bench/RESULTS.md
	@scripts/install.sh bench
	target/bench/python/bin/python bench/run.py

test-long: build ## What takes long and is not in CI: generated sessions, PostgreSQL's regression suite (SOURCE=…), the soak
	@$(MAKE) generated
	tests/regression/run.sh $(SOURCE) session
	tests/regression/run.sh $(SOURCE) transaction
	@$(MAKE) soak

generated: ## Generated sessions against limits, meter and record: SESSIONS (100000)
	@scripts/install.sh build test
	scripts/generated.sh $${SESSIONS:-100000}

soak: build ## An hour of mixed load; says whether anything grew (bench/SOAK.md)
	@scripts/install.sh bench
	target/bench/python/bin/python bench/soak.py $${MINUTES:-60}

fuzz: ## Fuzz every parser of outside bytes, SECONDS_EACH (60) for each
	@scripts/install.sh build
	fuzz/run.sh $${SECONDS_EACH:-60}

clean: ## Remove what was built (the demo's folder stays)
	cargo clean
