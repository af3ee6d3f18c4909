#!/bin/bash
# How fast tain-journal reads: verify, dump, stats and archive over a journal of about 1 GiB, of records made of the format's samples:
# WRITEs of 64 KiB with operations on names between them. Five rounds each, the median in MiB of journal a second; the journal lies in the page cache.
#   benches/tools.sh [JOURNAL]      an existing journal instead
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --workspace --quiet
bin=$PWD/target/release
work=$(mktemp -d "${TMPDIR:-/var/tmp}/tain-bench.XXXXXX")
trap 'rm -rf "$work"' EXIT
journal=${1:-}
if [ -z "$journal" ]; then
  # A journal of the format's own samples, 1 GiB: every kind of record, small ones and 64 KiB of data in turn.
  cargo run --release --quiet --package journal-format --example big -- "$work/journal" 1024
  journal=$work/journal
fi
bytes=$("$bin/tain-journal" info --json "$journal" | sed 's/.*"end_lsn":\([0-9]*\).*/\1/')
start=$("$bin/tain-journal" info --json "$journal" | sed 's/.*"start_lsn":\([0-9]*\).*/\1/')
mib=$(((bytes - start) / 1048576))
echo "journal: $mib MiB"
median() { sort -n | sed -n 3p; }
measure() { # name, command…
  local name=$1 ms; shift
  ms=$(for _ in 1 2 3 4 5; do
    rm -rf "$work/archive"
    local begin=$(date +%s%N)
    "$@" >/dev/null
    echo $((($(date +%s%N) - begin) / 1000000))
  done | median)
  echo "$name: $ms ms, $((mib * 1000 / (ms > 0 ? ms : 1))) MiB/s"
}
measure "verify" "$bin/tain-journal" verify "$journal"
measure "dump, text" "$bin/tain-journal" dump "$journal"
measure "dump, JSON" "$bin/tain-journal" dump --json "$journal"
measure "dump, one kind" "$bin/tain-journal" dump --kind Cursor "$journal"
measure "stats" "$bin/tain-journal" stats "$journal"
measure "archive" "$bin/tain-journal" archive "$journal" "$work/archive"
"$bin/tain-journal" archive "$journal" "$work/archive" >/dev/null
echo "archives: $(du -sm "$work/archive" | cut -f1) MiB"
