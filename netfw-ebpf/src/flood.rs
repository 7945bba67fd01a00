//! A million strangers for `cargo xtask bench`: a source of SYNs or datagrams from as many addresses, and what stands in for those
//! that they speak to. And a gateway that is none, as the least that one can cost.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(unsafe_code, reason = "frames and counters are reached by raw pointers")
)]

#[cfg(target_arch = "bpf")]
mod object;

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        Global,
        bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX},
        helpers::{bpf_ktime_get_ns, bpf_redirect, generated::bpf_xdp_adjust_tail},
        macros::{map, xdp},
        maps::Array,
        programs::XdpContext,
    };

    /// A frame over IPv4 of 64 bytes in native words, without its source address and port; in place of both checksums the sum of all
    /// else that they cover.
    type Template = [u64; 8];

    /// What is sent.
    #[unsafe(no_mangle)]
    static FRAME: Global<Template> = Global::new([0; 8]);
    /// Not 0: segments of TCP, whose checksum lies elsewhere than that of datagrams.
    #[unsafe(no_mangle)]
    static SEGMENTS: Global<u32> = Global::new(0);
    /// The first source address.
    #[unsafe(no_mangle)]
    static FIRST: Global<u32> = Global::new(0);
    /// Which bits of a random number are added to it.
    #[unsafe(no_mangle)]
    static RANDOM: Global<u32> = Global::new(0);
    /// Not 0: sources come in turn, in groups of so many, each [`REPEATS`] times.
    #[unsafe(no_mangle)]
    static GROUP: Global<u32> = Global::new(0);
    /// How often a group comes.
    #[unsafe(no_mangle)]
    static REPEATS: Global<u32> = Global::new(1);
    /// Nanoseconds from one frame to the next.
    #[unsafe(no_mangle)]
    static PACE: Global<u64> = Global::new(0);
    /// Frames that may be under way; 0: any number.
    #[unsafe(no_mangle)]
    static UNDER_WAY: Global<u32> = Global::new(0);
    /// Not 0: the target does not answer strangers.
    #[unsafe(no_mangle)]
    static SILENT: Global<u32> = Global::new(0);

    /// Where [`wire`] sends: kernel index of the interface, and both link addresses as a frame begins with them.
    #[unsafe(no_mangle)]
    static OUT: Global<u32> = Global::new(0);
    #[unsafe(no_mangle)]
    static MACS: Global<[u16; 6]> = Global::new([0; 6]);

    /// Frames made so far, of those the ones that are taken for lost, and the time of the next one.
    #[map]
    static MADE: Array<[u64; 3]> = Array::with_max_entries(1, 0);
    /// Frames of strangers that came to the target.
    #[map]
    static ARRIVED: Array<u64> = Array::with_max_entries(1, 0);
    /// Not 0: the source makes no more.
    #[map]
    static STOP: Array<u32> = Array::with_max_entries(1, 0);

    const FIRST_PORT: u32 = 1024;
    /// After how many frames the source looks whether it may go on: while it waits, its core does nothing else.
    const BATCH: u64 = 16;
    /// How long the source waits for frames to arrive until it takes them for lost, in moments.
    const PATIENCE: u32 = 200;
    /// Looks in a moment.
    const LOOKS: u32 = 1000;

    /// Makes the next frame and sends it out where it seems to have come in.
    #[xdp]
    fn flood(ctx: XdpContext) -> u32 {
        if !is_whole(&ctx) {
            return XDP_ABORTED;
        }
        let Some(frame) = at::<Template>(&ctx, 0) else { return XDP_ABORTED };
        let Some(made) = MADE.get_ptr_mut(0) else { return XDP_ABORTED };
        // SAFETY: only one core makes frames, and the program cannot be interrupted by itself.
        let [number, lost, next] = unsafe { &mut *made };
        if *number % BATCH == 0 {
            if STOP.get(0).is_none_or(|stop| *stop != 0) {
                return XDP_DROP;
            }
            if !wait(number.wrapping_sub(*lost), *next) {
                *lost = number.wrapping_sub(arrived());
            }
            *next = after(*next);
        }
        let (address, port) = source(*number);
        *number += 1;
        // SAFETY: the bounds were checked; frames of a test run begin at a multiple of eight.
        unsafe { *frame = finished(FRAME.load(), address, port) };
        XDP_TX
    }

    /// Gives a frame its length. It begins with another, because the kernel sends a frame as long as it was when it was last here, where
    /// the program leaves the length as it is; and a gateway may have shortened it.
    #[inline(always)]
    fn is_whole(ctx: &XdpContext) -> bool {
        let missing = size_of::<Template>() as i32 - (ctx.data_end() - ctx.data()) as i32;
        // SAFETY: the context is valid while the program runs; no pointer into the frame was taken yet.
        missing == 0 || unsafe { bpf_xdp_adjust_tail(ctx.ctx, missing) == 0 }
    }

    /// Address and port of a frame.
    #[inline(always)]
    fn source(number: u64) -> (u32, u16) {
        if GROUP.load() == 0 {
            let lot = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            return (
                FIRST.load() + ((lot >> 32) as u32 & RANDOM.load()),
                (lot >> 16) as u16 | FIRST_PORT as u16,
            );
        }
        let group = u64::from(GROUP.load());
        let all = group * u64::from(REPEATS.load());
        let number = number.checked_div(all).unwrap_or(0) * group + number.checked_rem(group).unwrap_or(0);
        (FIRST.load() + (number & 0xffff) as u32, (FIRST_PORT + (number >> 16) as u32) as u16)
    }

    /// With source and checksums.
    #[inline(always)]
    fn finished(mut words: Template, address: u32, port: u16) -> Template {
        let (address, port) = (address.to_be(), u32::from(port.to_be()));
        let sum = (address & 0xffff) + (address >> 16);
        let header = !folded((words[3] & 0xffff) as u32 + sum);
        words[3] = words[3] & !0xffff_ffff_ffff | u64::from(address) << 16 | u64::from(header);
        words[4] = words[4] & !0xffff_0000 | u64::from(port) << 16;
        if SEGMENTS.load() != 0 {
            let segment = !folded((words[6] >> 16 & 0xffff) as u32 + sum + port);
            words[6] = words[6] & !0xffff_0000 | u64::from(segment) << 16;
        } else {
            let datagram = !folded((words[5] & 0xffff) as u32 + sum + port);
            words[5] = words[5] & !0xffff | u64::from(datagram);
        }
        words
    }

    /// Waits until it is time for the next frames, and few enough of `sent` are under way; false: they never will be.
    #[inline(always)]
    fn wait(sent: u64, next: u64) -> bool {
        for _ in 0..PATIENCE {
            if moment(sent, next) != 0 {
                return true;
            }
        }
        false
    }

    /// Waits a little; not 0: long enough. The verifier follows a loop round by round, but a global function once.
    #[unsafe(no_mangle)]
    #[inline(never)]
    extern "C" fn moment(sent: u64, next: u64) -> u32 {
        let most = u64::from(UNDER_WAY.load());
        for _ in 0..LOOKS {
            if (PACE.load() == 0 || now() >= next) && (most == 0 || sent.wrapping_sub(arrived()) <= most) {
                return 1;
            }
        }
        0
    }

    /// The time of the frames after those: what could not be sent in time is not sent at once later.
    #[inline(always)]
    fn after(next: u64) -> u64 {
        let step = BATCH * PACE.load();
        if step == 0 { 0 } else { next.max(now().saturating_sub(step)) + step }
    }

    #[inline(always)]
    fn now() -> u64 {
        // SAFETY: reads the clock.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn arrived() -> u64 {
        // SAFETY: an aligned word of a map.
        ARRIVED.get_ptr(0).map_or(0, |arrived| unsafe { arrived.read_volatile() })
    }

    /// Counts what strangers send to the target, and lets it through to the target's stack or not.
    #[xdp]
    fn target(ctx: XdpContext) -> u32 {
        let Some(source) = at::<[u16; 2]>(&ctx, 26) else { return XDP_PASS };
        // SAFETY: the bounds were checked, and the offset is even.
        if !is_strange(unsafe { *source }) {
            return XDP_PASS;
        }
        count();
        if SILENT.load() != 0 { XDP_DROP } else { XDP_PASS }
    }

    /// Counts what comes back to strangers, who are not there; everybody else's goes on.
    #[xdp]
    fn challenged(ctx: XdpContext) -> u32 {
        let Some(destination) = at::<[u16; 2]>(&ctx, 30) else { return XDP_PASS };
        // SAFETY: the bounds were checked, and the offset is even.
        if !is_strange(unsafe { *destination }) {
            return XDP_PASS;
        }
        count();
        XDP_DROP
    }

    /// Whether an address is one of a stranger.
    #[inline(always)]
    fn is_strange([high, low]: [u16; 2]) -> bool {
        let address = u32::from(u16::from_be(high)) << 16 | u32::from(u16::from_be(low));
        address & !RANDOM.load() == FIRST.load()
    }

    /// Sends every datagram back to where it comes from.
    #[xdp]
    fn answer(ctx: XdpContext) -> u32 {
        let (Some(macs), Some(ends)) = (at::<[u16; 6]>(&ctx, 0), at::<[u16; 6]>(&ctx, 26)) else {
            return XDP_PASS;
        };
        let Some(protocol) = at::<[u8; 2]>(&ctx, 22) else { return XDP_PASS };
        // SAFETY: the bounds were checked, and the offsets are even.
        unsafe {
            if (*protocol)[1] != 17 {
                return XDP_PASS;
            }
            let [a, b, c, d, e, f] = *macs;
            *macs = [d, e, f, a, b, c];
            let [a, b, c, d, from, to] = *ends;
            *ends = [c, d, a, b, to, from];
        }
        count();
        XDP_TX
    }

    /// The least that a gateway can do in XDP: sends on what arrives, to the next host.
    #[xdp]
    fn wire(ctx: XdpContext) -> u32 {
        let Some(macs) = at::<[u16; 6]>(&ctx, 0) else { return XDP_DROP };
        // SAFETY: the bounds were checked, and every frame begins at an even address; the helper takes any index.
        unsafe {
            *macs = MACS.load();
            bpf_redirect(OUT.load(), 0) as u32
        }
    }

    #[inline(always)]
    fn count() {
        if let Some(arrived) = ARRIVED.get_ptr_mut(0) {
            // SAFETY: only one core polls the target's interface, and the program cannot be interrupted by itself.
            unsafe { *arrived += 1 };
        }
    }

    /// One's complement sum in 16 bits, of a sum of a few such.
    #[inline(always)]
    fn folded(sum: u32) -> u16 {
        let sum = (sum & 0xffff) + (sum >> 16);
        ((sum & 0xffff) + (sum >> 16)) as u16
    }

    /// Where `T` lies in the frame, if it does to its end.
    #[inline(always)]
    fn at<T>(ctx: &XdpContext, offset: usize) -> Option<*mut T> {
        let start = ctx.data() + offset;
        (start + size_of::<T>() <= ctx.data_end()).then_some(start as *mut T)
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
