//! What a member tells of itself: metrics under etcd's names and log lines with etcd's texts.
//!
//! Owns the metric families, the log, and the reporter that turns what the threads see happen into
//! both. Never decides anything: whoever reports goes on as if nobody listened. Read next:
//! [`metrics`] (what is counted where), [`logging`] (how a line leaves), [`audit`] (who did what), [`report`] (what is told).

pub mod audit;
pub mod logging;
mod metered;
pub mod metrics;
pub mod report;
mod report_peers;
mod report_raft;
mod report_tls;
mod writer;

pub use audit::AuditLog;
pub use logging::Log;
pub use metered::MeteredDisk;
pub use metrics::Metrics;
pub use report::{Reporter, Turn};
pub use report_tls::{Endpoint, tell_refused, tell_reloads};

// For `log_line!` in other crates.
#[doc(hidden)]
pub use serde_json::Value;
