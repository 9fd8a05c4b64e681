# What ./demo and ./test share: the cache folder, the checks for programs, and the installation of those that are missing.
# Sourced, not run. Prints what it installs; does nothing the second time.
# shellcheck shell=bash

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/backstay/target}"

# A program that shows that a Debian package is there, and the package. Paths may hold patterns.
BUILD_NEEDS=(
  "cc build-essential"
  "git git"
)
LAB_NEEDS=(
  "nft nftables"
  "ip iproute2"
  "losetup mount"
  "nsenter util-linux"
  "mkfs.ext4 e2fsprogs"
)
POSTGRES_NEEDS=(
  "/usr/lib/postgresql/*/bin/postgres postgresql"
)
TEST_NEEDS=(
  "nbdinfo libnbd-bin"
  "nbdfuse libnbd-bin"
  "fio fio"
  "qemu-io qemu-utils"
  "tcpdump tcpdump"
  "ping iputils-ping"
  "ps procps"
  "curl curl"
  "cmp diffutils"
  "java openjdk-17-jre-headless"
  "python3 python3"
  "pip3 python3-pip"
)

# Virtual machines with another kernel: cargo xtask guest.
GUEST_NEEDS=(
  "qemu-system-x86_64 qemu-system-x86"
  "busybox busybox-static"
  "modprobe kmod"
  "xzcat xz-utils"
  "mkfs.xfs xfsprogs"
)

say() { printf '%s\n' "$*" >&2; }

fail() {
  say "error: $1"
  [ -z "${2:-}" ] || say "hint:  $2"
  exit 1
}

has() {
  case "$1" in
    /*) compgen -G "$1" >/dev/null ;;
    *) command -v "$1" >/dev/null 2>&1 ;;
  esac
}

# Rust comes from rustup, not from Debian: its compiler is too old for this project.
need_rust() {
  [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
  has cargo || fail "no Rust toolchain: cargo is not in the PATH" "install it with rustup (https://rustup.rs), then run this again"
}

need_root() {
  [ "$(id -u)" = 0 ] || fail "$1 needs root: it makes network namespaces, mounts and nftables rules" "run it with sudo"
}

# install_missing "PROGRAM PACKAGE"... : installs the packages whose program is missing.
install_missing() {
  local need missing=()
  for need in "$@"; do
    has "${need% *}" || missing+=("${need#* }")
  done
  [ "${#missing[@]}" -gt 0 ] || return 0
  has apt-get || fail "missing: ${missing[*]}" "install them with this system's package manager"
  need_root "installing ${missing[*]}"
  say "installing: ${missing[*]}"
  fetch "${missing[@]}" || fail "apt-get could not install ${missing[*]}" "see its messages above"
}

# The package lists are refreshed only when the packages cannot be had without that.
fetch() {
  case " $* " in *" postgresql "*) without_a_running_server ;; esac
  apt_get install "$@" && return 0
  say "refreshing the package lists"
  apt-get update -qq >&2 && apt_get install "$@"
}

apt_get() {
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 --no-install-recommends "$@" </dev/null >&2
}

# Debian starts a database server as soon as PostgreSQL is installed; only its programs are wanted here.
without_a_running_server() {
  [ ! -e /etc/postgresql-common/createcluster.conf ] || return 0
  mkdir -p /etc/postgresql-common
  printf 'create_main_cluster = false\n' >/etc/postgresql-common/createcluster.conf
}
