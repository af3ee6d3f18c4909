#!/bin/bash
# How fast tain-journal reads: verify, dump, stats and archive, in MiB of journal a second, medians of five rounds; the
# journal lies in the page cache. Once over 1 GiB of WRITEs of 64 KiB with four small records beside each (operations on
# names, cursors), once over 128 MiB of nothing but such small ones.
#   benches/tools.sh [JOURNAL]      an existing journal instead
set -euo pipefail
cd "$(dirname "$0")/.."
# Without `replay` the tools need nothing of the service, and are built in no time; beside the ordinary build.
target=$PWD/target/tools
cargo build --release --package tain-tools --no-default-features --target-dir "$target" --quiet
bin=$target/release
work=$(mktemp -d "${TMPDIR:-/var/tmp}/tain-bench.XXXXXX")
trap 'rm -rf "$work"' EXIT
median() { sort -n | sed -n 3p; }
measure() { # journal, MiB, name, command…
  local journal=$1 mib=$2 name=$3 ms begin; shift 3
  ms=$(for _ in 1 2 3 4 5; do
    rm -rf "$work/archive"
    begin=$(date +%s%N)
    "$@" >/dev/null
    echo $((($(date +%s%N) - begin) / 1000000))
  done | median)
  printf '%-16s %6d ms %6d MiB/s\n' "$name" "$ms" $((mib * 1000 / (ms > 0 ? ms : 1)))
}
all() { # journal
  local journal=$1 info mib number
  info=$("$bin/tain-journal" info --json "$journal")
  number() { sed "s/.*\"$1\":\([0-9]*\).*/\1/" <<<"$info"; }
  mib=$((($(number end_lsn) - $(number start_lsn)) / 1048576))
  echo "journal: $mib MiB"
  measure "$journal" $mib "verify" "$bin/tain-journal" verify "$journal"
  measure "$journal" $mib "dump, text" "$bin/tain-journal" dump "$journal"
  measure "$journal" $mib "dump, JSON" "$bin/tain-journal" dump --json "$journal"
  measure "$journal" $mib "dump, one kind" "$bin/tain-journal" dump --kind Cursor "$journal"
  measure "$journal" $mib "stats" "$bin/tain-journal" stats "$journal"
  measure "$journal" $mib "archive" "$bin/tain-journal" archive "$journal" "$work/archive"
  "$bin/tain-journal" archive "$journal" "$work/archive" >/dev/null
  echo "archives: $(du -sm "$work/archive" | cut -f1) MiB"
}
if [ $# -gt 0 ]; then
  all "$1"
  exit
fi
cargo build --release --package journal-format --example big --target-dir "$target" --quiet
"$bin/examples/big" "$work/data" 1024
all "$work/data"
rm -rf "$work/data" "$work/archive"
"$bin/examples/big" "$work/small" 128 small
all "$work/small"
