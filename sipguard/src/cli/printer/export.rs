//! `export`: rules as a list, in the form that is asked for.

use anyhow::Result;
use sipguard_core::exchange;
use sipguard_core::ops::export::Export;
use sipguard_core::ops::import::Form;
use sipguard_core::view::{self, RuleView, schema};

use super::{Format, Rows, print};

/// Prints a list while it is read.
pub fn export(form: Form, list: Export<'_>) -> Result<()> {
    let now_ms = list.now_ms;
    if form != Form::Json {
        print(&exchange::head(form, list.count))?;
        return list.each(&mut |rows| print(&exchange::lines(form, rows, now_ms)));
    }
    let mut out = Rows::new(Format::Json, schema::RULES, &[]);
    list.each(&mut |rows| {
        out.print(rows.iter().map(|row| (view::json(&RuleView::exported(row)), Vec::new())))
    })?;
    out.end(&[], None)
}
