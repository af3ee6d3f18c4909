# Has mounted `/` and crosses into the junction.
cd /mnt/projects/demo || fail "crossing into the junction"
mounted=$(mounts)
[ "$(wc -l <<< "$mounted")" = 2 ] || fail "not a file system of its own: $mounted"
# The tree above the junction is a directory like any other to those who walk it. (Below b the other guest is at work.)
for walk in 'find /mnt -path /mnt/projects/demo/b -prune -o -print' 'find /mnt -xdev' 'ls -la /mnt /mnt/projects .' \
  'ls -lR made' 'du -a --exclude=b /mnt' 'stat /mnt /mnt/projects .'; do
  said=$($walk 2>&1 > /dev/null) && [ -z "$said" ] || fail "$walk: $said"
done
[ "$(find /mnt -path /mnt/projects/demo/b -prune -o -name main.rs -print)" = /mnt/projects/demo/made/src/main.rs ] ||
  fail "find: $(find /mnt -name main.rs)"
[ "$(pwd -P)" = /mnt/projects/demo ] && mountpoint -q . && ! mountpoint -q .. || fail "where am I: $(pwd -P)"
[ "$(ls -di .. | cut -d' ' -f1)" = "$(ls -di /mnt/projects | cut -d' ' -f1)" ] || fail "the directory above"
mkdir a && cd a && mkdir marks || fail mkdir
# By turns into one of two directories: at any instant the one of the last run that ended is whole.
untar() {
  local to=untar.$(($1 % 2))
  rm -rf $to && mkdir $to && tar xpf /host/src.tar -C $to && diff -r --no-dereference /host/src $to/src
}
git() {
  local to=clone.$(($1 % 2))
  rm -rf $to && command git clone -q --no-local /host/repo.git $to && command git -C $to fsck --full --strict &&
    command git -C $to status --porcelain | (! grep .)
}
# One file, held open from here to the end.
exec 9>> appended
append() {
  local i
  for i in $(seq 20); do echo "run $1 line $i" >&9 || return 1; sleep 0.1; done
  sync -d appended
}
every untar git append
exec 9>&-
n=$(ls marks | grep -c '^mark\.append\..*end$')
[ "$(wc -l < appended)" = $((n * 20)) ] || fail "lines appended: $(wc -l < appended), runs: $n"
still_mounted
sums
cd / && umount /mnt/projects/demo || fail "umount of the junction"
