//! What every command needs: its values, the environment, a client.
//!
//! As in etcdctl, environment, format and endpoints are looked at only when a command turns to a
//! server, after its own arguments.

use std::time::Duration;

use api::etcdserverpb::{AuthenticateRequest, AuthenticateResponse};
use api::method::Method;
use cli::{Exit, Values};
use client::{Client, Config, Error};
use prost::Message;
use tokio::time::Instant;

use crate::commands;
use crate::print::Format;

/// A command's surroundings.
#[derive(Debug)]
pub struct Context {
    /// Flags and arguments of the command line.
    pub values: Values,
    environment: Vec<(String, String)>,
    runtime: tokio::runtime::Runtime,
}

/// An opened way to the servers.
#[derive(Debug)]
pub struct Session<'a> {
    context: &'a Context,
    /// Flags, with the environment's values.
    pub values: Values,
    /// How answers are printed.
    pub format: Format,
    /// Whether bytes are printed as hex.
    pub is_hex: bool,
    client: Client,
}

impl Context {
    /// Prepares to run a command.
    ///
    /// # Errors
    /// The system gives no event queue.
    pub fn new(
        values: Values,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Exit> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Exit::new(Exit::IO, e.to_string()))?;
        let environment = environment.filter(|(name, _)| name.starts_with("ETCDCTL_")).collect();
        Ok(Self { values, environment, runtime })
    }

    /// A variable of the environment.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environment.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Runs what waits.
    pub fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Opens the way to the configured endpoints.
    ///
    /// # Errors
    /// A global flag is wrong, or authentication failed.
    pub fn open(&self) -> Result<Session<'_>, Exit> {
        self.open_to(None)
    }

    fn merged(&self) -> Result<Values, Exit> {
        let mut values = self.values.clone();
        for flag in commands::ETCDCTL.flags {
            let name = format!("ETCDCTL_{}", flag.name.to_uppercase().replace('-', "_"));
            let Some(value) = self.variable(&name).filter(|v| !v.is_empty()) else { continue };
            if self.values.is_given(flag.name) {
                let text = format!(
                    "conflicting environment variable is shadowed by the command line: {name}"
                );
                return Err(Exit::new(Exit::ERROR, text));
            }
            values
                .set_from_outside(flag.name, value.to_owned())
                .map_err(|e| Exit::new(Exit::BAD_ARGS, format!("invalid value for {name}: {e}")))?;
        }
        Ok(values)
    }

    fn open_to(&self, only: Option<&str>) -> Result<Session<'_>, Exit> {
        let values = self.merged()?;
        let format = Format::parse(values.text("write-out"))
            .ok_or_else(|| Exit::new(Exit::BAD_FEATURE, "unsupported output format"))?;
        for name in ["cert", "key", "cacert"] {
            if values.is_given(name) && values.text(name).is_empty() {
                return Err(Exit::args(format!("empty string is passed to --{name} option")));
            }
            if values.is_given(name) {
                return Err(Exit::new(Exit::BAD_FEATURE, "TLS is not implemented"));
            }
        }
        if !values.text("discovery-srv").is_empty() {
            return Err(Exit::new(Exit::BAD_FEATURE, "--discovery-srv is not implemented"));
        }
        let endpoints = match only {
            Some(endpoint) => vec![endpoint.to_owned()],
            None => values.list("endpoints"),
        };
        let bytes = |name| usize::try_from(values.int(name)).unwrap_or(0);
        let config = Config {
            endpoints,
            dial_timeout: values.duration("dial-timeout").max(Duration::from_millis(1)),
            max_send_bytes: bytes("max-request-bytes"),
            max_receive_bytes: bytes("max-recv-bytes"),
            token: Some(values.text("auth-jwt-token").to_owned()).filter(|t| !t.is_empty()),
        };
        let client = Client::new(config);
        let client = client.map_err(|e| Exit::new(Exit::BAD_CONNECTION, e.to_string()))?;
        let is_hex = values.is_on("hex");
        let mut session = Session { context: self, values, format, is_hex, client };
        session.authenticate()?;
        Ok(session)
    }
}

impl Session<'_> {
    fn authenticate(&mut self) -> Result<(), Exit> {
        let user = self.values.text("user");
        if user.is_empty() || self.values.is_given("auth-jwt-token") {
            return Ok(());
        }
        let password = self.values.text("password");
        let (name, password) = match user.split_once(':') {
            _ if !password.is_empty() => (user, password),
            Some(both) => both,
            None => {
                let text = "a prompt for the password is not implemented; give user:password";
                return Err(Exit::new(Exit::BAD_FEATURE, text));
            }
        };
        let request = AuthenticateRequest { name: name.to_owned(), password: password.to_owned() };
        let answer: AuthenticateResponse = self
            .call(Method::Authenticate, &request)
            .map_err(|e| Exit::new(Exit::BAD_CONNECTION, e.to_string()))?;
        self.client.set_token(answer.token);
        Ok(())
    }

    /// The end of `--command-timeout`, counted from now.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        Some(Instant::now() + self.values.duration("command-timeout"))
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The same settings towards one endpoint.
    ///
    /// # Errors
    /// As [`Context::open`].
    pub fn only(&self, endpoint: &str) -> Result<Self, Exit> {
        self.context.open_to(Some(endpoint))
    }

    /// Runs what waits.
    pub fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.context.wait(work)
    }

    /// A unary call within the time of a command.
    ///
    /// # Errors
    /// [`Error`].
    pub fn call<A: Message + Default>(
        &self,
        method: Method,
        request: &impl Message,
    ) -> Result<A, Error> {
        self.wait(async { self.client.call(method, request, self.deadline()).await })
    }

    /// A unary call that waits as long as it takes.
    ///
    /// # Errors
    /// [`Error`].
    pub fn call_forever<A: Message + Default>(
        &self,
        method: Method,
        request: &impl Message,
    ) -> Result<A, Error> {
        self.wait(async { self.client.call(method, request, None).await })
    }
}

/// A failed call as the end of a command.
#[must_use]
pub fn failed(error: Error) -> Exit {
    Exit::new(Exit::ERROR, error.to_string())
}
