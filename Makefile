# What a person types. Everything that a target needs, it installs or fetches itself.
.PHONY: setup build demo up docs test fuzz check bench clean

export PATH := $(CURDIR)/node_modules/.bin:$(CURDIR)/target/tools/bin:$(PATH)

# Installs what is missing; takes no time when nothing is.
setup:
	@scripts/setup

build: setup
	@scripts/build-edge
	@cargo build --quiet -p xora-node -p xora-tests

# Runs the main job on a real file and shows what comes of it. INPUT=path-or-url takes another file.
demo: build
	@scripts/media
	@INPUT="$(INPUT)" PORT="$(PORT)" target/debug/demo

# The edge and NODES nodes on PORT, until interrupted.
up: build
	@NODES="$(NODES)" PORT="$(PORT)" exec target/debug/up

# The description of the API and its page, from the types and docs/guide.md.
docs:
	@cargo run --quiet -p xora-docs

# All tests, against a real edge and a real node.
test: build
	@scripts/setup s3s-fs
	@scripts/setup fuzzer
	@scripts/media
	@cargo test --quiet

# Ten minutes of requests made from the description of the API; `make test` has one.
fuzz: build
	@scripts/setup fuzzer
	@scripts/media
	@FUZZ_SECONDS=600 cargo test --quiet -p xora-tests --test e2e fuzz

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
