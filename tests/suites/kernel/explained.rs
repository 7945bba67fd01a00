//! What the datapath says that it would do with a packet is what it does.

use netfw::kernel::Told;
use netfw_tests::packet::{Hook, Ran};

use crate::loaded::action;

/// Fails where the datapath did something else than it had told.
pub(crate) fn compare(told: &Told, ran: &Ran, hook: Hook) {
    assert_eq!(action(hook, told.action), ran.action, "{told:?}");
    // What chance has chosen it may choose otherwise the next time.
    if told.account.is_none_or(|account| account.drawn == 0) {
        assert_eq!(told.frame, ran.frame, "{told:?}");
    }
}
