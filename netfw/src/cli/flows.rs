//! `netfw flows` and `netfw flows cut`.

use std::io::{self, BufWriter};

use anyhow::{Context as _, Result};
use netfw_common::image::Policy;
use tokio::time::sleep;

use super::{
    args::{FlowAction, FlowFilter, Flows, period, screenful},
    output,
    run::open,
};
use crate::{
    daemon::{Instance, state::State, sweep::Cutter},
    kernel::{Maps, Pair, now},
    report::flows::{Document, Filter, Page, Selection, Teller},
};

/// What is needed to find flows and to tell of them.
struct Source {
    state: State,
    maps: Maps,
    policy: Policy,
}

impl Source {
    fn open(instance: &Instance) -> Result<Self> {
        let (state, maps) = open(instance)?;
        let policy = maps.policy()?.context("no policy holds")?;
        Ok(Self { state, maps, policy })
    }

    /// Shows each flow once.
    fn each(&self, selection: &Selection<'_>, mut visit: impl FnMut(&Pair) -> Result<()>) -> Result<()> {
        let selected = |pair: &Pair| if selection.selects(pair) { visit(pair) } else { Ok(()) };
        self.maps.each_flow_once(|pair| selection.may_select(pair), selected)
    }

    /// Ends flows, and shows each; one that has moved meanwhile is ended, and shown, where it is then.
    fn cut(&self, selection: &Selection<'_>, mut visit: impl FnMut(&Pair) -> Result<()>) -> Result<()> {
        let cutter = Cutter::new(&self.maps);
        let selected = |pair: &Pair| {
            if selection.selects(pair) {
                cutter.cut(pair)?;
                visit(pair)?;
            }
            Ok(())
        };
        self.maps.each_flow(|pair| selection.may_select(pair), selected)
    }
}

/// Does what was typed.
///
/// # Errors
/// What the kernel says; nobody reads the list.
pub(super) async fn run(instance: &Instance, json: bool, typed: &Flows) -> Result<()> {
    if let Some(FlowAction::Cut(filter)) = &typed.action {
        return cut(&Source::open(instance)?, json, filter);
    }
    loop {
        let source = Source::open(instance)?;
        if typed.watch.is_some() && !json {
            output::clear_screen();
        }
        list(&source, json, typed)?;
        match typed.watch {
            Some(seconds) => sleep(period(seconds)).await,
            None => return Ok(()),
        }
    }
}

fn list(source: &Source, json: bool, typed: &Flows) -> Result<()> {
    let filter = Filter::from(&typed.filter);
    let selection = filter.with_ids(&source.state.ids);
    let now = now();
    let teller = Teller::new(&source.state.ids, &source.policy, now);
    if json && typed.page.is_everything() {
        let mut document = Document::begin(BufWriter::new(io::stdout().lock()), &teller)?;
        source.each(&selection, |pair| document.add(pair))?;
        return document.end(None);
    }
    let mut page = Page::new(typed.page.wanted(json), now);
    source.each(&selection, |pair| {
        page.add(pair);
        Ok(())
    })?;
    show(page, json, &teller)
}

/// Ends flows and shows them, as they were.
fn cut(source: &Source, json: bool, filter: &FlowFilter) -> Result<()> {
    let filter = Filter::from(filter);
    let selection = filter.with_ids(&source.state.ids);
    let now = now();
    let teller = Teller::new(&source.state.ids, &source.policy, now);
    if json {
        let mut document = Document::begin(BufWriter::new(io::stdout().lock()), &teller)?;
        source.cut(&selection, |pair| document.add(pair))?;
        return document.end(None);
    }
    let mut page = Page::new(screenful(), now);
    source.cut(&selection, |pair| {
        page.add(pair);
        Ok(())
    })?;
    show(page, json, &teller)
}

fn show(page: Page, json: bool, teller: &Teller<'_>) -> Result<()> {
    let total = page.total();
    let pairs = page.into_flows();
    if !json {
        return output::text(&teller.render(&pairs, total));
    }
    let mut document = Document::begin(BufWriter::new(io::stdout().lock()), teller)?;
    pairs.iter().try_for_each(|pair| document.add(pair))?;
    document.end(Some(total))
}
