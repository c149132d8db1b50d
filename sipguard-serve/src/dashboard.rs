//! The dashboard: one page that reads the API and changes nothing. Its files are in `dashboard/`.

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::routing::get;

/// Nothing from elsewhere, nothing in the markup: what an offender sent can't become code.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Path, type and content of each file.
const FILES: [(&str, &str, &str); 8] = [
    ("/", HTML, include_str!("dashboard/index.html")),
    ("/dashboard.css", CSS, include_str!("dashboard/dashboard.css")),
    ("/dashboard.js", JS, include_str!("dashboard/dashboard.js")),
    ("/plot.js", JS, include_str!("dashboard/plot.js")),
    ("/table.js", JS, include_str!("dashboard/table.js")),
    ("/uplot.css", CSS, include_str!("dashboard/uplot/uPlot.min.css")),
    ("/uplot.js", JS, include_str!("dashboard/uplot/uPlot.iife.min.js")),
    ("/uplot-license.txt", TEXT, include_str!("dashboard/uplot/LICENSE")),
];

/// Adds the page to the routes.
pub(crate) fn add<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    FILES.into_iter().fold(router, |router, (path, kind, text)| {
        let headers = [
            (CONTENT_TYPE, kind),
            (CONTENT_SECURITY_POLICY, POLICY),
            (REFERRER_POLICY, "no-referrer"),
            // Another version's page would not understand the answers.
            (CACHE_CONTROL, "no-cache"),
        ];
        router.route(path, get(move || async move { (headers, text) }))
    })
}

#[cfg(test)]
mod tests;
