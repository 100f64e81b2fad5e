#!/usr/bin/env bash
# Builds the images with buildah and prints their sizes:
#   localhost/hanlin:VERSION         all binaries, their libraries and the Chinese word table
#   localhost/hanlin-poet:VERSION    the same with the model that ships with Hanlin
#   localhost/hanlin-cuda:VERSION    the first with CUDA libraries, when IMAGE_CUDA names some
# Environment: HANLIN_BUILD, the build folder with the binaries (build); IMAGE_PREFIX (localhost); IMAGE_MODEL, the model
# folder of the second image (models/hanlin-poet; empty = no second image); IMAGE_CUDA, the libraries that the worker loads
# for --device cuda (libcublasLt.so.13, and libnccl.so.2 for groups of several GPUs), separated by spaces; BUILDAH
# (buildah), which may carry options such as --root.
set -euo pipefail
cd "$(dirname "$0")/../.."

build=${HANLIN_BUILD:-build}
prefix=${IMAGE_PREFIX:-localhost}
model=${IMAGE_MODEL-models/hanlin-poet}
read -ra buildah <<<"${BUILDAH:-buildah}"
binaries=(hanlin hanlin-gateway hanlin-tokenizer hanlin-worker)

command -v "${buildah[0]}" >/dev/null || { echo "images: ${buildah[0]} is not installed" >&2; exit 1; }
for binary in "${binaries[@]}"; do
  [ -x "$build/bin/$binary" ] || { echo "images: $build/bin/$binary is missing, build it first" >&2; exit 1; }
done

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
root=$context/root
mkdir -p "$root"/{etc/ssl/certs,tmp,dev,proc,sys,models,usr/{bin,lib,share/{hanlin/models,licenses}}}
chmod 1777 "$root/tmp"
# Where programs look for their loader and libraries.
ln -s usr/lib "$root/lib"
ln -s usr/lib "$root/lib64"
ln -s lib "$root/usr/lib64"

for binary in "${binaries[@]}"; do
  cp "$build/bin/$binary" "$root/usr/bin/"
  strip --strip-unneeded "$root/usr/bin/$binary"
done

# Every library that the loader would open, under the name it asks for. Libraries of the driver (libcuda) are not there
# at link time; the container runtime mounts them.
needed=$(ldd "${binaries[@]/#/$build/bin/}")
mapfile -t libraries < <(grep -oE '/[^ ]+\.so[^ ]*' <<<"$needed" | sort -u)
if grep 'not found' <<<"$needed" >&2; then
  echo "images: a library is missing" >&2
  exit 1
fi
cp -L "${libraries[@]}" "$root/usr/lib/"
# Their licences travel with them. Packages know their files by paths below /usr.
for package in $(realpath "${libraries[@]}" | sort -u | xargs dpkg-query -S 2>/dev/null | cut -d: -f1 | sort -u); do
  cp -L "/usr/share/doc/$package/copyright" "$root/usr/share/licenses/$package"
done

cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
printf 'root:x:0:0::/:/nologin\nhanlin:x:65532:65532::/:/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\nhanlin:x:65532:\n' >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
cp -L "$build/share/hanlin/jieba.bin" "$root/usr/share/hanlin/"

version=$("$build/bin/hanlin" --version | awk '{print $2}')
revision=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
cp deploy/images/Containerfile* "$context/"

# bud IMAGE CONTAINERFILE ARGUMENTS…
bud() {
  "${buildah[@]}" bud --isolation chroot --format oci --quiet --tag "$1" --file "$context/$2" "${@:3}" "$context" >/dev/null
  echo "$1 $("${buildah[@]}" images --format '{{.Size}}' "$1")"
}
image=$prefix/hanlin:$version
bud "$image" Containerfile --build-arg "VERSION=$version" --build-arg "REVISION=$revision"
if [ -n "$model" ]; then
  cp -rL "$model" "$context/model"
  bud "$prefix/$(basename "$model"):$version" Containerfile.model --build-arg "BASE=$image" \
    --build-arg "NAME=$(basename "$model")"
fi
if [ -n "${IMAGE_CUDA:-}" ]; then
  mkdir "$context/cuda"
  read -ra cuda <<<"$IMAGE_CUDA"
  # With what they need in their turn, and the driver too, which is not here to be asked.
  { ldd "${cuda[@]}" | grep -oE '/[^ ]+\.so[^ :]*'; ls /lib/x86_64-linux-gnu/lib{dl.so.2,pthread.so.0,rt.so.1}; } |
    sort -u | xargs cp -Lt "$context/cuda/" "${cuda[@]}"
  bud "$prefix/hanlin-cuda:$version" Containerfile.cuda --build-arg "BASE=$image"
fi
