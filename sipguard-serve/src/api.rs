//! What is answered: metrics for Prometheus, and JSON for a dashboard. A further route is a line in [`router`].

use std::sync::Arc;

use anyhow::Result;
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde::Serialize;
use serde_json::Value;
use sipguard_core::clock::Clock;
use sipguard_core::pins::Pins;
use sipguard_core::senders::TalliedKind;
use sipguard_core::status;
use sipguard_core::view::{self, schema};
use sipguard_observe::metrics::{self, Form, Kernel, Own, ProcessUsage, Request};
use tokio::task::JoinSet;

use super::attached::AttachedGuard;
use super::overview;
use super::rows::{self, FirstRows, Rows};
use super::shared::ServeShared;
use super::sink::HostEventKind;

/// An answer, with its status.
type ApiAnswer = Result<(StatusCode, Value)>;

/// An answer about a guard, and whether packets are filtered on every interface that was attached.
#[derive(Serialize)]
struct Attached<T> {
    attached: bool,
    #[serde(flatten)]
    answer: Option<T>,
}

/// The answer of the health check.
#[derive(Serialize)]
struct Health {
    schema: &'static str,
    /// `attached`, or what is wrong.
    guard: String,
    /// Parts of `serve` that fail.
    failing: Vec<&'static str>,
}

/// Why there is no answer.
#[derive(Serialize)]
struct Wrong {
    error: String,
}

/// Every route.
pub(crate) fn router(shared: Arc<ServeShared>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(|state, query| answer(state, query, health)))
        .route("/api/overview", get(|state, query| answer(state, query, |shared, _| overview(shared))))
        .route(
            "/api/crashes",
            get(|state, query| answer(state, query, |shared, _| ok(view::json(&overview::crashes(shared))))),
        )
        .route(
            "/api/status",
            get(|state, query| answer(state, query, |shared, _| while_attached(shared, None, rows::status))),
        )
        .route(
            "/api/counters",
            get(|state, query| {
                answer(state, query, |shared, _| {
                    while_attached(shared, Some(Rows::none(schema::COUNTERS)), rows::counters)
                })
            }),
        )
        .route(
            "/api/offenders",
            get(|state, query| {
                answer(state, query, |shared, _| {
                    while_attached(shared, Some(FirstRows::none(schema::ADDRESSES)), rows::offenders)
                })
            }),
        )
        .route("/api/senders", get(|state, query| answer(state, query, senders)))
        .route(
            "/api/trunks",
            get(|state, query| {
                answer(state, query, |shared, _| {
                    while_attached(shared, Some(Rows::none(schema::TRUNKS)), rows::trunks)
                })
            }),
        )
        .route(
            "/api/blocks",
            get(|state, query| answer(state, query, |shared, _| ok(view::json(&rows::blocks(shared)?)))),
        )
        .route(
            "/api/events",
            get(|state, query| answer(state, query, |shared, _| ok(view::json(&rows::events(shared))))),
        )
        .route("/api/history", get(|state, query| answer(state, query, history)))
        .with_state(shared)
}

fn ok(value: Value) -> ApiAnswer {
    Ok((StatusCode::OK, value))
}

/// Works on another thread, since maps and files make one wait, unless nobody waits for it any more.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let mut one = JoinSet::new();
    one.spawn_blocking(work);
    match one.join_next().await {
        Some(done) => done?,
        None => Err(anyhow::anyhow!("the work is gone")),
    }
}

async fn answer(
    State(shared): State<Arc<ServeShared>>,
    RawQuery(query): RawQuery,
    make: fn(&ServeShared, &str) -> ApiAnswer,
) -> Response {
    let outcome = blocking(move || make(&shared, &query.unwrap_or_default())).await;
    let (status, value) = outcome.unwrap_or_else(|error| {
        (StatusCode::INTERNAL_SERVER_ERROR, view::json(&Wrong { error: format!("{error:#}") }))
    });
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{value}\n")).into_response()
}

async fn metrics(
    State(shared): State<Arc<ServeShared>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    // A client may say what it takes in several lines.
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let form = Form::accepted(&accept.collect::<Vec<_>>().join(","));
    let all = asked(&query.unwrap_or_default(), "all=") == Some("1");
    match blocking(move || exposition(&shared, Request { form, all })).await {
        Ok(text) => {
            ([(header::CONTENT_TYPE, form.content_type()), (header::VARY, "Accept")], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n")).into_response(),
    }
}

fn exposition(shared: &ServeShared, request: Request) -> Result<String> {
    let mut own = {
        let state = shared.state();
        let count = |kind: HostEventKind| state.notices.get(kind.name()).copied().unwrap_or(0);
        Own {
            attached: Some(false),
            missed: state.missed,
            parts: state.parts.clone(),
            crashes: count(HostEventKind::Crash),
            core_actions: count(HostEventKind::Core),
            process: Some(ProcessUsage::read()),
        }
    };
    // Pins of another version are no guard that anything could be said of.
    let Ok(Some(guard)) = AttachedGuard::attached(&shared.pins) else {
        return metrics::text(None, &own, request);
    };
    let read =
        shared.slow(&guard).and_then(|slow| Kernel::read(&shared.pins, &slow.sizes, slow.stored.as_deref()));
    match read {
        Ok(kernel) => {
            own.attached = Some(status::unfiltered(&kernel.interfaces).is_empty());
            metrics::text(Some(&kernel), &own, request)
        }
        // It was detached in between.
        Err(_) if AttachedGuard::attached(&shared.pins)?.as_ref() != Some(&guard) => {
            metrics::text(None, &own, request)
        }
        Err(error) => Err(error),
    }
}

/// A health check that is green while nothing is filtered would mislead.
fn health(shared: &ServeShared, _query: &str) -> ApiAnswer {
    let failing = shared.state().parts.iter().filter(|(_, fails)| *fails).map(|(part, _)| *part).collect();
    let (status, guard) = match AttachedGuard::attached(&shared.pins) {
        Ok(Some(_)) => match filtering(&shared.pins) {
            Ok(Filtering { gone, absent }) if gone.is_empty() => (
                StatusCode::OK,
                if absent.is_empty() {
                    "attached".to_owned()
                } else {
                    format!("attached; not there now: {}", absent.join(" "))
                },
            ),
            Ok(Filtering { gone, .. }) => {
                (StatusCode::SERVICE_UNAVAILABLE, format!("nothing is filtered on {}", gone.join(" ")))
            }
            Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}")),
        },
        Ok(None) => (StatusCode::SERVICE_UNAVAILABLE, "not attached".to_owned()),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}")),
    };
    Ok((status, view::json(&Health { schema: "sipguard.health/1", guard, failing })))
}

/// The interfaces on which nothing is filtered that should be.
fn filtering(pins: &Pins) -> Result<Filtering> {
    let interfaces = status::interfaces(pins, &Clock::now()?)?;
    let absent = interfaces.iter().filter(|one| one.is_absent()).map(|one| one.name.clone()).collect();
    let gone = status::unfiltered(&interfaces).into_iter().map(str::to_owned).collect();
    Ok(Filtering { gone, absent })
}

/// Interfaces that are attached to and not filtered.
struct Filtering {
    /// Those where that is an alarm.
    gone: Vec<String>,
    /// Those that are not there.
    absent: Vec<String>,
}

/// An answer about an attached guard; without one it says so, with `none`.
fn while_attached<T: Serialize>(
    shared: &ServeShared,
    none: Option<T>,
    make: impl FnOnce(&ServeShared, &AttachedGuard) -> Result<T>,
) -> ApiAnswer {
    let absent = |none| ok(view::json(&Attached { attached: false, answer: none }));
    let Some(guard) = AttachedGuard::attached(&shared.pins)? else { return absent(none) };
    match make(shared, &guard) {
        Ok(answer) => {
            let attached = filtering(&shared.pins)?.gone.is_empty();
            ok(view::json(&Attached { attached, answer: Some(answer) }))
        }
        // It was detached in between.
        Err(_) if AttachedGuard::attached(&shared.pins)?.is_none() => absent(none),
        Err(error) => Err(error),
    }
}

fn overview(shared: &ServeShared) -> ApiAnswer {
    ok(view::json(&overview::overview(shared)?))
}

/// What a query says of `name`, which ends in `=`.
fn asked<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name))
}

fn wrong(error: String) -> ApiAnswer {
    Ok((StatusCode::BAD_REQUEST, view::json(&Wrong { error })))
}

fn senders(shared: &ServeShared, query: &str) -> ApiAnswer {
    match asked(query, "of=").unwrap_or(TalliedKind::default().name()).parse() {
        Ok(kind) => {
            let none = Some(FirstRows::none(schema::SENDERS));
            while_attached(shared, none, |shared, guard| rows::senders(shared, guard, kind))
        }
        Err(error) => wrong(format!("{error}, such as ?of=register")),
    }
}

fn history(shared: &ServeShared, query: &str) -> ApiAnswer {
    match asked(query, "hours=").unwrap_or("24").parse() {
        Ok(hours @ 1..=168) => ok(view::json(&rows::history(shared, hours)?)),
        _ => wrong("`hours` is a number from 1 to 168, such as ?hours=24".to_owned()),
    }
}
