# What each program does, in a directory of its own that is empty. Each function says by its status whether all was as it
# must be; nothing in here knows what kind of file system it runs on.

repository() { # git: commits, branches, merges, worktrees, clones, packing
  local i
  git init -q -b main one && cd one || return 1
  git config user.name t && git config user.email t@example.org || return 1
  for i in $(seq 12); do
    mkdir -p dir$((i % 3)) && seq $((i * 50)) > dir$((i % 3))/file$i && echo "line $i" >> log && ln -sf log last$i || return 1
    [ $((i % 4)) != 0 ] || { chmod +x dir0/file3 && git mv -k dir1/file1 dir2/moved || return 1; }
    git add -A && git commit -qm "commit $i" || return 1
    [ $((i % 4)) != 0 ] || git branch at$i || return 1
  done
  for i in 4 8 12 8 4; do
    git checkout -q at$i && [ "$(wc -l < log)" = $i ] && [ -z "$(git status --porcelain)" ] || { echo "branch at$i"; return 1; }
  done
  git checkout -q -b side at4 && echo other > other && git add other && git commit -qm side && git merge -q -m merged main || return 1
  git worktree add -q ../tree at8 && [ "$(wc -l < ../tree/log)" = 8 ] || return 1
  git gc -q --prune=now && git fsck --full --strict --no-progress || return 1
  git clone -q --no-local . ../two && git -C ../two fsck --full --strict --no-progress || return 1
  git worktree remove ../tree && [ ! -e ../tree ] || return 1
  [ "$(git -C ../two rev-parse HEAD)" = "$(git rev-parse HEAD)" ] && [ -z "$(git -C ../two status --porcelain)" ] &&
    diff -r --no-dereference --exclude=.git . ../two
}

database() { # SQLite: each rollback journal mode, two processes at once, one that dies with a hot journal
  local mode pids who i
  for mode in delete truncate persist; do
    sqlite3 $mode.db "pragma journal_mode=$mode; create table t(k integer primary key, who text, v text);" || return 1
    pids=()
    for who in x y; do
      { echo ".timeout 240000"; echo "pragma journal_mode=$mode;"
        for i in $(seq 8); do
          echo "begin immediate; insert into t(who, v) values('$who $i', hex(randomblob(3000))); update t set v = v || '.' where k % 3 = 0; commit;"
        done; } | sqlite3 -bail $mode.db > /dev/null & pids+=($!)
    done
    for i in "${pids[@]}"; do wait $i || { echo "$mode: a writer"; return 1; }; done
    [ "$(sqlite3 $mode.db 'select count(distinct who), count(*) from t; pragma integrity_check')" = $'16|16\nok' ] || {
      sqlite3 $mode.db 'select count(distinct who), count(*) from t; pragma integrity_check'; return 1; }
    # More than its cache holds, so that the file is changed, and then it dies.
    (sqlite3 $mode.db > /dev/null 2>&1 << SQL
pragma journal_mode=$mode; pragma cache_size=2; begin;
update t set v = hex(randomblob(4000)), who = 'never';
.system kill -9 \$PPID
SQL
    ) 2> /dev/null
    [ "$(sqlite3 $mode.db "select count(*) from t where who = 'never'; pragma integrity_check")" = $'0\nok' ] || { echo "$mode: hot journal"; return 1; }
  done
}

listing() { find "$1" -mindepth 1 \( -type d -printf '%P %y %m %U %G %T@\n' -o -printf '%P %y %m %U %G %s %n %T@ %l\n' \) | LC_ALL=C sort; }
synchronised() { # rsync --modify-window=-1 -aH --delete onto here and from here, against a disk of the client's own ($scratch)
  local from=$scratch/rsync back=$scratch/back i
  rm -rf $from $back; mkdir -p $from/a/b/c $from/set && cd $from || return 1
  for i in $(seq 60); do head -c $((i * 997)) /dev/urandom > a/b/f$i; done
  ln a/b/f1 a/linked && ln a/b/f1 a/b/c/again && ln -s ../nowhere a/dangling && ln -s b a/toward && mkfifo a/fifo || return 1
  truncate -s 3M a/sparse && echo end >> a/sparse && truncate -s 4M a/sparse && touch -h -d '2001-02-03 04:05:06.789012345' a/b/f2 a/dangling
  chmod 4751 a/b/f3; chmod 1777 set; chmod 2750 a/b/c; chown -h 12:34 a/b/f4 a/toward; touch "a/with space" $'a/n\nl' a/$(printf %0255d 0)
  touch -d '1999-12-31 23:59:59.5' a/b/c
  cd - > /dev/null
  rsync --modify-window=-1 -aH --numeric-ids --delete $from/ here/ && alike $from here || return 1
  rm -rf $from/a/b/c && mv $from/a/b/f5 $from/a/renamed && echo more >> $from/a/b/f6 && rm $from/a/linked && chmod 600 $from/a/b/f7
  rsync --modify-window=-1 -aH --numeric-ids --delete $from/ here/ && alike $from here || return 1
  rsync --modify-window=-1 -aHS --numeric-ids --delete here/ $back/ && alike here $back || return 1
  rm -rf here/a/b/f2? && echo changed > here/a/b/f8 && ln here/a/b/f9 here/hard
  rsync --modify-window=-1 -aH --numeric-ids --delete here/ $back/ && alike here $back && rsync --modify-window=-1 -aHS --inplace --numeric-ids --delete $back/ here/ && alike here $back
}
alike() { # two directories, as rsync and as find see them
  local said=$(rsync --modify-window=-1 -aHn --numeric-ids --checksum --delete --itemize-changes "$1"/ "$2"/)
  [ -z "$said" ] && diff <(listing "$1") <(listing "$2") || { echo "$1 and $2 differ: $said"; return 1; }
}

verified() { # fio: what is read is what was written last; several jobs, mappings, direct, file sizes that grow
  cat > jobs << F
[global]
thread
verify=crc32c
verify_fatal=1
do_verify=1
verify_backlog=64
randseed=7
norandommap=0
fallocate=none
[random]
rw=randrw
bsrange=512-32k
bs_unaligned
size=3m
numjobs=2
ioengine=psync
fsync=40
[mapped]
rw=randwrite
bs=4k
size=2m
ioengine=mmap
[direct]
rw=randrw
bs=4k
size=1m
direct=1
ioengine=psync
[growing]
rw=write
bs=9k
size=3069k
ioengine=psync
end_fsync=1
[many]
rw=randwrite
bs=4k
size=2m
nrfiles=16
ioengine=psync
F
  fio --output=said --eta=never jobs || { tail -n 30 said; return 1; }
  # Once more by what the files say of themselves, from the server.
  ! grep -qE 'err= *[1-9]|verify: bad|verify failed' said || { cat said; return 1; }
  sync; echo 3 > /proc/sys/vm/drop_caches
  fio --output=said2 --eta=never --section=growing --verify_only=1 jobs || { tail -n 30 said2; return 1; }
}

# stress-ng: each stressor by two processes, with its own checks, for $STRESS_S seconds at most and what its cleaning up takes.
# Not here, for NFSv3 or its client cannot do it: fsize (fallocate), lease (none is granted), xattr (no user attributes),
# chattr and file-ioctl (no ioctl goes over it), inotify and dnotify.
stressed() {
  local s n begun bad=0
  for s in $STRESSORS; do
    begun=$EPOCHREALTIME
    # Its processes share a file: whoever ends first takes it, and its directory, from under one that has not opened it yet.
    n=2; [ $s = fcntl ] && n=1
    mkdir $s && stress-ng --$s $n --$s-ops ${STRESS_OPS:-10} --verify --timeout $STRESS_S --temp-path $s > /dev/shm/said 2>&1 && rmdir $s ||
      { echo "$s:"; grep -E 'fail|error|warn' /dev/shm/said; ls -A $s; bad=1; }
    echo "$s: $(((${EPOCHREALTIME/./} - ${begun/./}) / 1000)) ms" >> /host/stressed
  done
  return $bad
}

# Several clients in one directory: what each did is known by its name, what they contend for has one winner, and what
# they do under a lock adds up. $1 the client, $2 the number of rounds; a line for each thing won to /host/won.
together() {
  perl -MFcntl=:DEFAULT,:flock -MErrno=EEXIST -we '
    my ($me, $rounds) = @ARGV;
    sub put { my ($name, $text) = @_; open(my $f, ">", $name) or die "$name: $!"; print $f $text; close $f or die "$name: $!" }
    open(my $won, ">>", "/host/won") or die; select((select($won), $| = 1)[0]);
    put("own.$me", "$me\n");
    for my $i (1 .. $rounds) {
      put("$me.$i", "$me $i\n");
      rename("$me.$i", "$me.$i.kept") or die "rename $i: $!";
      if ($i % 2) { unlink("$me.$i.kept") or die "unlink $i: $!" }
      put("over.$me", "$me $i\n");
      rename("over.$me", "over") or die "rename over: $!";
      if (sysopen(my $f, "excl.$i", O_CREAT | O_EXCL | O_WRONLY)) { print $f "$me\n"; close $f or die; print $won "excl.$i\n" }
      elsif (!$!{EEXIST}) { die "excl.$i: $!" }
      if (link("own.$me", "link.$i")) { print $won "link.$i\n" } elsif (!$!{EEXIST}) { die "link.$i: $!" }
      if (mkdir("dir.$i")) { print $won "dir.$i\n"; put("dir.$i/by", "$me\n") } elsif (!$!{EEXIST}) { die "dir.$i: $!" }
      # By turns, and asked for again and again: nobody can call a guest to tell it that its turn has come.
      sysopen(my $c, "count", O_CREAT | O_RDWR) or die "count: $!";
      my $lock = sub { fcntl($c, F_SETLK, pack("s s x4 q q i x4", $_[0], 0, 0, 0, 0)) };
      until ($lock->(F_WRLCK)) { $!{EAGAIN} || $!{EACCES} or die "lock: $!"; select(undef, undef, undef, 0.02) }
      my $text = ""; sysread($c, $text, 99);
      my $n = ($text || 0) + 1;
      open(my $log, ">>", "log") or die "log: $!"; print $log "$n $me $i\n"; close $log or die "log: $!";
      sysseek($c, 0, 0); syswrite($c, "$n") or die "count: $!";
      $lock->(F_UNLCK) or die "unlock: $!"; close $c or die "count: $!";
    }' "$@"
}

# --- what a guest does; the caller sets $me
fail() { echo "FAILED: $*" >&2; touch /host/failed; exit 1; }
until_there() { while [ ! -e /host/$1 ]; do sleep 0.1; done; }
# A kind of work in a directory of its own; what it says is told when it fails. $1 the kind, $2 the directory.
work() {
  local begun=$SECONDS
  mkdir $2 && (cd $2 && $1) > /dev/shm/said.$2 2>&1 || fail "$1 in $2: $(tail -n 60 /dev/shm/said.$2)"
  echo "$2: $((SECONDS - begun)) s"; touch /host/did.$2
}
# What the server's own notification would say, if it could reach into the guest: that it has restarted.
hear_of_restarts() {
  local n=1 port
  while [ ! -e /host/stop ]; do
    if [ -e /host/restarted.$n ]; then
      port=$(rpcinfo -p 127.0.0.1 | awk '$1 == 100024 && $3 == "udp" { print $4; exit }')
      perl -MIO::Socket::INET -e 'my $m = pack("N6 N4 N a8 N", $ARGV[1], 0, 2, 100024, 1, 6, 0, 0, 0, 0, 8, "10.0.2.2", $ARGV[1]);
        my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => $ARGV[0], Proto => "udp") or die $!;
        for (1 .. 5) { $s->send($m); my $r = ""; vec($r, fileno($s), 1) = 1; if (select($r, undef, undef, 2)) { $s->recv($m, 100); exit 0 } } exit 1' \
        "$port" $((n * 2 + 1)) || fail "statd does not hear"
      touch /host/told.$n
      n=$((n + 1))
    fi
    sleep 0.1
  done
}
both() { cd $1 && together $me $2; }
case ${me:-} in
a)
  hear_of_restarts &
  for kind in $KINDS; do work $kind $kind; done
  until_there together
  (both shared $SHARED) || fail "together: $?"
  touch /host/together.done
  until_there again
  n=0
  (both moved $MOVED) & other=$!
  until [ -e /host/switched ]; do n=$((n + 1)); touch /host/repository; work repository repository.$n; done
  until [ -e /host/restarted.2 ]; do n=$((n + 1)); touch /host/database; work database database.$n; done
  work database database.last
  work verified verified.last
  work synchronised synchronised.last
  wait $other || fail "together, during the move: $?"
  touch /host/all.done
  until_there stop
  ;;
b)
  hear_of_restarts &
  touch /host/here
  until_there together
  (both shared $SHARED) || fail "together: $?"
  touch /host/together.done
  until_there again
  (both moved $MOVED) || fail "together, during the move: $?"
  touch /host/all.done
  until_there stop
  ;;
esac
! dmesg | grep -iE 'nfs.*(fileid|stale|error|wrote zero|bad cookie|loop)' || fail "the kernel complains"
