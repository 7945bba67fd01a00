//! Conversations that the master was having before netfw came are entered as proven flows, so that the first
//! rules do not end them.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, bail};
use netfw_common::{
    family::{Addr6, Address as _, addr4, addr6},
    flow::{Flow, LOCAL, REPLY, judged_by},
    image::{INPUT, OUTPUT},
    tcp::Seen,
    tuple::Tuple,
};

use super::{
    bloom::Notes,
    flows::{narrow, narrow_tuple, now},
    maps::Maps,
    sys::random,
    table::ANY,
};

/// A conversation of a local program.
#[derive(Clone, Copy, Debug)]
pub struct Conversation {
    /// IP protocol number.
    pub protocol: u8,
    /// Our end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Whether the other end opened it.
    pub incoming: bool,
    /// Slot of the interface that it uses; 0: not a managed one.
    pub interface: u8,
}

impl Maps {
    /// Enters conversations; says how many found room.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn adopt(&self, conversations: &[Conversation], generation: u32) -> Result<u32> {
        let (v6, v4): (Vec<_>, Vec<_>) = conversations.iter().partition(|one| one.remote.is_ipv6());
        let notes = self.notes()?;
        let mut entered = 0;
        for (hand, family) in [v4, v6].iter().enumerate() {
            let room = self.flows4.places.capacity();
            let fitting = (0..room).zip(family);
            for (place, conversation) in fitting.clone() {
                self.enter(conversation, generation, place, &notes)
                    .context("cannot enter an existing connection")?;
            }
            let count = fitting.count() as u32;
            self.hands.set(&(hand as u32), count.into(), ANY)?;
            entered += count;
        }
        Ok(entered)
    }

    fn enter(&self, conversation: &Conversation, generation: u32, place: u32, notes: &Notes) -> Result<()> {
        let arriving = tuple(conversation)?;
        let leaving = arriving.reversed();
        let (first, second) = if conversation.incoming { (arriving, leaving) } else { (leaving, arriving) };
        let id = u32::from_ne_bytes(random()?);
        let v6 = conversation.remote.is_ipv6();
        let chain = if conversation.incoming { INPUT } else { OUTPUT };
        // Sockets that share an address share their flows too: the last one stands for all.
        for (key, reply) in [(second, REPLY), (first, 0)] {
            let end = if key == arriving { LOCAL } else { 0 };
            let flow = Flow {
                id,
                leaving: key,
                generation,
                last_seen: now().0,
                created: now().0,
                interface: conversation.interface,
                seen: Seen::PACKET | Seen::ANSWER,
                flags: reply | end | judged_by(chain),
                ..Flow::default()
            };
            if v6 {
                notes.add(&key);
                self.flows6.proven.enter(&key, &flow)?;
            } else {
                let key = narrow_tuple(&key);
                notes.add(&key);
                self.flows4.proven.enter(&key, &narrow(&flow))?;
            }
        }
        if v6 {
            self.flows6.places.set(&place, first, ANY)?;
        } else {
            self.flows4.places.set(&place, narrow_tuple(&first), ANY)?;
        }
        Ok(())
    }
}

/// What arrives from the other end.
fn tuple(conversation: &Conversation) -> Result<Tuple<Addr6>> {
    let (source, destination) = match (conversation.remote.ip(), conversation.local.ip()) {
        (IpAddr::V4(remote), IpAddr::V4(local)) => (addr4(remote).widen(), addr4(local).widen()),
        (IpAddr::V6(remote), IpAddr::V6(local)) => (addr6(remote), addr6(local)),
        _ => bail!("a connection between families"),
    };
    Ok(Tuple {
        source,
        destination,
        source_port: conversation.remote.port(),
        destination_port: conversation.local.port(),
        protocol: conversation.protocol.into(),
    })
}
