#!/bin/bash
# The guest's rows, run there in the mount. Before each the host is told its name, and answers when it has noted what
# the server has used so far; then it is told `row calls bytes nanoseconds`, and answers when it has noted that.
#   guest.sh MIB CALLS ROW…
set -euo pipefail
mib=$1 calls=$2
shift 2
wanted=" $* "
say() { # what, text
  printf '%s\n' "$2" > "/host/$1.new"
  mv "/host/$1.new" "/host/$1"
  while [ -e "/host/$1" ]; do sleep 0.02; done
}
row() { # name, calls, bytes, command…
  local name=$1 calls=$2 bytes=$3 begin end
  shift 3
  [ "$wanted" = "  " ] || [[ $wanted == *" $name "* ]] || return 0
  # What was written before is not this row's, and nothing is read from the client's memory.
  sync
  echo 3 > /proc/sys/vm/drop_caches
  say begin "$name"
  begin=$(date +%s%N)
  "$@" > /tmp/out 2>&1 || { cat /tmp/out; say failed "$name"; exit 1; }
  end=$(date +%s%N)
  say end "$name $calls $bytes $((end - begin))"
}
large() { dd if=/dev/zero of="$1" bs=1M count="$2" conv=fsync; }
need_large() { [ -e large ] || large large "$mib"; }
random() { # fio's way
  fio --name=row --filename=large --bs=4k --size="${mib}m" --io_size=$((calls * 4))k --randseed=1 "$@"
}
writers() {
  local n each=() pid
  for n in 1 2 3 4 5 6 7 8; do large "writer-$n" $((mib / 8)) & each+=($!); done
  for pid in "${each[@]}"; do wait "$pid"; done
}
create() { mkdir names; seq -f 'names/%g' "$calls" | xargs touch; }
remove() { find names -type f -delete; rmdir names; }
untar() { mkdir -p tree; tar -xf /host/tree.tar -C tree; }
look() { [ "$(find tree -printf '%s\n' | wc -l)" -ge "$files" ]; }
bytes=$((mib << 20)) small=$((calls * 4096))
files=$(tar -tf /host/tree.tar | wc -l)
row write "$((mib))" $bytes large large "$mib"
need_large
row read "$((mib))" $bytes dd if=large of=/dev/null bs=1M
row read-4k "$calls" $small random --rw=randread --direct=1 --ioengine=libaio --iodepth=16
row write-4k-fsync $((calls / 4)) $((small / 4)) random --rw=randwrite --fsync=1 --io_size="$calls"k
row create "$calls" 0 create
row remove "$calls" 0 remove
row untar "$files" "$(stat -c %s /host/tree.tar)" untar
row stat "$files" 0 look
row 8-writers "$((mib))" $bytes writers
