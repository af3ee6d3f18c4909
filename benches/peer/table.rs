//! Rounds of two servers, as one table: medians, and the median of the rounds' ratios.

use crate::Failed;
use std::collections::BTreeMap;

/// What a round says of a row: `row calls bytes seconds median_us p99_us cpu_seconds peak_mib`, tab by tab.
#[derive(Clone, Debug)]
struct Figures {
    per_second: f64,
    mib_per_second: f64,
    median_us: f64,
    p99_us: f64,
    cpu: f64,
    peak: f64,
}

/// Files of rounds: first the one server's, then the other's, in the order of the rounds.
pub fn print(names: [&str; 2], files: [&[String]; 2]) -> Result<(), Failed> {
    let mut order = Vec::new();
    let mut rounds: BTreeMap<String, [Vec<Figures>; 2]> = BTreeMap::new();
    for (who, files) in files.into_iter().enumerate() {
        for file in files {
            for line in std::fs::read_to_string(file)?.lines() {
                let (row, figures) = parse(line)?;
                if !order.contains(&row) {
                    order.push(row.clone());
                }
                rounds.entry(row).or_default()[who].push(figures);
            }
        }
    }
    let [one, other] = names;
    println!(
        "| row | {one} | {other} | ratio | CPU s {one} | CPU s {other} | ratio | median, p99 µs {one} | {other} | MiB |"
    );
    println!("| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: |");
    for row in order {
        let [a, b] = &rounds[&row];
        let ratio = |of: fn(&Figures) -> f64| median(a.iter().zip(b).map(|(a, b)| of(a) / of(b).max(0.01)));
        let of = |rounds: &[Figures], of: fn(&Figures) -> f64| median(rounds.iter().map(of));
        let speed = |rounds: &[Figures]| match of(rounds, |f| f.mib_per_second) {
            mib if mib > 0.0 && !row.contains("4k") => format!("{mib:.0} MiB/s"),
            _ => format!("{:.0}/s", of(rounds, |f| f.per_second)),
        };
        let latency =
            |rounds: &[Figures]| format!("{:.0}, {:.0}", of(rounds, |f| f.median_us), of(rounds, |f| f.p99_us));
        println!(
            "| {row} | {} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {} | {} | {:.0}, {:.0} |",
            speed(a),
            speed(b),
            ratio(|f| f.per_second),
            of(a, |f| f.cpu),
            of(b, |f| f.cpu),
            ratio(|f| f.cpu),
            latency(a),
            latency(b),
            of(a, |f| f.peak),
            of(b, |f| f.peak),
        );
    }
    Ok(())
}

fn parse(line: &str) -> Result<(String, Figures), Failed> {
    let mut fields = line.split('\t');
    let row = fields.next().ok_or("no row")?.to_owned();
    let numbers: Vec<f64> = fields.map(str::parse).collect::<Result<_, _>>()?;
    let [calls, bytes, seconds, median_us, p99_us, cpu, peak] = numbers[..] else {
        return Err(format!("not a row: {line}").into());
    };
    let (per_second, mib_per_second) = (calls / seconds, bytes / seconds / f64::from(1 << 20));
    Ok((row, Figures { per_second, mib_per_second, median_us, p99_us, cpu, peak }))
}

fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    match numbers.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => numbers[len / 2],
        len => f64::midpoint(numbers[len / 2 - 1], numbers[len / 2]),
    }
}
