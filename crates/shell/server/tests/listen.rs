//! Addresses that cannot be had.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use env::mem::MemDisk;
use env::{Disk, MayBlock};
use server::{Address, Listen, Log, Options, RunError, start};

#[test]
fn an_address_that_somebody_has_leaves_no_data_directory() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let free = Listen::plain(Address::Tcp(([127, 0, 0, 1], 0).into()));
    let (clients, peers) = (vec![Listen::plain(Address::Tcp(address))], vec![free]);
    for (client_urls, peer_urls) in [(clients.clone(), peers.clone()), (peers, clients)] {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let options = Options { client_urls, peer_urls, ..Options::default() };
        let error = match start(&disk, &Arc::new(Log::none()), &options) {
            Err(error @ RunError::Listen(_)) => error.to_string(),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("two listen at {address}"),
        };
        assert_eq!(error, format!("listen tcp {address}: bind: address already in use"));
        let may = MayBlock::on_this_thread();
        assert!(!disk.exists(&may, Path::new("default.etcd")).unwrap());
    }
}
