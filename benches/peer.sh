#!/bin/bash
# tain beside nfs-ganesha with its VFS back end: the same disk, the same load, one after the other, journaling on.
#
#   benches/peer.sh [raw|guest] [ROUNDS] [ROW…]
#
# raw    NFSv3 calls straight from benches/peer, many in flight: no client's cost
# guest  programs on a mount of a Linux kernel client, in tests/support/realclient's guest
#
# Rounds (default 3) are interleaved A B, B A, …; each begins with a fresh directory and a fresh server. The table's
# figures are medians, its ratios medians of the rounds' ratios: above 1 is tain's favour in speed, below 1 in CPU.
# CPU is that of the server's process; what its writes cost the kernel's own threads is not in it, for neither.
#
# TAIN_BENCH_DIR     where both keep everything (default target/): a disk with 8 GiB to spare
# TAIN_BENCH_MIB     size of large files (default 1024)
# TAIN_BENCH_CALLS   small operations of a row (default 10000)
# TAIN_BENCH_TREE    files of the tree (default 20000)
# TAIN_BENCH_TAIN    the service's binary (default: built from here)
# TAIN_BENCH_BEFORE  another build's binary, to be measured in ganesha's place: what a change has brought
# TAIN_BENCH_LOAD    the raw load's binary (default: built from here)
# TAIN_BENCH_KEEP    a directory for the rounds' figures (default: thrown away)
#
# Needs root, and the Debian packages nfs-ganesha and nfs-ganesha-vfs (it installs nothing); for guest also fio, and what
# tests/support/realclient/setup has made.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD/benches/peer
what=raw rounds=3
case ${1:-} in raw|guest) what=$1; shift ;; -h|--help) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"; exit ;; esac
if [[ ${1:-} =~ ^[0-9]+$ ]]; then rounds=$1; shift; fi
mib=${TAIN_BENCH_MIB:-1024} calls=${TAIN_BENCH_CALLS:-10000} tree=${TAIN_BENCH_TREE:-20000}

die() { echo "peer: $*" >&2; exit 2; }
[ "$(id -u)" = 0 ] || die "needs root: both servers keep owners"
need() { command -v "$1" >/dev/null || die "$1 is missing: apt-get install --no-install-recommends $2"; }
before=${TAIN_BENCH_BEFORE:-} other=ganesha
if [ -n "$before" ]; then
  other=before
else
  need ganesha.nfsd "nfs-ganesha nfs-ganesha-vfs"
  need rpcbind rpcbind
  dpkg -L nfs-ganesha-vfs >/dev/null 2>&1 || die "apt-get install --no-install-recommends nfs-ganesha-vfs"
fi
[ $what = raw ] || need fio fio

if [ -z "${TAIN_BENCH_TAIN:-}" ]; then cargo build --release --quiet --bin tain; fi
tain=${TAIN_BENCH_TAIN:-$PWD/target/release/tain}
peer=${TAIN_BENCH_LOAD:-$(cargo bench --no-run --bench peer 2>&1 | sed -n 's/.*Executable.*(\(.*\))$/\1/p')}
[ -x "$peer" ] || die "benches/peer was not built"

work=$(mktemp -d "${TAIN_BENCH_DIR:-$PWD/target}/peer.XXXXXX")
keep=${TAIN_BENCH_KEEP:-$work/figures}
mkdir -p "$keep"
server=
finish() {
  stop_any || true
  rm -rf "$work"
}
trap finish EXIT

# Each start sets pid, port, mount_port and export.
start_ganesha() {
  mkdir "$work/export"
  "$here/ganesha" start "$work/export" --port 12049 --state "$work/ganesha" >/dev/null
  server=ganesha pid=$(cat "$work/ganesha/pid") port=12049 mount_port=12050 export=$work/export
}
stop_ganesha() { "$here/ganesha" stop --state "$work/ganesha"; }

start_tain() { start_build "$tain"; }
start_before() { start_build "$before"; }
start_build() { # binary
  mkdir -p "$work/export" "$work/tain"
  port=12051 mount_port=12051 export=/bench
  export TAIN_API=http://127.0.0.1:12052
  cat > "$work/tain/tain.toml" <<C
[journal]
dir = "$work/tain/journal"
[state]
dir = "$work/tain/state"
[nfs]
listen = "127.0.0.1:$port"
[api]
listen = "127.0.0.1:12052"
C
  "$1" serve --config "$work/tain/tain.toml" </dev/null >"$work/tain/log" 2>&1 &
  pid=$! server=tain
  for _ in $(seq 300); do "$tain" status >/dev/null 2>&1 && break; sleep 0.1; done
  "$tain" filer add bench "posix://$work/export" >/dev/null
  "$tain" junction add $export bench:/ >/dev/null 2>&1
}
stop_tain() { kill "$pid"; wait "$pid"; }

stop_any() {
  case $server in '') return ;; esac
  local it=$server
  server=
  "stop_$it"
}

raw_round() { # figures
  "$peer" run --port "$port" --mount-port "$mount_port" --export "$export" --pid "$pid" \
    --mib "$mib" --calls "$calls" --tree "$tree" "${@:2}" > "$1"
}

used() { # seconds of processor, peak MiB
  awk -v hz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); print ($12 + $13 + $14 + $15) / hz }' "/proc/$pid/stat"
  awk '/VmHWM/ { print int($2 / 1024) }' "/proc/$pid/status"
}

guest_round() { # figures
  local share=$work/share before after line guest
  rm -rf "$share"
  mkdir "$share"
  cp "$here/guest.sh" "$share/"
  # A tree that every machine with a C compiler has, owners and times among it.
  tar -cf "$share/tree.tar" -C / usr/include/linux
  tests/support/realclient/run --port "$port" --mountport "$mount_port" --export "$export" --share "$share:rw" \
    --timeout 3600 -- "bash /host/guest.sh $mib $calls ${*:2}" > "$share/out" 2>&1 &
  guest=$!
  : > "$1"
  while kill -0 $guest 2>/dev/null; do
    if [ -e "$share/begin" ]; then
      echo 5 > "/proc/$pid/clear_refs"
      mapfile -t before < <(used)
      rm "$share/begin"
    elif [ -e "$share/end" ]; then
      mapfile -t after < <(used)
      read -ra line < "$share/end"
      awk -v OFS='\t' -v cpu="${after[0]}" -v before="${before[0]}" -v peak="${after[1]}" -v ns="${line[3]}" \
        -v row="${line[0]}" -v calls="${line[1]}" -v bytes="${line[2]}" \
        'BEGIN { print row, calls, bytes, ns / 1e9, 0, 0, cpu - before, peak }' >> "$1"
      rm "$share/end"
    elif [ -e "$share/failed" ]; then
      rm "$share/failed"
    else
      sleep 0.02
    fi
  done
  wait $guest || { cat "$share/out" >&2; die "the guest's load failed on $server"; }
}

round() { # server, number, ROW…
  local who=$1 number=$2
  rm -rf "$work/export" "$work/tain" "$work/ganesha"
  sync
  "start_$who"
  "${what}_round" "$keep/$what.$who.$number" "${@:3}"
  stop_any
  echo "round $number: $who done" >&2
}

for ((r = 1; r <= rounds; r++)); do
  order="tain $other"
  [ $((r % 2)) = 1 ] || order="$other tain"
  for who in $order; do round "$who" "$r" "$@"; done
done
figures() { for ((r = 1; r <= rounds; r++)); do echo "$keep/$what.$1.$r"; done; }
# shellcheck disable=SC2046
"$peer" table "tain,$other" $(figures tain) -- $(figures $other)
