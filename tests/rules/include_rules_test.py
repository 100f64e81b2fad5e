"""Holds every #include against the table of who may include whom (ARCHITECTURE.md). Run: include_rules_test.py REPOSITORY."""
import pathlib
import re
import sys

ROOT = pathlib.Path(sys.argv[1])
# folder: folders it may include beside itself. The longest matching prefix of a path decides.
MAY_INCLUDE = {
    "common": {"common"},
    "kernels": {"common"},
    "model": {"common", "kernels"},
    "tokenizer_svc/core": {"common"},
    "tokenizer_svc": {"common", "tokenizer_svc", "hanlin/v1"},
    "worker/engine": {"common", "kernels", "model"},
    "worker": {"common", "kernels", "model", "worker", "hanlin/v1"},
    "gateway": {"common", "tokenizer_svc/core", "tokenizer_svc/wire", "hanlin/v1"},
    "trainer": {"common", "kernels", "model", "tokenizer_svc/core"},
    "cli": {"common", "kernels", "model", "tokenizer_svc", "worker", "gateway", "trainer", "hanlin/v1"},
}
# No gRPC and no protobuf below the services.
NO_RPC = ("kernels", "model", "trainer", "worker/engine", "tokenizer_svc/core")
RPC = re.compile(r"^(grpc|grpcpp|google/protobuf|hanlin/v1|common/rpc)/")
INCLUDE = re.compile(r'^\s*#include\s+["<]([^">]+)[">]')


def longest(path, keys):
    found = [k for k in keys if path == k or path.startswith(k + "/")]
    return max(found, key=len) if found else None


def check(path):
    """Yields one message for every rule that `path` breaks."""
    relative = path.relative_to(ROOT).as_posix()
    folder = longest(relative, MAY_INCLUDE)
    is_test = relative.endswith(("_test.cc", "_benchmark.cc")) or "/testing/" in relative
    lines = path.read_text(encoding="utf-8").split("\n")
    if not lines[0].startswith("//"):
        yield f"{relative}:1: a file opens with a comment that says what it is"
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        if not match or folder is None:
            continue
        target = match.group(1)
        if is_test:
            continue
        if longest(relative, NO_RPC) and RPC.match(target):
            yield f"{relative}:{number}: {folder} must not see gRPC or protobuf ({target})"
        owner = longest(target, list(MAY_INCLUDE) + ["hanlin/v1"])
        if owner is None:
            continue
        allowed = MAY_INCLUDE[folder] | {folder}
        if not any(target.startswith(prefix + "/") for prefix in allowed):
            yield f"{relative}:{number}: {folder} must not include {target}"


def main():
    files = [p for top in {k.split("/")[0] for k in MAY_INCLUDE} if (ROOT / top).exists()
             for ending in ("*.h", "*.cc", "*.cu", "*.cuh") for p in sorted((ROOT / top).rglob(ending))]
    if len(files) < 20:
        sys.exit(f"only {len(files)} files found under {ROOT}")
    broken = [message for path in files for message in check(path)]
    print("\n".join(broken))
    sys.exit(1 if broken else 0)


main()
