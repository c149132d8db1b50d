//! What the operator chose: pane, order, filter, row. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::dialog::Dialog;
use super::model::Model;
use super::offenders;
use super::pane::Pane;
use super::rows::{self, TopRow};

/// What is open above the panes.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum OpenDialog {
    /// Nothing.
    #[default]
    Nothing,
    /// The keys.
    Help,
    /// The line of the filter, with the filter that was there before.
    Filter(String),
    /// Questions.
    Dialog(Dialog),
}

/// How a pane is looked at.
#[derive(Clone, Debug)]
pub struct PaneView {
    /// The column that it is sorted by.
    pub column: usize,
    /// Whether the greatest comes first.
    pub descending: bool,
    /// The chosen row's place.
    pub index: usize,
    /// The first row that is seen.
    pub offset: usize,
    /// The chosen row itself, which its place follows.
    id: Option<String>,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct TopState {
    /// The pane.
    pub pane: Pane,
    /// How each pane is looked at.
    views: [PaneView; Pane::ALL.len()],
    /// Text that rows must have.
    pub filter: String,
    /// What is open.
    pub open: OpenDialog,
    /// The model as it was when it was paused.
    pub paused: Option<Box<Model>>,
    /// What was done last, and whether it failed.
    pub told: Option<(String, bool)>,
    /// Addresses whose ports are shown.
    pub opened: BTreeSet<IpAddr>,
    /// Rows that a page has.
    pub page: usize,
}

impl Default for TopState {
    fn default() -> TopState {
        let view = |pane: Pane| {
            let (column, descending) = pane.order();
            PaneView { column, descending, index: 0, offset: 0, id: None }
        };
        TopState {
            pane: Pane::Sources,
            views: Pane::ALL.map(view),
            filter: String::new(),
            open: OpenDialog::Nothing,
            paused: None,
            told: None,
            opened: BTreeSet::new(),
            page: 1,
        }
    }
}

impl TopState {
    /// How the pane is looked at.
    #[must_use]
    pub fn view(&self) -> &PaneView {
        &self.views[self.pane.index()]
    }

    fn view_mut(&mut self) -> &mut PaneView {
        &mut self.views[self.pane.index()]
    }

    /// The rows of the pane; the chosen one is found again where it went.
    pub fn rows(&mut self, model: &Model) -> Vec<TopRow> {
        let view = self.view();
        let rows = rows::rows(model, self.pane, &self.filter, (view.column, view.descending), &self.opened);
        let view = self.view_mut();
        let found = view.id.as_ref().and_then(|id| rows.iter().position(|row| row.id == *id));
        view.index = found.unwrap_or(view.index).min(rows.len().saturating_sub(1));
        rows
    }

    /// Chooses another row, so many rows away.
    pub fn go(&mut self, rows: &[TopRow], by: isize) {
        let view = self.view_mut();
        let last = rows.len().saturating_sub(1);
        view.index = view.index.saturating_add_signed(by).min(last);
        view.id = rows.get(view.index).map(|row| row.id.clone());
        // At the top the eye wants the first row, whichever that is.
        if view.index == 0 {
            view.id = None;
        }
    }

    /// Keeps to the chosen row, also where it is the first.
    pub fn hold(&mut self, rows: &[TopRow]) {
        let view = self.view_mut();
        view.id = rows.get(view.index).map(|row| row.id.clone());
    }

    /// Moves what is seen so that the chosen row is in it.
    pub fn scroll(&mut self, count: usize, page: usize) {
        self.page = page.max(1);
        let page = self.page;
        let view = self.view_mut();
        view.offset = view.offset.min(count.saturating_sub(page)).min(view.index);
        view.offset = view.offset.max((view.index + 1).saturating_sub(page));
    }

    /// Sorts by the next column, or by the one before.
    pub fn sort(&mut self, forward: bool) {
        let columns = self.pane.columns();
        let count = columns.len();
        let step = if forward { 1 } else { count - 1 };
        let view = self.view_mut();
        view.column = (view.column + step) % count;
        while columns[view.column].head.is_empty() {
            view.column = (view.column + step) % count;
        }
        // Of numbers the greatest is looked for; of text the first.
        view.descending = columns[view.column].number && columns[view.column].head != "LAST";
    }

    /// Shows the ports of the address of the chosen row, or no longer.
    pub fn open_ports(&mut self, rows: &[TopRow]) {
        let row = rows.get(self.view().index).filter(|_| self.pane == Pane::Sources);
        let Some(address) = row.and_then(|row| offenders::address_of(row.subject.as_ref()?)) else { return };
        if !self.opened.remove(&address) {
            self.opened.insert(address);
        }
        // A port that is shown no longer leaves the choice to its address.
        let id = Some(address.to_string());
        self.view_mut().id = id;
    }

    /// Turns the order round.
    pub fn turn(&mut self) {
        let view = self.view_mut();
        view.descending = !view.descending;
    }

    /// Goes to the pane that is so many tabs further.
    pub fn tab(&mut self, by: usize) {
        self.pane = Pane::ALL[(self.pane.index() + by) % Pane::ALL.len()];
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::top::fixture::fixed;

    #[test]
    fn the_chosen_row_is_followed_and_the_first_place_is_not() {
        let (mut model, mut state) = (Model::default(), TopState::default());
        model.take(fixed(10));
        let rows = state.rows(&model);
        state.go(&rows, 1);
        let selected = rows[1].id.clone();
        state.turn();
        let rows = state.rows(&model);
        assert_eq!(rows[state.view().index].id, selected);
        state.go(&rows, -5);
        state.turn();
        state.rows(&model);
        assert_eq!(state.view().index, 0);
    }

    #[test]
    fn a_row_that_goes_leaves_its_place_to_another() {
        let (mut model, mut state) = (Model::default(), TopState::default());
        model.take(fixed(10));
        let rows = state.rows(&model);
        state.go(&rows, 100);
        assert_eq!(state.view().index, rows.len() - 1);
        state.filter = "control".to_owned();
        assert_eq!((state.rows(&model).len(), state.view().index), (1, 0));
    }

    #[test]
    fn what_is_seen_holds_the_chosen_row() {
        let mut state = TopState::default();
        state.view_mut().index = 30;
        state.scroll(50, 10);
        assert_eq!(state.view().offset, 21);
        state.view_mut().index = 5;
        state.scroll(50, 10);
        assert_eq!(state.view().offset, 5);
        state.view_mut().index = 3;
        state.scroll(4, 10);
        assert_eq!(state.view().offset, 0);
    }

    #[test]
    fn columns_without_a_head_are_no_order() {
        let mut state = TopState::default();
        let mut seen = Vec::new();
        for _ in 0..7 {
            state.sort(true);
            seen.push(state.view().column);
        }
        assert_eq!(seen, [5, 6, 7, 8, 1, 2, 3]);
        assert!(state.view().descending);
        state.sort(false);
        state.sort(false);
        assert_eq!((state.view().column, state.view().descending), (1, false));
    }
}
