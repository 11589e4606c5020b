#!/usr/bin/env bash
# Runs a model that is larger than what a memory control group of version 2 allows:
# test-cgroup-v2.sh [BINARY [MODEL]]
#
# Where version 1 holds the memory controller, as on the machines that this was written on, version
# 2 cannot be tried; so this boots Debian's kernel in a virtual machine (emulated: no rights and no
# support of the processor are needed, and no speed is measured) with nothing but a shell, the
# program and the model in it. What is checked there stands in scripts/cgroup-v2/init.sh. Takes a
# minute. Needs Debian on x86-64; installs qemu-system-x86 and busybox-static (which replaces
# busybox), as root, and downloads a kernel.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${1:-build/bin/modelembed} model=${2:-models/SmolLM2-135M-Instruct.Q4_1.gguf}

say() { echo "test-cgroup-v2: $*" >&2; }
die() { say "$*"; exit 1; }

[ -x "$binary" ] || die "$binary not found: run scripts/build.sh, or name a binary"
[ -f "$model" ] || die "$model not found: run scripts/fetch-model.sh, or name a model"
[ "$(uname -m)" = x86_64 ] && command -v apt-get >/dev/null || die "needs Debian on x86-64, whose kernel and packages it uses"

missing=()
for package in qemu-system-x86 busybox-static cpio xz-utils e2fsprogs util-linux; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    [ "$(id -u)" = 0 ] || die "${missing[*]} missing: install them, or run this as root once"
    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
fi

work=$(mktemp -d)
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT

# The kernel is unpacked, not installed: this machine keeps its own.
kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: //p' | head -1 || true)
[ -n "$kernel" ] || die "no package linux-image-cloud-amd64: apt-get update"
say "unpacking $kernel"
(cd "$work" && apt-get -qq download "$kernel" && dpkg -x "$kernel"_*.deb kernel) ||
    die "$kernel could not be downloaded (see above; old package lists are renewed by apt-get update)"

# What the machine boots from memory: shell, modules for its disk, and the libraries of what runs
# there.
root=$work/root
mkdir -p "$root"/{bin,modules,proc,sys,dev,disk}
cp "$(command -v busybox)" "$root/bin/busybox"
cp "$(command -v unshare)" "$root/unshare"
cp scripts/cgroup-v2/init.sh "$root/init"
for module in virtio virtio_ring virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk; do
    found=$(find "$work/kernel" -name "$module.ko*")
    case $found in
        *.ko) cp "$found" "$root/modules" ;;
        *.ko.xz) xz -dc "$found" >"$root/modules/$module.ko" ;;
        *) ;; # built in
    esac
done
# Where the loader finds them: each at its own path, links followed.
# A static program has none.
{ ldd "$binary" || true; ldd "$root/unshare"; } 2>/dev/null | grep -oE '/[^ ]+' | sort -u | while read -r library; do
    mkdir -p "$root${library%/*}"
    cp -L "$library" "$root$library"
done
(cd "$root" && find . | cpio -o -H newc --quiet) >"$work/initramfs"

# Its disk: a file system whose pages the cache can give up, and which allows direct reads.
mkdir "$work/disk"
cp -L "$model" "$work/disk/model.gguf"
cp "$binary" "$work/disk/modelembed"
# A mixture of experts of which most are experts: one layer of OLMoE's shape.
"$binary" bench -synthetic olmoe-7b-a1b:q4_k_m -layers 1 -out "$work/disk/mixture.gguf" -vocab "$model" >/dev/null
bytes=$(du -sb "$work/disk" | cut -f1)
mke2fs -q -F -t ext4 -d "$work/disk" "$work/disk.img" "$((bytes / 1048576 + 64))M" >/dev/null

say "booting"
timeout --foreground 1500 qemu-system-x86_64 -cpu max -smp 2 -m 1536 -display none -serial stdio -monitor none -no-reboot -nic none \
    -kernel "$work"/kernel/boot/vmlinuz-* -initrd "$work/initramfs" -append "console=ttyS0 quiet panic=-1" \
    -drive "file=$work/disk.img,format=raw,if=virtio" </dev/null | tr -d '\r' | tee "$work/log" || true
grep -q '^all checks passed$' "$work/log" || die "not all checks passed"
