# make demo   installs, builds, starts the services and streams a poem
# make test   installs, builds with sanitizers and runs every test
# make build  installs and builds everything into build/, tests and benchmarks too
# make images builds the container images with buildah and prints their sizes
# make lint   clang-format and clang-tidy over the whole tree
export CCACHE_BASEDIR := $(CURDIR)
export PATH := /usr/lib/ccache:$(PATH)
JOBS ?= $(shell nproc)

PROGRAMS := hanlin hanlin-gateway hanlin-tokenizer hanlin-worker

.PHONY: setup programs build demo test lint format clean images

setup:
	@tools/setup.sh

programs: setup
	@cmake --preset release >/dev/null
	@ninja -C build -j $(JOBS) $(PROGRAMS)

build: setup
	@cmake --preset release >/dev/null
	@ninja -C build -j $(JOBS)

demo: programs
	@tools/demo.sh

test: setup
	@cmake --preset asan >/dev/null
	@ninja -C build-asan -j $(JOBS)
	@ctest --test-dir build-asan --output-on-failure -j $(JOBS)

images: programs
	@deploy/images/build.sh

lint: build
	@tools/lint.sh --all

format:
	@git ls-files '*.h' '*.cc' | xargs clang-format -i

clean:
	@rm -rf build build-asan
