# What a person types. Everything that a target needs, it installs or fetches itself.
.PHONY: setup build demo up docs test test-more fuzz check bench clean

export PATH := $(CURDIR)/node_modules/.bin:$(CURDIR)/target/tools/bin:$(PATH)

# Installs what is missing; takes no time when nothing is.
setup:
	@scripts/setup system edge

build:
	@scripts/build

# Runs the main job on a real file and shows what comes of it. INPUT=path-or-url takes another file.
demo: build
	@INPUT="$(INPUT)" PORT="$(PORT)" target/debug/demo

# The edge and NODES nodes on PORT, until interrupted.
up: build
	@NODES="$(NODES)" PORT="$(PORT)" exec target/debug/up

# The description of the API and its page, from the types and docs/guide.md.
docs:
	@cargo run --quiet -p xora-docs

# Two tests a core: those that start processes mostly wait.
tests = RUST_TEST_THREADS=$$((2 * $$(nproc))) cargo test --quiet

# What every change must pass, against a real edge and a real node. About 10 minutes on two cores.
test:
	@scripts/build tests
	@$(tests)

# The slow tests. Who changes what one of them covers runs it: `make test-more ONLY=fuzz` runs those of that name.
test-more:
	@scripts/build tests
	@scripts/setup fuzzer
	@$(tests) --test more $(ONLY)

# SECONDS of requests (600) made from the description of the API; `make test-more` has 60.
fuzz:
	@scripts/build tests
	@scripts/setup fuzzer
	@FUZZ_SECONDS=$(or $(SECONDS),600) $(tests) --test more fuzz

check: setup
	@scripts/check

# The figures, as paired runs on this machine.
bench: setup
	@scripts/media
	@scripts/build-edge deploy
	@cargo build --quiet --release -p xora-node -p xora-tests
	@target/release/bench

clean:
	rm -rf .dev edge/build out
