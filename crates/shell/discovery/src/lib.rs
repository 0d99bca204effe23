//! Finding a cluster: by SRV records of DNS, or in another etcd that serves discovery.
//!
//! Owns: the questions to name servers and the order of what they answer, which services of a domain
//! are asked for, the registry of founding members and the wait for all of them. Never: founds or
//! joins; what is found is told as text, as flags have it. Read next: [`dns`], [`srv`], [`registry`].

pub mod dns;
pub mod registry;
pub mod srv;

pub use dns::{Record, Resolver};
pub use registry::{Registry, RegistryError};

/// Runs a search to its end, from a thread on which no runtime runs.
///
/// # Errors
/// The operating system has no resources for a runtime.
pub fn wait<T>(search: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(search))
}
