//! A file system of its own on a loop device, that can be frozen: whoever changes anything on it waits, in the kernel,
//! until it is thawed. Reads go on. That is how a NAS looks that hangs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

pub struct Disk {
    at: PathBuf,
}

impl Disk {
    /// A new ext4 of so many MiB, mounted at `at`, which is made. The image lies beside it.
    pub fn new(at: &Path, mib: u64) -> Self {
        std::fs::create_dir(at).unwrap();
        let image = at.with_extension("img");
        std::fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
        done(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
        done(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(at));
        Self { at: at.to_owned() }
    }

    /// The same in memory: its sync does not wait for what others have written to the machine's disk.
    pub fn in_memory(at: &Path, mib: u64) -> Self {
        std::fs::create_dir(at).unwrap();
        done(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tain-test"]).arg(at));
        Self { at: at.to_owned() }
    }

    pub fn freeze(&self) {
        done(Command::new("fsfreeze").arg("-f").arg(&self.at));
    }

    pub fn thaw(&self) {
        done(Command::new("fsfreeze").arg("-u").arg(&self.at));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It may be frozen still, when a test fails; then the service cannot die before it is thawed.
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.at).output();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(20) {
            if Command::new("umount").arg(&self.at).output().is_ok_and(|out| out.status.success()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = Command::new("umount").arg("-l").arg(&self.at).output();
    }
}

fn done(command: &mut Command) {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}
