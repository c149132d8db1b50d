//! HTTP: who may ask, and how much anybody can take up.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use sipguard_core::error::{Failure, FailureKind};
use tokio::task::AbortHandle;

/// Connections at once; a further one ends the oldest.
const CONNECTIONS: usize = 32;
/// How long a client may take for its request, and for all of an exchange.
const REQUEST: Duration = Duration::from_secs(5);
const EXCHANGE: Duration = Duration::from_secs(30);
/// Bytes and lines of the headers of a request.
const HEADER_BYTES: usize = 16 << 10;
const HEADERS: usize = 64;
/// Answers that are made at the same time; the others wait.
const WORKERS: usize = 2;

/// Where it listens.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: TcpListener,
    host: String,
}

impl Listener {
    /// Listens at `ADDR:PORT`.
    ///
    /// # Errors
    /// When it is no address, or can't be had.
    pub(crate) fn bind(listen: &str) -> Result<Listener> {
        let refused = |text: String| Failure::with(FailureKind::Failed, text);
        let mut found = listen.to_socket_addrs().map_err(|error| {
            refused(format!(
                "`--listen {listen}` is no ADDR:PORT such as {}: {error}",
                sipguard_core::service::DEFAULT_LISTEN
            ))
        })?;
        let address = found.next().with_context(|| format!("`--listen {listen}` has no address"))?;
        let listener = TcpListener::bind(address).map_err(|error| {
            refused(format!(
                "{address} can't be listened at: {error}. Choose another with `--listen ADDR:PORT`"
            ))
        })?;
        listener.set_nonblocking(true).context("making a socket non-blocking")?;
        let host = name(listen).to_owned();
        Ok(Listener { listener, host })
    }

    /// Where others may reach it; port 0 was replaced.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        self.listener.local_addr().context("asking for the own address")
    }

    /// Answers for ever.
    ///
    /// # Errors
    /// When there is no runtime for it.
    pub(crate) fn serve(self, router: Router) -> Result<()> {
        let Listener { listener, host } = self;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(WORKERS)
            .build()
            .context("making the runtime of HTTP")?;
        let router = router.layer(middleware::from_fn_with_state(Arc::<str>::from(host), guarded));
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).context("listening")?;
            let mut open: VecDeque<AbortHandle> = VecDeque::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    // No descriptor is free, or the peer was gone: neither ends the service.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                open.retain(|one| !one.is_finished());
                if open.len() >= CONNECTIONS
                    && let Some(oldest) = open.pop_front()
                {
                    oldest.abort();
                }
                let service = TowerToHyperService::new(router.clone());
                let exchange = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(REQUEST)
                    .keep_alive(false)
                    .max_headers(HEADERS)
                    .max_buf_size(HEADER_BYTES)
                    .serve_connection(TokioIo::new(stream), service);
                let task = tokio::spawn(async { drop(tokio::time::timeout(EXCHANGE, exchange).await) });
                open.push_back(task.abort_handle());
            }
        })
    }
}

/// Lets only those ask who know the address: a page of the web that made a name of its own point here does not
/// (DNS rebinding). Nothing can be changed, so only GET and HEAD are answered.
async fn guarded(State(host): State<Arc<str>>, request: Request, next: Next) -> Response {
    let asked = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    let mut response = if ![Method::GET, Method::HEAD].contains(request.method()) {
        (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")], "only GET is answered\n")
            .into_response()
    } else if !asked.is_some_and(|asked| is_own(asked, &host)) {
        let text = "the Host of a request must be localhost, an address, or the name that `--listen` has\n";
        (StatusCode::FORBIDDEN, text).into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Whether a Host is ours.
fn is_own(asked: &str, listen: &str) -> bool {
    let name = name(asked);
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || name.eq_ignore_ascii_case(listen)
        || bare.parse::<IpAddr>().is_ok()
}

/// The host of `HOST` or `HOST:PORT`.
fn name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit())
                && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hosts_that_nobody_else_can_own_are_answered() {
        for own in [
            "localhost",
            "LOCALHOST:9506",
            "127.0.0.1:9506",
            "192.0.2.7",
            "[::1]:9506",
            "[::1]",
            "::1",
            "pbx.example:1",
            "pbx.example",
        ] {
            assert!(is_own(own, "pbx.example"), "{own}");
        }
        for strange in [
            "",
            "evil.example",
            "evil.example:9506",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "[evil]",
            "127.0.0.1:x",
            "a:b:c",
        ] {
            assert!(!is_own(strange, "pbx.example"), "{strange}");
        }
    }
}
