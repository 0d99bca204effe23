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
            return Err(Error::BadEndpoint(format!("TLS is not implemented: {text}")));
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
            Remote::Tcp(address) => address,
            Remote::Unix(_) => "localhost",
        }
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
        assert!(Endpoint::parse("https://a:1").is_err());
    }
}
