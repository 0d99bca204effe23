//! Watches of real Go clients: this server and the reference give them the same, line by line.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use conform::{Kind, Server, oracle};

fn client(program: &Path, server: &Server) -> Child {
    let mut command = Command::new(program);
    command.env("EP", server.endpoint()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().expect("the client starts")
}

fn output(client: Child) -> String {
    let output = client.wait_with_output().expect("the client ends");
    let text = String::from_utf8(output.stdout).expect("the client prints text");
    assert!(output.status.success() && text.ends_with("OK\n"), "{text}");
    text
}

/// Runs a client program against a fresh server of each kind, both at the same time.
fn compare(program: &str) {
    let Some(program) = oracle(program) else { return };
    let Some(reference) = Server::start(Kind::Reference, &[]) else { return };
    let ours = Server::start(Kind::Quorate, &[]).expect("our own binary is built");
    let (got, want) = (client(&program, &ours), client(&program, &reference));
    let (got, want) = (output(got), output(want));
    for (number, (got, want)) in got.lines().zip(want.lines()).enumerate() {
        assert_eq!(got, want, "line {} (left ours, right etcd's)", number + 1);
    }
    assert_eq!(got.len(), want.len());
}

#[test]
fn every_response_of_a_raw_stream_is_etcds() {
    compare("client-new/watchraw");
}

#[test]
fn a_client_that_pauses_loses_nothing_and_stalls_nobody() {
    compare("client-new/watchslow");
}
