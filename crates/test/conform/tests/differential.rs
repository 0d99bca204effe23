//! Random operations: whole responses equal to etcd's, and so is what watches beside them carry. `QUORATE_FUZZ_OPS` sets how many
//! (2,000 by default), `QUORATE_FUZZ_SEED` where they begin.

use api::etcdserverpb::{HashKvRequest, HashKvResponse};
use conform::fuzz::{Generator, Op, run};
use conform::fuzz_watch::Watches;
use conform::{Client, Kind, Server};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

#[test]
fn random_operations_are_answered_as_etcd_answers_them() {
    let ops = number("QUORATE_FUZZ_OPS", 2_000);
    let seed = number("QUORATE_FUZZ_SEED", 1);
    let Some(reference) = Server::start(Kind::Reference, &[]) else { return };
    let ours = Server::start(Kind::Quorate, &[]).expect("our own binary is built");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (left, right) =
            (Client::connect(ours.port).await, Client::connect(reference.port).await);
        let mut generator = Generator::new(seed);
        let mut watches = Watches::open(&left, &right).await;
        for n in 0..ops {
            if generator.chance(2) {
                watches.change(&mut generator).await;
            }
            let op = generator.draw();
            if matches!(op, Op::Compact(_)) {
                watches.before_compaction().await;
            } else if n % 200 == 0 {
                watches.compare().await;
            }
            let (a, b) = tokio::join!(run(&left, &op), run(&right, &op));
            assert_eq!(a, b, "seed {seed}, operation {n}: {op:#?} (left ours, right etcd's)");
            generator.saw(&a);
        }
        watches.compare().await;
        let hash = HashKvRequest { revision: 0 };
        let path = "/etcdserverpb.Maintenance/HashKV";
        let a: HashKvResponse = left.call(path, &hash).await.unwrap();
        let b: HashKvResponse = right.call(path, &hash).await.unwrap();
        assert_eq!(a.hash, b.hash, "seed {seed}");
        eprintln!("seed {seed}: {ops} operations, {} watch events and answers", watches.events());
        // Some 19 for 100 operations in the long run: many watches wait for what never comes.
        assert!(watches.events() as u64 > ops / 10, "watches saw nothing");
    });
}
