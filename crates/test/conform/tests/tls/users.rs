//! Users by the common names of their certificates.

use conform::Kind;

use crate::member::etcdctl;
use crate::{BOTH, World, serve};
use authority::{Pair, Wish, text};

/// What etcd's tool says with a certificate: the last line.
fn run(world: &World, port: u16, pair: &Pair, words: &str) -> Option<Result<String, String>> {
    let mut args = vec![
        format!("--endpoints=https://127.0.0.1:{port}"),
        format!("--cacert={}", world.ca),
        format!("--cert={}", text(&pair.cert)),
        format!("--key={}", text(&pair.key)),
    ];
    args.extend(words.split(' ').map(str::to_owned));
    let last = |text: String| text.lines().last().unwrap_or_default().to_owned();
    Some(etcdctl(&args)?.map(last).map_err(last))
}

fn story(kind: Kind) -> Option<Vec<(String, Result<String, String>)>> {
    let world = World::new();
    let server = world.pair("server", Wish::new("", &["127.0.0.1"]));
    let asking = ["--client-cert-auth".to_owned(), format!("--trusted-ca-file={}", world.ca)];
    let member = serve(kind, &world, &server, &asking)?;
    let named = |name: &str| world.pair(&format!("{name}-user"), Wish::new(name, &[]));
    let (root, ann, bob, nobody) = (named("root"), named("ann"), named("bob"), named(""));
    let mut told = Vec::new();
    for (who, words) in [
        (&root, "user add root --new-user-password=pw"),
        (&root, "user grant-role root root"),
        (&root, "user add ann --no-password"),
        (&root, "role add r"),
        (&root, "role grant-permission r readwrite k"),
        (&root, "user grant-role ann r"),
        (&root, "auth enable"),
        (&ann, "put k v"),
        (&ann, "get k --print-value-only"),
        (&ann, "put other v"),
        (&ann, "user list"),
        (&bob, "put k v"),
        (&nobody, "put k v"),
        (&root, "user list"),
        (&root, "put other v"),
        (&bob, "--user=root:pw put k v"),
        (&root, "user revoke-role ann r"),
        (&ann, "put k v"),
    ] {
        let said = run(&world, member.client, who, words)?;
        told.push((format!("{} {words}", text(&who.cert).rsplit('/').next().unwrap()), said));
    }
    Some(told)
}

#[test]
fn certificates_stand_for_users_alike() {
    let [Some(theirs), Some(ours)] = BOTH.map(story) else { return };
    for (theirs, ours) in theirs.iter().zip(&ours) {
        assert_eq!(theirs, ours);
    }
    let denied = |(_, said): &&(String, Result<String, String>)| said.is_err();
    assert_eq!(theirs.iter().filter(denied).count(), 5, "{theirs:?}");
}
