//! A client of HTTP and HTTPS for feeds: one request, with limits of time and size. It knows nothing of rules.

#![deny(clippy::exit, clippy::print_stderr, clippy::print_stdout)]

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use sipguard_core::ops::feed::{HttpAnswer, HttpRequest};
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// How long a request may take, from the name's resolution to the last byte.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many times it is followed elsewhere. A request with a key never is.
const REDIRECTS: u32 = 3;
/// Where the machine keeps the authorities that it trusts: Debian, Red Hat, Alpine.
const AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Asks, and reads the answer whatever its status. The certificate of HTTPS must be one of an authority that this machine trusts, or that the
/// variable `SSL_CERT_FILE` names.
///
/// # Errors
/// When there is no answer in half a minute, its certificate is not trusted, or it is too long or no text.
pub fn fetch(request: &HttpRequest<'_>) -> Result<HttpAnswer> {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .max_redirects(if request.key.is_some() { 0 } else { REDIRECTS })
        .user_agent(concat!("sipguard/", env!("CARGO_PKG_VERSION")));
    if request.url.starts_with("https://") {
        config = config.https_only(true).tls_config(TlsConfig::builder().root_certs(authorities()?).build());
    }
    let agent: Agent = config.build().into();
    let mut call = agent.get(request.url);
    if let Some(key) = request.key {
        call = call.header("X-Api-Key", key);
    }
    let mut answer = call.call().map_err(plain).context("asking the server")?;
    let status = answer.status().as_u16();
    ensure!(!(300..400).contains(&status), "the server sends elsewhere, where the key may not go");
    let body = answer.body_mut().with_config().limit(request.most_bytes).read_to_string();
    Ok(HttpAnswer { status, body: body.context("reading the answer")? })
}

/// Without the URLs that some errors have: keys are in them.
fn plain(error: ureq::Error) -> anyhow::Error {
    match error {
        ureq::Error::BadUri(_) => anyhow!("its URL has no host"),
        ureq::Error::RequireHttpsOnly(_) => anyhow!("the server sends elsewhere, where there is no TLS"),
        ureq::Error::ConnectProxyFailed(_) => anyhow!("the proxy refuses"),
        other => other.into(),
    }
}

fn authorities() -> Result<RootCerts> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let found = named.or_else(|| AUTHORITIES.iter().map(PathBuf::from).find(|path| path.exists()));
    let Some(path) = found else {
        bail!("no authorities are trusted here: install ca-certificates, or name a file in SSL_CERT_FILE");
    };
    let pem = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let certificates: Vec<Certificate<'static>> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    ensure!(!certificates.is_empty(), "{} holds no certificate", path.display());
    Ok(RootCerts::from(certificates))
}
