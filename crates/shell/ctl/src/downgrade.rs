//! downgrade validate, enable, cancel.

use api::etcdserverpb::downgrade_request::DowngradeAction;
use api::etcdserverpb::{DowngradeRequest, DowngradeResponse};
use api::method::Method;
use cli::Exit;

use crate::kv::first;
use crate::print::{Format, answer, line};
use crate::session::{Context, failed};

/// downgrade validate: whether the cluster could be downgraded to a version.
///
/// # Errors
/// As etcdctl.
pub fn validate(context: &Context) -> Result<(), Exit> {
    ask(context, DowngradeAction::Validate, target(context)?, "validate")
}

/// downgrade enable: lets members of a lower version in.
///
/// # Errors
/// As etcdctl.
pub fn enable(context: &Context) -> Result<(), Exit> {
    ask(context, DowngradeAction::Enable, target(context)?, "enable")
}

/// downgrade cancel: goes back to the version that all members have. Arguments mean nothing.
///
/// # Errors
/// As etcdctl.
pub fn cancel(context: &Context) -> Result<(), Exit> {
    ask(context, DowngradeAction::Cancel, "", "cancel")
}

fn target(context: &Context) -> Result<&str, Exit> {
    match first(&context.values) {
        "" => Err(Exit::args("target version not provided")),
        version => Ok(version),
    }
}

//= etcd 3.7.1: etcdctl/ctlv3/command/downgrade_command.go
fn ask(context: &Context, action: DowngradeAction, to: &str, name: &str) -> Result<(), Exit> {
    let session = context.open()?;
    let request = DowngradeRequest { action: action.into(), version: to.to_owned() };
    let asked = session.client().call(Method::Downgrade, &request, session.deadline());
    let done: DowngradeResponse = session.wait(asked).map_err(failed)?;
    if session.format == Format::Fields {
        return Err(Format::Fields.unsupported());
    }
    let simple = |text: &mut Vec<u8>| {
        line(text, format!("Downgrade {name} success, cluster version {}", done.version));
        Ok(())
    };
    answer(&session, Method::Downgrade, &done, simple, |_| {})
}
