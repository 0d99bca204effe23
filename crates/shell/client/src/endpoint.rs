//! Endpoints: `host:port`, `http://host:port`, `unix:///path`, `unix:path`.

use bytes::Bytes;
use h2::client::SendRequest;
use net::{Dialer, Remote};

use crate::error::Error;

/// A server, as users name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(Remote);

/// Bytes that may be on their way in one stream and on one connection.
const WINDOW_BYTES: u32 = 1 << 24;

impl Endpoint {
    /// Reads an endpoint.
    ///
    /// # Errors
    /// It asks for TLS.
    //= etcd 3.7.1: client/v3/internal/endpoint/endpoint.go#translateEndpoint
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        if text.starts_with("https:") || text.starts_with("unixs:") {
            let product = types::PRODUCT;
            return Err(Error::BadEndpoint(format!(
                "TLS (endpoint {text}) is not implemented in {product}; COMPAT.md lists what is"
            )));
        }
        if let Some(path) = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:")) {
            return Ok(Self(Remote::Unix(path.into())));
        }
        let address = text.strip_prefix("http://").unwrap_or(text);
        Ok(Self(Remote::Tcp(address.trim_end_matches('/').to_owned())))
    }

    /// What stands in `:authority`.
    pub(crate) fn authority(&self) -> &str {
        match &self.0 {
            Remote::Tcp(address) | Remote::Tls(address) => address,
            Remote::Unix(_) | Remote::UnixTls(_) => "localhost",
        }
    }

    /// The text of a failed attempt to connect, in gRPC's words.
    pub(crate) fn not_dialed(&self, why: &str) -> String {
        let (network, address) = match &self.0 {
            Remote::Tcp(address) | Remote::Tls(address) => ("tcp", address.clone()),
            Remote::Unix(path) | Remote::UnixTls(path) => ("unix", path.display().to_string()),
        };
        let text = format!("transport: Error while dialing: dial {network} {address}: {why}");
        format!("connection error: desc = {}", types::quote(text.as_bytes()))
    }

    pub(crate) async fn connect(&self) -> std::io::Result<SendRequest<Bytes>> {
        let socket = net::dial(&Dialer::default(), &self.0).await?;
        let (send, driver) = h2::client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(socket)
            .await
            .map_err(std::io::Error::other)?;
        // It ends with the connection; its error shows in the calls.
        tokio::spawn(driver);
        Ok(send)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_with_and_without_scheme() {
        let tcp = |text: &str| Ok(Endpoint(Remote::Tcp(text.to_owned())));
        assert_eq!(Endpoint::parse("localhost:2379"), tcp("localhost:2379"));
        assert_eq!(Endpoint::parse(" http://127.0.0.1:1 "), tcp("127.0.0.1:1"));
        assert_eq!(Endpoint::parse("unix:///run/e"), Ok(Endpoint(Remote::Unix("/run/e".into()))));
        for secure in ["https://a:1", "unixs:///run/e"] {
            let refused = Endpoint::parse(secure).unwrap_err().to_string();
            let expected = format!("is not implemented in {}", types::PRODUCT);
            assert!(refused.contains(&expected), "{refused}");
        }
    }
}
