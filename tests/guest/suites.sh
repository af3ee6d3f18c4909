# The test suites of Debian packages: built on the mount and run there, and run again from a copy on a disk of the client's
# own. A list of results for each, by test, to /host. The sources are in /host; $SUITES names the packages.
set -u
fail() { echo "FAILED: $*" >&2; touch /host/failed; exit 1; }
built() { # package
  mkdir $1 && tar xf /host/$1.tar -C $1 --strip-components=1 && cd $1 && cp /host/$1.cache config.cache &&
    FORCE_UNSAFE_CONFIGURE=1 ./configure -q -C --disable-nls CFLAGS=-O0 && make -s
}
# Results differ in nothing but what the file system makes of them: neither time nor number of a process is told.
results() { grep -aE '^ *(PASS|FAIL|SKIP|XFAIL|XPASS|ERROR): |^ *[0-9]+: .*(ok|skipped|FAILED)' | sed -E 's/  +/ /g; s/ \(.*\)$//' | LC_ALL=C sort; }
tested() { make -k check < /dev/null 2>&1; }
mkdir -p /run/disk && mount /dev/ubda /run/disk || fail "the disk"
for package in $SUITES; do
  begun=$SECONDS
  (built $package) > /dev/shm/said 2>&1 || fail "$package: $(tail -n 30 /dev/shm/said)"
  cp -a $package /run/disk/ || fail "$package: cp"
  echo "$package: built on the mount in $((SECONDS - begun)) s"
  for place in mount:. disk:/run/disk; do
    begun=$SECONDS
    (cd ${place#*:}/$package && tested) > /host/said.$package.${place%%:*}
    results < /host/said.$package.${place%%:*} > /host/results.$package.${place%%:*}
    echo "$package: $(wc -l < /host/results.$package.${place%%:*}) tests, ${place%%:*}, $((SECONDS - begun)) s"
  done
done
touch /host/all.done
