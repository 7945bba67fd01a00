//! `[masquerade]`: under which addresses and ports inside hosts appear outside.

use std::net::IpAddr;

use super::{Dependence, Masquerade, names::Names};
use crate::config::{
    model,
    problems::Problems,
    source::{Span, Spanned},
};

/// Resolves one masquerade.
pub(super) fn masquerade<'m>(
    model: &'m model::Masquerade,
    names: &Names<'m>,
    problems: &mut Problems,
) -> Masquerade {
    let (built, _) = problems.about("masquerade", |problems| {
        check_filtering(model, problems);
        Masquerade {
            place: model.head.place(),
            from: names.select(Some(&model.from), problems),
            to: addresses(&model.to, names, problems),
            ports: model.ports,
            mapping: model.mapping,
            filtering: model.filtering.value,
        }
    });
    built
}

/// Who may be reached by everyone must have a port for everyone.
fn check_filtering(model: &model::Masquerade, problems: &mut Problems) {
    let (mapping, filtering) = (model.mapping, model.filtering.value);
    if filtering == Dependence::Independent && mapping != Dependence::Independent {
        let message = "\"filtering\" cannot be endpoint-independent where \"mapping\" is not";
        let help = "write mapping = \"endpoint-independent\" beside it";
        problems.error(&model.filtering.span, message, help);
    }
}

/// The outside addresses, none of them twice.
fn addresses(words: &[Spanned<model::HostWord>], names: &Names<'_>, problems: &mut Problems) -> Vec<IpAddr> {
    let mut all = Vec::new();
    for word in words {
        for address in names.host(&word.value, &word.span, problems).unwrap_or_default() {
            check_address(address, &all, &word.span, problems);
            all.push(address);
        }
    }
    all
}

fn check_address(address: IpAddr, earlier: &[IpAddr], span: &Span, problems: &mut Problems) {
    if earlier.contains(&address) {
        problems.error(span, format!("{address} is in the list twice"), "write each address once");
    }
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast() || v4.is_link_local());
    let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() || broadcast || link_local
    {
        let message = format!("{address} cannot be the source of a packet that leaves");
        problems.error(span, message, "write an address that the outside can answer");
    }
}
