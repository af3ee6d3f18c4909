# Locks of two kernels. The caller sets $me; /host is shared with the test, which makes files there to say "go on".
set -u
fail() { echo "FAILED: $*" >&2; touch /host/failed; exit 1; }
until_there() { while [ ! -e /host/$1 ]; do sleep 0.1; done; }
# One byte, by fcntl: held until the test says so. $1 the byte, $2 what to make when it is had, $3 what to wait for.
byte() {
  perl -MFcntl -e 'open F, "+<", "file" or die; fcntl(F, F_SETLKW, pack("s s x4 q q i x4", F_WRLCK, 0, $ARGV[0], 1, 0)) or die $!;
    open M, ">", "/host/$ARGV[1]"; close M; select(undef, undef, undef, 0.1) until -e "/host/$ARGV[2]"' "$@" || fail "byte $*"
}
try_byte() {
  perl -MFcntl -e 'open F, "+<", "file" or die; exit !fcntl(F, F_SETLK, pack("s s x4 q q i x4", F_WRLCK, 0, $ARGV[0], 1, 0))' "$1"
}
# What the server's own notification would say, if it could reach into the guest: to statd, that the server has restarted.
server_restarted() { # number
  local port=$(rpcinfo -p 127.0.0.1 | awk '$1 == 100024 && $3 == "udp" { print $4; exit }')
  perl -MIO::Socket::INET -e 'my $name = "10.0.2.2"; my $m = pack("N6 N4 N a8 N", 7, 0, 2, 100024, 1, 6, 0, 0, 0, 0, 8, $name, $ARGV[1]);
    my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => $ARGV[0], Proto => "udp") or die $!;
    for (1 .. 5) { $s->send($m); my $r = ""; vec($r, fileno($s), 1) = 1; if (select($r, undef, undef, 2)) { $s->recv($m, 100); exit 0 } } exit 1' "$port" "$1"
}
case $me in
a)
  : > file || fail create
  # As people mount: nothing said of ports.
  mkdir /run/plain && mount -t nfs -o vers=3 "$NFS_SERVER:$NFS_EXPORT" /run/plain || fail "a mount without ports"
  [ -e /run/plain/file ] && umount /run/plain || fail "the mount without ports"
  byte 0 held release & byte 1 held1 release1 &
  until_there held; until_there held1
  until_there restarted
  until_there late
  # The other's, by now.
  try_byte 0 && fail "two have byte 0"
  touch /host/denied
  until_there other-died
  byte 0 again stop
  ;;
b)
  until_there go
  try_byte 0 && fail "two have byte 0"
  try_byte 2 || fail "nobody has byte 2"
  touch /host/denied
  until_there switched
  try_byte 0 && fail "two have byte 0, after a switch"
  touch /host/still
  byte 0 got stop &
  until_there got
  until_there restarted
  server_restarted 3 || fail "statd does not hear"
  touch /host/told
  wait
  ;;
esac
