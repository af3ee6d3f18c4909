//! What the server has used of the machine, from `/proc`.

use crate::Failed;
use std::process::Command;

pub struct Server {
    pid: u32,
    ticks: f64,
}

impl Server {
    pub fn new(pid: u32) -> Result<Self, Failed> {
        let out = Command::new("getconf").arg("CLK_TCK").output()?;
        Ok(Self { pid, ticks: String::from_utf8(out.stdout)?.trim().parse()? })
    }

    /// Seconds of processor since it began, of all its threads, those that have ended too, and of children it waited for.
    pub fn cpu(&self) -> Result<f64, Failed> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let behind_name = stat.rsplit_once(')').ok_or("no name in stat")?.1;
        // The third field of proc(5) comes first here: utime, stime, cutime, cstime are the 14th to 17th.
        let fields = behind_name.split_whitespace().skip(14 - 3).take(4);
        let ticks: Vec<f64> = fields.map(str::parse).collect::<Result<_, _>>()?;
        Ok(ticks.iter().sum::<f64>() / self.ticks)
    }

    /// From now on the peak is a new one.
    pub fn reset_peak(&self) -> Result<(), Failed> {
        Ok(std::fs::write(format!("/proc/{}/clear_refs", self.pid), "5")?)
    }

    /// The most memory resident, MiB.
    pub fn peak(&self) -> Result<u64, Failed> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? >> 10)
    }
}
