//! libFuzzer on one target, named by `QUORATE_FUZZ_TARGET`. With `QUORATE_FUZZ_SEEDS=DIR` instead
//! it writes the seeds of every target into `DIR/<target>/`, prints the targets' names and ends.

#![no_main]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

static TARGET: LazyLock<&decoders::Target> = LazyLock::new(|| {
    let name = std::env::var("QUORATE_FUZZ_TARGET").unwrap_or_default();
    decoders::target(&name).unwrap_or_else(|| panic!("no target is called {name:?}"))
});

fn write_seeds(dir: &Path) -> std::io::Result<()> {
    for target in decoders::TARGETS {
        let dir = dir.join(target.name);
        std::fs::create_dir_all(&dir)?;
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            std::fs::write(dir.join(format!("seed-{number}")), seed)?;
        }
        println!("{}", target.name);
    }
    Ok(())
}

libfuzzer_sys::fuzz_target!(
    init: {
        if let Some(dir) = std::env::var_os("QUORATE_FUZZ_SEEDS") {
            write_seeds(&PathBuf::from(dir)).expect("the directory can be written");
            std::process::exit(0);
        }
    },
    |bytes: &[u8]| (TARGET.run)(bytes)
);
