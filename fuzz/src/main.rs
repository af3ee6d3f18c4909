//! `TAIN_FUZZ=<target> tain-fuzz CORPUS… -max_total_time=60`. Targets and what they do: `src/fuzz` of the service.
//! With `TAIN_FUZZ_SEEDS=DIR` it writes what the target begins with into DIR first.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static BODY: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("TAIN_FUZZ").unwrap_or_default();
    let Some(target) = tain::fuzz::TARGETS.iter().find(|target| target.name == name) else {
        let known: Vec<&str> = tain::fuzz::TARGETS.iter().map(|target| target.name).collect();
        eprintln!("TAIN_FUZZ={name:?} is no target; known are {}", known.join(", "));
        std::process::exit(2);
    };
    target.body
});

fuzz_target!(
    init: {
        LazyLock::force(&BODY);
        if let Some(dir) = std::env::var_os("TAIN_FUZZ_SEEDS") {
            for target in tain::fuzz::TARGETS {
                let dir = std::path::Path::new(&dir).join(target.name);
                std::fs::create_dir_all(&dir).expect("a directory for seeds");
                for (n, seed) in (target.seeds)().iter().enumerate() {
                    std::fs::write(dir.join(format!("begin-{n:03}")), seed).expect("a seed");
                }
            }
            std::process::exit(0);
        }
    },
    |data: &[u8]| (*BODY)(data)
);
