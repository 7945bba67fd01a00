//! Rules that wait for confirmation: what they refuse is suspended, not cut. (Scenario 24.)

use super::change::{forwards, open};
use crate::packet::{Gateway, SYN, Side};

const SSH: &[(u16, &str)] = &[(2201, "worker1:22")];

/// Nothing of a refused flow changes, in both directions and however often it tries; rules taken back revive it.
pub fn a_refused_flow_is_revived(gateway: &mut Gateway) {
    gateway.apply(&forwards(SSH));
    let (sent, arrived) = open(gateway, 2201);
    gateway.try_out("");
    for _ in 0..2 {
        gateway.outside(&sent).dropped("suspended");
        gateway.inside(&arrived.answer()).dropped("suspended");
    }
    let new = sent.flags(SYN).from(gateway.world.at("client", 4001));
    gateway.outside(&new).dropped("policy-input");
    gateway.roll_back();
    gateway.outside(&sent).forwarded(Side::Inside, &arrived);
    gateway.inside(&arrived.answer()).forwarded(Side::Outside, &sent.answer().hop());
}

/// Confirmed rules cut what they have suspended.
pub fn a_refused_flow_is_cut_at_last(gateway: &mut Gateway) {
    gateway.apply(&forwards(SSH));
    let (sent, _) = open(gateway, 2201);
    gateway.try_out("");
    gateway.outside(&sent).dropped("suspended");
    gateway.confirm();
    let _ = gateway.outside(&sent).answered("flow-cut");
    gateway.outside(&sent).dropped("policy-input");
}

/// What both admit does not notice, whether the rules are confirmed, replaced or taken back.
pub fn an_admitted_flow_goes_on(gateway: &mut Gateway) {
    gateway.apply(&forwards(SSH));
    let (sent, arrived) = open(gateway, 2201);
    let goes_on = |gateway: &mut Gateway| {
        gateway.outside(&sent).forwarded(Side::Inside, &arrived);
        gateway.inside(&arrived.answer()).forwarded(Side::Outside, &sent.answer().hop());
    };
    let more = forwards(&[(2201, "worker1:22"), (2202, "worker2:22")]);
    gateway.try_out(&more);
    goes_on(gateway);
    gateway.try_out(&forwards(SSH));
    goes_on(gateway);
    gateway.roll_back();
    goes_on(gateway);
    gateway.try_out(&more);
    goes_on(gateway);
    gateway.confirm();
    goes_on(gateway);
}

/// A second candidate may admit again what the first one has suspended.
pub fn another_candidate_revives(gateway: &mut Gateway) {
    gateway.apply(&forwards(SSH));
    let (sent, arrived) = open(gateway, 2201);
    gateway.try_out("");
    gateway.outside(&sent).dropped("suspended");
    gateway.try_out(&forwards(SSH));
    gateway.outside(&sent).forwarded(Side::Inside, &arrived);
}

/// What only the candidate has admitted ends with it.
pub fn a_flow_of_the_candidate_ends_with_it(gateway: &mut Gateway) {
    gateway.apply("");
    gateway.try_out(&forwards(SSH));
    let (sent, _) = open(gateway, 2201);
    gateway.roll_back();
    let _ = gateway.outside(&sent).answered("flow-cut");
    gateway.outside(&sent).dropped("policy-input");
}

/// A flow that the old rules kept although they refuse it (`on-change = "keep"`) is not lost to a candidate that keeps
/// nothing, nor to one that admits it.
pub fn a_kept_flow_is_not_lost(gateway: &mut Gateway) {
    gateway.apply(&forwards(SSH));
    let (sent, arrived) = open(gateway, 2201);
    gateway.apply("[flows]\non-change = \"keep\"\n");
    gateway.outside(&sent).forwarded(Side::Inside, &arrived);
    gateway.try_out("");
    gateway.outside(&sent).dropped("suspended");
    gateway.try_out(&forwards(SSH));
    gateway.outside(&sent).forwarded(Side::Inside, &arrived);
    gateway.roll_back();
    gateway.outside(&sent).forwarded(Side::Inside, &arrived);
}
