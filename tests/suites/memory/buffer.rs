//! A packet in a byte buffer.

use netfw_common::checksum::Sum;
use netfw_ebpf::datapath::context::{ANSWER_HALVES, Context, Hook, MAX_OFFSET, Quote, View};

/// The hooks, as numbers.
pub(crate) const XDP: u8 = 0;
pub(crate) const INGRESS: u8 = 1;
pub(crate) const EGRESS: u8 = 2;

/// A frame at a hook.
pub(crate) struct Buffer<const HOOK: u8> {
    /// All of it.
    pub(crate) frame: Vec<u8>,
    /// Wire packets in it.
    pub(crate) segments: u32,
    /// Egress: the interface that isn't managed and on which it came in; 0: none.
    pub(crate) arrived: u32,
}

/// Bytes whose presence was checked; looking beyond them is a panic.
pub(crate) struct Slice<'a>(&'a [u8]);

impl Slice<'_> {
    fn chunk<const N: usize>(&self, at: u32) -> [u8; N] {
        let at = at as usize;
        self.0[at..at + N].try_into().expect("N bytes")
    }
}

impl View for Slice<'_> {
    fn byte(&self, at: u32) -> u8 {
        self.0[at as usize]
    }

    fn half(&self, at: u32) -> u16 {
        u16::from_ne_bytes(self.chunk(at))
    }

    fn word(&self, at: u32) -> u32 {
        u32::from_ne_bytes(self.chunk(at))
    }
}

impl<const HOOK: u8> Context for Buffer<HOOK> {
    const HOOK: Hook = match HOOK {
        XDP => Hook::Xdp,
        INGRESS => Hook::Ingress,
        _ => Hook::Egress,
    };

    type View<'a> = Slice<'a>;

    fn length(&self) -> u32 {
        self.frame.len() as u32
    }

    fn segments(&self) -> u32 {
        self.segments
    }

    fn view<const LENGTH: u32>(&self, offset: u32) -> Option<Slice<'_>> {
        if offset > MAX_OFFSET {
            return None;
        }
        self.frame.get(offset as usize..(offset + LENGTH) as usize).map(Slice)
    }

    fn store<const N: usize>(&mut self, offset: u32, halves: &[u16; N]) -> bool {
        let bytes: Vec<u8> = halves.iter().flat_map(|half| half.to_ne_bytes()).collect();
        let offset = offset as usize;
        let Some(place) = self.frame.get_mut(offset..offset + bytes.len()) else { return false };
        place.copy_from_slice(&bytes);
        true
    }

    fn fix_checksum(&mut self, offset: u32, pseudo: Sum, plain: Sum, udp: bool) -> bool {
        let Some(field) = self.view::<2>(offset).map(|view| view.half(0)) else { return false };
        let delta = pseudo + plain;
        let fixed = if udp { delta.update_udp(field) } else { delta.update(field) };
        self.store(offset, &[fixed])
    }

    fn quote(&self, length: u32, into: &mut Quote) -> bool {
        let Some(bytes) = self.frame.get(14..14 + length as usize) else { return false };
        for (word, bytes) in into.iter_mut().zip(bytes.chunks(4)) {
            let mut padded = [0; 4];
            padded[..bytes.len()].copy_from_slice(bytes);
            *word = u32::from_ne_bytes(padded);
        }
        HOOK != XDP
    }

    fn replace(&mut self, frame: &[u16; ANSWER_HALVES], length: u32, quote: &Quote, quoted: u32) -> bool {
        if (HOOK == XDP && quoted != 0) || length as usize > 2 * ANSWER_HALVES {
            return false;
        }
        self.frame = frame.iter().flat_map(|half| half.to_ne_bytes()).take(length as usize).collect();
        self.frame.extend(quote.iter().flat_map(|word| word.to_ne_bytes()).take(quoted as usize));
        true
    }
}
