//! The short form of fuzzing: seeds, corpus, and mutations of both.

use std::path::Path;

use decoders::TARGETS;
use env::{Entropy, SplitMix};

/// Mutations of each input.
const MUTATIONS: usize = 400;

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let Ok(files) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<_> = files.map(|f| f.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Changes, inserts, removes or repeats a few bytes.
fn mutate(input: &[u8], random: &mut SplitMix) -> Vec<u8> {
    let mut out = input.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(out.len() as u64 + 1) as usize;
        let len = random.below(9).min((out.len() - at) as u64) as usize;
        match random.below(5) {
            0 if at < out.len() => out[at] ^= 1 << random.below(8),
            1 if at < out.len() => out[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5) as usize],
            2 => drop(out.drain(at..at + len)),
            3 => {
                let again = out[at..at + len].to_vec();
                out.splice(at..at, again);
            }
            _ => out.truncate(at),
        }
    }
    out
}

#[test]
fn no_decoder_panics_on_seeds_corpus_or_their_mutations() {
    for target in TARGETS {
        let inputs = [(target.seeds)(), corpus(target.name)].concat();
        assert!(!inputs.is_empty(), "{} has seeds", target.name);
        let mut random = SplitMix::new(1);
        for input in inputs {
            (target.run)(&input);
            for _ in 0..MUTATIONS {
                (target.run)(&mutate(&input, &mut random));
            }
        }
    }
}

#[test]
fn seeds_are_what_they_say() {
    let databases = decoders::disk::databases();
    assert!(databases[0].len() > 4 * 4_096, "the database has pages");
    assert!(decoders::disk::segments()[0].len() > 1_000, "the log has records");
}
