//! A left-behind side, by the programs that wrote it and not by the journal's word: what was known to a client as
//! durable before the switch is there, and is whole. (That nothing else is there, and every byte, name, mode, owner and
//! time, is the shadow's part; for the directories that are renamed it is the only one.)

use crate::shadow::Shadow;
use std::path::Path;
use std::process::Command;

/// Runs of a kind that had ended at this LSN.
fn ended(shadow: &Shadow, kind: &str, lsn: u64) -> usize {
    let end = |n: &usize| shadow.marks.get(format!("mark.{kind}.{n}.end").as_bytes()).is_some_and(|at| *at < lsn);
    (1..).take_while(end).count()
}

/// Copies are looked at, never the side itself: Git and SQLite write where they read.
pub fn check(side: &Path, live: &Path, shadow: &Shadow, lsn: u64, original: &Path, src: &Path, scratch: &Path) {
    let ran = |kind| ended(shadow, kind, lsn);
    let (untar, clone) = (ran("untar"), ran("git"));
    assert!(untar > 0 && clone > 0, "the guests had done too little before the switch at {lsn}");
    std::fs::create_dir(scratch).unwrap();
    // What nobody changes is what it was, attributes included.
    bash(
        "cd $1/made && find . -printf '%P %y %m %U %G %s %n %T@ %l\\n' | sort > $3/now
         cd $2/made && find . -printf '%P %y %m %U %G %s %n %T@ %l\\n' | sort | diff - $3/now
         diff -r --no-dereference $2/made $1/made",
        &[side, original, scratch],
    );
    // The last archive and the last clone that were whole at the switch.
    bash("diff -r --no-dereference $1 $2", &[src, &side.join(format!("a/untar.{}/src", untar % 2))]);
    bash(
        "cp -a $1 $2/clone && git -C $2/clone fsck --full --strict && git -C $2/clone status --porcelain > $2/status
         ! grep . $2/status",
        &[&side.join(format!("a/clone.{}", clone % 2)), scratch],
    );
    // Each transaction that was committed, by name; one in flight, if any, is rolled back from its journal.
    let runs = ran("sqlite");
    bash(
        &format!(
            "cp -a $1/b/data.db* $2/ && test \"$(sqlite3 $2/data.db 'pragma integrity_check')\" = ok
             of=\"from t where v like 'run %' and cast(substr(v, 5) as integer)\"
             test $(sqlite3 $2/data.db \"select count(distinct v) $of <= {runs}\") = {}
             test $(sqlite3 $2/data.db \"select count(*) $of > {runs} + 1\") = 0",
            runs * 4
        ),
        &[side, scratch],
    );
    // The appender's file is a beginning of what it became, with each line that was synced.
    let (then, now) =
        (std::fs::read(side.join("a/appended")).unwrap(), std::fs::read(live.join("a/appended")).unwrap());
    assert!(now.starts_with(&then), "{}: appended is no beginning of what it became", side.display());
    let lines = then.iter().filter(|b| **b == b'\n').count();
    assert!(lines >= ran("append") * 20 && lines <= ran("append") * 20 + 20, "{}: {lines} lines", side.display());
}

fn bash(script: &str, args: &[&Path]) {
    let out = Command::new("bash")
        .args(["-euc", script, "check"])
        .args(args)
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .output()
        .unwrap();
    let said = |b: &[u8]| String::from_utf8_lossy(&b[..b.len().min(3000)]).into_owned();
    assert!(out.status.success(), "{args:?}: {script}\n{}{}", said(&out.stdout), said(&out.stderr));
}
