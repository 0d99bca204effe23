//! The etcd server.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let mut options = server::Options::default();
    let args: Vec<String> = std::env::args().collect();
    for pair in args[1..].chunks(2) {
        match pair[0].as_str() {
            "--data-dir" => {
                options.data_dir = pair[1].clone().into();
                options.wal_dir = options.data_dir.join("member/wal");
            }
            "--port" => {
                let port: u16 = pair[1].parse().unwrap();
                options.client_addresses =
                    vec![server::listen::Address::Tcp(([127, 0, 0, 1], port).into())];
            }
            "--listen-client-urls" => {
                let address = pair[1].trim_start_matches("http://").parse().unwrap();
                options.client_addresses = vec![server::listen::Address::Tcp(address)];
            }
            _ => {}
        }
    }
    match server::start(&options, &|| eprintln!("waiting for lock")) {
        Ok(server) => {
            eprintln!("ready to serve client requests {:?}", server.addresses);
            if let Err(e) = server.wait() {
                eprintln!("{e}");
                std::process::exit(1);
            }
        }
        Err(e) => {
            eprintln!("{e}");
            std::process::exit(1);
        }
    }
}
