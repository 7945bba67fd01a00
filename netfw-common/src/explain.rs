//! What a dry run of the datapath tells of a packet (`netfw explain`).

use crate::{family::Addr6, shared::shared, tuple::Tuple};

/// A decision on the way of a packet: its place in [`Account::notes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Note {
    /// The fail-safe door let it through.
    Door,
    /// It belongs to a flow.
    Flow,
    /// That flow was admitted by other rules; the present ones admit it too.
    Readmitted,
    /// Whether an end of it is blocked, as the stage says.
    Block,
    /// The link needs it.
    Link,
    /// Kernel index of the interface by which its source is reached; [`NOWHERE`]: there is no route.
    Back,
    /// What the routing table answered, as the datapath numbers it.
    Route,
    /// What the rules say: an action of [`crate::image`].
    Judged,
    /// It is a word of a port-forward's target, whose flow was lost: the rules are asked about the client.
    PickedUp,
    /// It opens a connection, or ends none, through a port-forward with `syn-proxy` while too many are being opened: what the
    /// datapath makes of it.
    Challenge,
}

/// How many kinds of notes there are.
pub const NOTES: usize = Note::Challenge as usize + 1;
/// Value of [`Note::Back`].
pub const NOWHERE: u32 = u32::MAX - 1;

/// What became of a packet, and why. Numbers are those of the datapath.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Account {
    /// The verdict plus 1; 0: the packet was none of netfw's business.
    pub verdict: u32,
    /// [`crate::reason::Reason`], where it was dropped.
    pub reason: u32,
    /// Their values plus 1, by [`Note`]; 0: the packet did not come so far.
    pub notes: [u32; NOTES],
    /// Number of the rules.
    pub generation: u32,
    /// The chain that judged.
    pub chain: u32,
    /// Port-forward entry, or `u32::MAX`.
    pub forward: u32,
    /// Stable id of the port-forward plus 1, or 0.
    pub forward_id: u32,
    /// None of its targets takes new flows.
    pub refused: u32,
    /// `[[masquerade]]`, or `u32::MAX`.
    pub masquerade: u32,
    /// Rule that decided, or `u32::MAX`.
    pub rule: u32,
    /// Flags of the flow that would be entered ([`crate::flow`]).
    pub flags: u32,
    /// How many source ports were drawn by chance.
    pub drawn: u32,
    /// Doesn't fit the way out.
    pub too_big: u32,
    /// Kernel index of the interface of the way out; 0: the stack routes it.
    pub out: u32,
    /// Its MTU; 0: not known.
    pub mtu: u32,
    /// The neighbour on that way, in the form of both families.
    pub gateway: Addr6,
    /// As the packet arrived, in the form of both families.
    pub arriving: Tuple<Addr6>,
    /// As it is planned to leave.
    pub leaving: Tuple<Addr6>,
}

impl Account {
    /// What was noted, if the packet came so far.
    pub fn note(&self, note: Note) -> Option<u32> {
        self.notes.get(note as usize)?.checked_sub(1)
    }

    /// Whether the flow that would be entered has one of these flags.
    pub fn has(&self, flags: u16) -> bool {
        self.flags & u32::from(flags) != 0
    }
}

shared! {
    Account {
        verdict, reason, notes, generation, chain, forward, forward_id, refused, masquerade, rule, flags, drawn, too_big, out,
        mtu, gateway, arriving, leaving
    }
}
