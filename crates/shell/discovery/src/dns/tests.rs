use std::collections::BTreeMap;

use tokio::net::UdpSocket;

use super::*;

/// A name server on a port of its own: SRV records by name, and no others. Names that begin with
/// `broken` it answers with a failure, those that begin with `silent` not at all.
pub(crate) async fn name_server(zone: &[(&str, Vec<Record>)]) -> Resolver {
    let zone: BTreeMap<String, Vec<Record>> =
        zone.iter().map(|(name, records)| ((*name).to_owned(), records.clone())).collect();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut bytes = [0; 1_500];
        loop {
            let (length, from) = socket.recv_from(&mut bytes).await.unwrap();
            if let Some(answer) = answer(&zone, &bytes[..length]) {
                socket.send_to(&answer, from).await.unwrap();
            }
        }
    });
    Resolver::at(address, Duration::from_secs(5))
}

fn answer(zone: &BTreeMap<String, Vec<Record>>, question: &[u8]) -> Option<Vec<u8>> {
    let end = 12 + question[12..].iter().position(|&byte| byte == 0).unwrap() + 5;
    let mut labels = Vec::new();
    let mut rest = &question[12..];
    while rest[0] != 0 {
        let length = usize::from(rest[0]);
        labels.push(String::from_utf8_lossy(&rest[1..=length]).into_owned());
        rest = &rest[length + 1..];
    }
    let name = labels.join(".");
    let found = zone.get(&name);
    let code = match (name.contains("broken"), found) {
        _ if name.contains("silent") => return None,
        (true, _) => 2,
        (false, None) => 3,
        (false, Some(_)) => 0,
    };
    let records = found.map_or(&[][..], |records| records);
    let mut out = question[..2].to_vec();
    out.extend([0x81, 0x80 | code, 0, 1, 0, u8::try_from(records.len()).unwrap(), 0, 0, 0, 0]);
    out.extend(&question[12..end]);
    for Record { host, port, priority, weight } in records {
        let mut data = Vec::new();
        [priority, weight, port].iter().for_each(|number| data.extend(number.to_be_bytes()));
        for label in host.trim_end_matches('.').split('.').filter(|label| !label.is_empty()) {
            data.push(u8::try_from(label.len()).unwrap());
            data.extend(label.as_bytes());
        }
        data.push(0);
        // A pointer to the question's name, SRV, IN, 60 s.
        out.extend([0xC0, 12, 0, 33, 0, 1, 0, 0, 0, 60]);
        out.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        out.extend(data);
    }
    Some(out)
}

pub(crate) fn record(host: &str, port: u16, priority: u16, weight: u16) -> Record {
    Record { host: host.to_owned(), port, priority, weight }
}

#[tokio::test]
async fn records_come_by_priority() {
    let records = vec![record("b.x.", 2, 20, 0), record("a.x.", 1, 10, 0)];
    let server = name_server(&[("_s._tcp.x", records)]).await;
    let found = server.lookup_srv("s", "x").await.unwrap();
    assert_eq!(found, [record("a.x.", 1, 10, 0), record("b.x.", 2, 20, 0)]);
}

#[tokio::test]
async fn what_goes_wrong_is_told_in_gos_words() {
    let none = vec![record(".", 0, 0, 0)];
    let mut server = name_server(&[("_s._tcp.x", none)]).await;
    let at = server.configuration.servers[0].addr;
    let told = server.lookup_srv("s", "y").await.unwrap_err();
    assert_eq!(told, format!("lookup _s._tcp.y on {at}: no such host"));
    let told = server.lookup_srv("s", "x").await.unwrap_err();
    assert_eq!(told, format!("lookup _s._tcp.x on {at}: no such host"));
    let told = server.lookup_srv("broken", "y").await.unwrap_err();
    assert_eq!(told, format!("lookup _broken._tcp.y on {at}: server misbehaving"));
    server.configuration.options.timeout = Duration::from_millis(50);
    let told = server.lookup_srv("silent", "y").await.unwrap_err();
    assert_eq!(told, format!("lookup _silent._tcp.y on {at}: i/o timeout"));
    // Longer than a name may be.
    let told = server.lookup_srv("s", &"a.".repeat(200)).await.unwrap_err();
    assert!(told.ends_with(": no such host"), "{told}");
}

#[test]
fn the_systems_file_names_servers_and_domains() {
    let text = "# x\nnameserver 192.0.2.1\nunknown line\nnameserver 192.0.2.2\nsearch a.b c\n";
    let Resolver { configuration } = Resolver::of_text(text);
    let servers: Vec<String> = configuration.servers.iter().map(|s| s.addr.to_string()).collect();
    assert_eq!(servers, ["192.0.2.1:53", "192.0.2.2:53"]);
    let resolver = Resolver { configuration };
    assert_eq!(resolver.candidates("n"), ["n", "n.a.b", "n.c"]);
    assert_eq!(resolver.candidates("n."), ["n."]);
    let Resolver { configuration } = Resolver::of_text("");
    assert_eq!(configuration.servers[0].addr.to_string(), "127.0.0.1:53");
}

#[test]
fn places_are_drawn_by_weight() {
    let mut firsts = [0_u32; 3];
    for seed in 0..3_000_u64 {
        let all = (0..3).map(|port| record("a.", port, 0, port)).collect();
        let ordered = in_order(all, seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        firsts[usize::from(ordered[0].port)] += 1;
        assert_eq!(ordered.len(), 3);
    }
    assert_eq!(firsts[0], 0);
    assert!(firsts[1].abs_diff(1_000) < 150, "{firsts:?}");
}
