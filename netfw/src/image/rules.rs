//! What rules decide; who they match is spread over the other tables.

use netfw_common::{
    image::{self, LIMIT_PER_SOURCE, LOG},
    limit,
};

use super::header;
use crate::policy::{Action, LimitScope, Rule};

/// The decision of a rule with this stable id.
pub(super) fn decision(rule: &Rule, id: u16) -> image::Rule {
    // Both sides of the limit of a rule that drops are the same.
    let limit = rule.limit.filter(|_| rule.action != Action::Drop);
    let per_source = limit.is_some_and(|limit| limit.scope == LimitScope::Source);
    image::Rule {
        action: header::action(rule.action),
        counter: id.into(),
        flags: if per_source { LIMIT_PER_SOURCE } else { 0 } | if rule.log { LOG } else { 0 },
        reserved: 0,
        limit: limit.map_or_else(limit::Limit::default, |limit| {
            limit::Limit::new(limit.flows, limit.period.as_nanos() as u64, limit.burst)
        }),
    }
}
