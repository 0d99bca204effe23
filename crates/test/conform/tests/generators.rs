//! Both load generators over TLS and in a user's name, against etcd.

#[path = "common/tool.rs"]
#[expect(dead_code, reason = "other suites use the rest")]
mod tool;
#[expect(dead_code, reason = "other suites use the rest")]
#[path = "common/trial.rs"]
mod trial;

use std::time::Duration;

use bench::light::{self, Pace, Plan, Work};
use bench::{Access, Generator, Load, Shape, User};
use conform::{Kind, oracle};
use tls::TlsInfo;
use tool::{PATIENCE, run, words};
use trial::Trial;

fn load(port: u16, access: Access) -> Load {
    Load {
        ports: vec![port],
        access,
        pids: Vec::new(),
        shape: Shape::Put,
        connections: 3,
        in_flight: 12,
        time: Duration::from_millis(300),
        keys: 100,
        value_bytes: 2_000,
        seed: 1,
    }
}

#[test]
fn generators_speak_tls_and_call_as_users() {
    let Some(theirs) = oracle("etcdctl/etcdctl") else { return };
    let Some(trial) = Trial::of(Kind::Reference) else { return };
    let secure = trial.client_url().replace("http:", "https:");
    let mut flags = trial.flags();
    flags.iter_mut().filter(|flag| **flag == trial.client_url()).for_each(|flag| {
        flag.clone_from(&secure);
    });
    flags.extend(words("--auto-tls --bcrypt-cost 4 --unsafe-no-fsync"));
    let mut running = trial.spawn(trial.command(&flags));
    assert!(running.serves(), "{}", running.log());
    let skips = TlsInfo { insecure_skip_verify: true, ..TlsInfo::default() };
    let access = |user: Option<&str>| {
        let user = user.map(|user| User::read(user).expect("a name and a password"));
        Access::new(Some(&skips), user).expect("no file is read")
    };
    let generators = Generator::ALL.map(|(_, generator)| generator);
    let all_good = |user: Option<&str>| {
        for generator in generators {
            let ran = generator.run(&load(trial.client, access(user))).expect("it is served");
            assert!(ran.get("per_second").is_some_and(|n| n > 0.0), "{generator:?} {user:?}");
            assert_eq!(ran.get("failed"), Some(0.0), "{generator:?} {user:?}");
        }
    };
    all_good(None);
    // More than TLS buffers by itself, and streams that stay open.
    let plan = Plan {
        ports: vec![trial.client],
        access: access(None),
        pids: Vec::new(),
        work: Work::KeepAlive { streams: 4 },
        pace: Pace::Closed { in_flight: 64 },
        connections: 2,
        time: Duration::from_millis(300),
        keys: 1,
        value_bytes: 0,
        seed: 1,
    };
    let kept = light::run(&plan).expect("it is served").figures;
    assert_eq!(kept.get("failed"), Some(0.0));
    for line in ["user add root:pw", "user grant-role root root", "auth enable"] {
        let line = format!("--endpoints {secure} --insecure-skip-tls-verify {line}");
        assert_eq!(run(&theirs, &words(&line), "", PATIENCE).code, Some(0), "{line}");
    }
    all_good(Some("root:pw"));
    let does_nothing = |generator: Generator, access: Access| {
        let ran = generator.run(&load(trial.client, access));
        ran.is_err() || ran.is_ok_and(|figures| figures.get("per_second") == Some(0.0))
    };
    for generator in generators {
        let wrong = access(Some("root:wrong"));
        assert!(does_nothing(generator, wrong), "{generator:?}: a wrong password");
        assert!(does_nothing(generator, access(None)), "{generator:?}: nobody may put");
        assert!(does_nothing(generator, Access::default()), "{generator:?}: in the clear");
    }
}
