//! What every command needs: its values, the environment, a client.
//!
//! As in etcdctl, environment, format and endpoints are looked at only when a command turns to a
//! server, after its own arguments.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use api::method::Method;
use cli::output::{self, Level};
use cli::{Exit, Values, prompt};
use client::{Client, Config, Credentials, Error, FailedAttempt};
use prost::Message;
use tls::TlsInfo;
use tokio::time::Instant;

use crate::environment;
use crate::print::Format;

/// A command's surroundings.
pub struct Context {
    /// Flags and arguments of the command line.
    pub values: Values,
    environment: Vec<(String, String)>,
    /// Variables that the command reads by itself.
    taken: RefCell<BTreeSet<String>>,
    /// Flags with the environment's values, read once.
    merged: OnceCell<Values>,
    /// Who calls: a password is asked for once.
    credentials: OnceCell<Credentials>,
    runtime: tokio::runtime::Runtime,
}

impl fmt::Debug for Context {
    /// Without the environment, in which passwords are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("values", &self.values).finish_non_exhaustive()
    }
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
    client: Arc<Client>,
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
        let ours = |name: &str| name.starts_with(environment::PREFIX);
        let environment = environment.filter(|(name, _)| ours(name)).collect();
        let (taken, merged, credentials) = (RefCell::default(), OnceCell::new(), OnceCell::new());
        Ok(Self { values, environment, taken, merged, credentials, runtime })
    }

    /// A variable that the command reads by itself; it must ask before it opens a session.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.taken.borrow_mut().insert(name.to_owned());
        self.environment.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Runs what waits.
    pub fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Opens the way to the configured endpoints and gets a token, if a user calls.
    ///
    /// # Errors
    /// A global flag is wrong, or authentication failed.
    pub fn open(&self) -> Result<Session<'_>, Exit> {
        let session = self.prepare()?;
        session.log_in()?;
        Ok(session)
    }

    /// As [`Context::open`], without a token: for commands that turn to each endpoint by itself.
    ///
    /// # Errors
    /// A global flag is wrong.
    pub fn prepare(&self) -> Result<Session<'_>, Exit> {
        self.prepare_for(None)
    }

    fn merged(&self) -> Result<Values, Exit> {
        if let Some(values) = self.merged.get() {
            return Ok(values.clone());
        }
        let values = environment::merge(&self.values, &self.environment, &self.taken.borrow())?;
        Ok(self.merged.get_or_init(|| values).clone())
    }

    /// Looks at the global flags in etcdctl's order.
    //= etcd 3.7.3: etcdctl/ctlv3/command/global.go#clientConfigFromCmd
    fn prepare_for(&self, only: Option<&str>) -> Result<Session<'_>, Exit> {
        let values = self.merged()?;
        for name in ["cert", "key", "cacert"] {
            if values.is_given(name) && values.text(name).is_empty() {
                return Err(Exit::args(format!("empty string is passed to --{name} option")));
            }
        }
        let credentials = self.credentials(&values)?;
        let format = Format::parse(values.text("write-out"))
            .ok_or_else(|| Exit::new(Exit::BAD_FEATURE, "unsupported output format"))?;
        let endpoints = match only {
            Some(endpoint) => vec![endpoint.to_owned()],
            None => crate::endpoint::configured(&values)?,
        };
        let config = config(&values, endpoints, tls(&values), credentials);
        let client = Arc::new(Client::new(config).map_err(unconnected)?);
        let is_hex = values.is_on("hex");
        Ok(Session { context: self, values, format, is_hex, client })
    }

    /// A client of another cluster, whose endpoint is an argument and whose flags begin with
    /// `dest-`; times and sizes are those of all commands.
    ///
    /// # Errors
    /// One of the flags is wrong, or authentication failed.
    //= etcd 3.7.3: etcdctl/ctlv3/command/make_mirror_command.go#makeMirrorCommandFunc
    pub fn destination(&self, endpoint: &str) -> Result<Client, Exit> {
        let values = self.merged()?;
        let (user, password) = (values.text("dest-user"), values.text("dest-password"));
        let credentials = named(user, password, "Destination Password: ")?;
        let text = |name| values.text(name).to_owned();
        let info = TlsInfo {
            cert_file: text("dest-cert"),
            key_file: text("dest-key"),
            trusted_ca_file: text("dest-cacert"),
            ..TlsInfo::default()
        };
        let says_something = info != TlsInfo::default() || !values.is_on("dest-insecure-transport");
        let tls = says_something.then_some(info);
        let endpoints = vec![endpoint.to_owned()];
        let client = Client::new(config(&values, endpoints, tls, credentials));
        let client = client.map_err(unconnected)?;
        let until = dial_timeout(&values).map(|limit| Instant::now() + limit);
        self.wait(client.authenticate(until)).map_err(unconnected)?;
        Ok(client)
    }

    fn credentials(&self, values: &Values) -> Result<Credentials, Exit> {
        if let Some(known) = self.credentials.get() {
            return Ok(known.clone());
        }
        let credentials = credentials(values)?;
        Ok(self.credentials.get_or_init(|| credentials).clone())
    }
}

/// The configuration of a client.
fn config(
    values: &Values,
    endpoints: Vec<String>,
    tls: Option<TlsInfo>,
    credentials: Credentials,
) -> Config {
    let bytes = |name| usize::try_from(values.int(name)).unwrap_or(0);
    Config {
        endpoints,
        tls,
        dial_timeout: dial_timeout(values).unwrap_or(MAX_DIAL),
        max_send_bytes: bytes("max-request-bytes"),
        max_receive_bytes: bytes("max-recv-bytes"),
        credentials,
        on_failure: Some(tell_failure),
    }
}

/// Why there is no client.
fn unconnected(error: Error) -> Exit {
    let code =
        if matches!(error, Error::BadTls(_)) { Exit::BAD_ARGS } else { Exit::BAD_CONNECTION };
    Exit::new(code, error.to_string())
}

/// Longest time to connect to one endpoint where no limit is set.
const MAX_DIAL: Duration = Duration::from_secs(20);

/// `--dial-timeout`; 0 means no limit.
fn dial_timeout(values: &Values) -> Option<Duration> {
    Some(values.duration("dial-timeout")).filter(|limit| !limit.is_zero())
}

/// How TLS is spoken; `None` if no flag says anything about it.
//= etcd 3.7.3: client/v3/config.go#newTLSConfig
fn tls(values: &Values) -> Option<TlsInfo> {
    let text = |name| values.text(name).to_owned();
    // Endpoints that DNS gave are to be those of their domain, unless any are taken.
    let server_name =
        if values.is_on("insecure-discovery") { String::new() } else { text("discovery-srv") };
    let info = TlsInfo {
        cert_file: text("cert"),
        key_file: text("key"),
        trusted_ca_file: text("cacert"),
        server_name,
        insecure_skip_verify: values.is_on("insecure-skip-tls-verify"),
        ..TlsInfo::default()
    };
    let says_something = info != TlsInfo::default() || !values.is_on("insecure-transport");
    says_something.then_some(info)
}

/// Who calls, by `--auth-jwt-token`, `--user` and `--password`, or by a password that is asked for.
//= etcd 3.7.3: etcdctl/ctlv3/command/global.go#authCfgFromCmd
fn credentials(values: &Values) -> Result<Credentials, Exit> {
    let token = values.text("auth-jwt-token");
    if !token.is_empty() {
        return Ok(Credentials::Token(token.to_owned()));
    }
    named(values.text("user"), values.text("password"), "Password: ")
}

/// A user, by its name with or without a password behind a colon, and a password that may be empty;
/// without any it is asked for.
fn named(user: &str, password: &str, question: &str) -> Result<Credentials, Exit> {
    let (user, password) = match user.split_once(':') {
        _ if user.is_empty() => return Ok(Credentials::None),
        _ if !password.is_empty() => (user, password.to_owned()),
        Some((user, password)) => (user, password.to_owned()),
        None => {
            let asked = prompt::password(question);
            (user, asked.map_err(|e| Exit::new(Exit::ERROR, e))?)
        }
    };
    // etcd's client calls without a name then.
    if user.is_empty() || password.is_empty() {
        return Ok(Credentials::None);
    }
    Ok(Credentials::Password { user: user.to_owned(), password })
}

/// The line of etcd's client about an attempt that failed.
//= etcd 3.7.3: client/v3/retry_interceptor.go#unaryClientInterceptor
fn tell_failure(failed: &FailedAttempt<'_>) {
    let fields = [
        ("logger", "etcd-client".into()),
        ("target", format!("etcd-endpoints:///{}", failed.target).into()),
        ("method", failed.method.into()),
        ("attempt", failed.number.into()),
        ("error", failed.error.as_str().into()),
    ];
    output::log(Level::Warn, file!(), "retrying of unary invoker failed", &fields);
}

impl Session<'_> {
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

    /// How TLS is spoken, if any flag says something about it.
    #[must_use]
    pub fn tls(&self) -> Option<TlsInfo> {
        tls(&self.values)
    }

    /// The client, for tasks of their own.
    #[must_use]
    pub fn shared_client(&self) -> Arc<Client> {
        Arc::clone(&self.client)
    }

    /// Gets a token within the time to connect, if a user calls.
    ///
    /// # Errors
    /// [`Error`]: name or password are wrong, or nobody answers.
    pub async fn authenticate(&self) -> Result<(), Error> {
        let until = dial_timeout(&self.values).map(|limit| Instant::now() + limit);
        self.client.authenticate(until).await
    }

    /// As [`Session::authenticate`], as a step of a command.
    ///
    /// # Errors
    /// As there, with the code for a connection that there is not.
    pub fn log_in(&self) -> Result<(), Exit> {
        self.wait(self.authenticate()).map_err(unconnected)
    }

    /// The same settings towards one endpoint, with a token of its own.
    ///
    /// # Errors
    /// As [`Context::open`].
    pub fn only(&self, endpoint: &str) -> Result<Self, Exit> {
        let session = self.prepare_only(endpoint)?;
        session.log_in()?;
        Ok(session)
    }

    /// As [`Session::only`], without a token.
    ///
    /// # Errors
    /// As [`Context::prepare`].
    pub fn prepare_only(&self, endpoint: &str) -> Result<Self, Exit> {
        self.context.prepare_for(Some(endpoint))
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
