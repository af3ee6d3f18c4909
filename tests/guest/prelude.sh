# What both guests begin with. The caller sets $me; /host is shared with the test.
#
# Each kind of command is a function that runs again and again until /host/stop is there. Before and after each run a
# name is made below marks/: its event in the journal says, as an LSN, where the run began and where it ended.
set -u
fail() { echo "FAILED: $*" >&2; touch /host/failed; exit 1; }
run() { # kind
  local n=0
  while [ ! -e /host/stop ]; do
    n=$((n + 1))
    : > marks/mark.$1.$n.begin || fail "$1 $n: mark"
    "$1" $n > /host/out.$1 2>&1 || fail "$1 $n: status $?: $(tail -c 1500 /host/out.$1)"
    : > marks/mark.$1.$n.end || fail "$1 $n: mark"
    : > /host/ran.$1
  done
}
every() { # kinds…
  local pids=() p k
  for k in "$@"; do run $k & pids+=($!); done
  for p in "${pids[@]}"; do wait $p || exit 1; done
}
# Number and device of each mount change when it is mounted again.
mounts() { grep ' - nfs ' /proc/self/mountinfo; }
still_mounted() {
  [ "$(mounts)" = "$mounted" ] || fail "mounted again: $mounted -- now: $(mounts)"
  # What the kernel says when a server is not itself any more.
  ! dmesg | grep -iE 'nfs.*(fileid|stale|error|wrote zero|bad cookie|loop)' || fail "the kernel complains"
}
# Every byte is read from the server again, not from this client's cache.
sums() {
  sync
  echo 3 > /proc/sys/vm/drop_caches || fail "drop caches"
  find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum > /host/sums || fail sums
  find . -mindepth 1 \( -type d -printf '%P %y %m\n' -o -printf '%P %y %m %s %T@ %l\n' \) | LC_ALL=C sort > /host/list || fail list
}
