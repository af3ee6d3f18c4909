# Has mounted the junction itself. `made` was there before the junction, and nobody changes it.
mounted=$(mounts)
mkdir b && cd b && mkdir marks || fail mkdir
mkdir dirs dirs/x dirs/x/deep && echo inside > dirs/x/deep/file || fail prepare
# Attributes, fileids and ctimes included: to a client they stay what they are.
listing() { ls -liRc --full-time ../made | sha256sum; }
reference=$(command tar cf - ../made 2> /dev/null | sha256sum) listed=$(listing)
sqlite3 data.db 'create table t(k integer primary key, v text);' || fail "create table"
sqlite() {
  local i
  for i in $(seq 4); do
    sqlite3 data.db "begin; insert into t(v) select hex(randomblob(200)) from t limit 50; insert into t(v) values('run $1.$i'); commit;" || return 1
  done
  [ "$(sqlite3 data.db 'pragma integrity_check')" = ok ] &&
    [ "$(sqlite3 data.db "select count(*) from t where v like 'run $1.%'")" = 4 ]
}
rename() {
  local i
  for i in $(seq 10); do
    mv dirs/x dirs/y && [ "$(cat dirs/y/deep/file)" = inside ] && mv dirs/y/deep dirs/deep && mv dirs/deep dirs/y/deep &&
      mv dirs/y dirs/x || return 1
  done
}
# Read from the server, slowly: tar rests for a second after each 500 KiB.
tar() {
  echo 1 > /proc/sys/vm/drop_caches
  [ "$(command tar cf - --checkpoint=50 --checkpoint-action=sleep=1 ../made 2> /host/tar.err | sha256sum)" = "$reference" ] || { echo "another tar"; cat /host/tar.err; return 1; }
  # "file changed as we read it" would be here.
  ! grep -v 'Removing leading' /host/tar.err
}
list() {
  local i
  for i in $(seq 5); do [ "$(listing)" = "$listed" ] || { echo "listing changed"; return 1; }; done
}
every sqlite rename tar list
still_mounted
sums
