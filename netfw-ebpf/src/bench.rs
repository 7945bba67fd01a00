//! The other ends of `cargo xtask bench`: a source of frames, a sink, and the least a gateway could do between them.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(unsafe_code, reason = "frames and counters are reached by raw pointers")
)]

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        Global,
        bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_TX},
        macros::{map, xdp},
        maps::{Array, DevMap},
        programs::XdpContext,
    };

    /// A UDP frame over IPv4 of 64 bytes in native words, without its source address and port; in place of both checksums the
    /// sum of all else that they cover.
    type Template = [u64; 8];

    /// What arrives at the sink.
    #[unsafe(no_mangle)]
    static BEACON: Global<Template> = Global::new([0; 8]);
    /// What the gateway is to drop.
    #[unsafe(no_mangle)]
    static CHAFF: Global<Template> = Global::new([0; 8]);
    /// One frame in so many is a beacon, and the last of them: when it arrives, the gateway is done with the others.
    #[unsafe(no_mangle)]
    static EVERY: Global<u32> = Global::new(1);
    /// Where beacons come from.
    #[unsafe(no_mangle)]
    static SOURCE: Global<u32> = Global::new(0);
    /// How many flows the beacons belong to.
    #[unsafe(no_mangle)]
    static FLOWS: Global<u32> = Global::new(1);
    /// Where chaff comes from: the first address, how many there are, how far apart.
    #[unsafe(no_mangle)]
    static SOURCES: Global<[u32; 3]> = Global::new([0; 3]);
    /// Destination address and port of a beacon before and after translation, each as three words of the frame.
    #[unsafe(no_mangle)]
    static TARGETS: Global<[[u16; 3]; 2]> = Global::new([[0; 3]; 2]);

    /// Frames made so far, and of those the ones that are not waited for.
    #[map]
    static MADE: Array<[u32; 2]> = Array::with_max_entries(1, 0);
    /// Beacons that came to the sink, not translated and translated. One core's alone.
    #[map]
    static ARRIVED: Array<u64> = Array::with_max_entries(2, 0);
    /// Their sum as the source knows it. In a map of its own, and not kept to the frame: what another core reads costs the one
    /// that writes.
    #[map]
    static TOLD: Array<u64> = Array::with_max_entries(1, 0);
    /// Not 0: the source makes no more.
    #[map]
    static STOP: Array<u32> = Array::with_max_entries(1, 0);
    /// The way out of the bare gateways.
    #[map]
    static OUT: DevMap = DevMap::with_max_entries(1, 0);

    const FIRST_PORT: u32 = 1024;
    /// After how many frames the source looks whether it may go on.
    const BATCH: u32 = 64;
    /// After how many frames the sink tells it; beacons that stand for more are told one by one.
    const NEWS: u32 = 16;
    /// How many may be under way: half of what the gateway's queue holds. A source that overruns it has to take frames back,
    /// under a lock that the gateway's core needs, so a slow gateway would seem slower still.
    const UNDER_WAY: u32 = 128;
    /// How long the source waits for frames to arrive until it takes them for lost, in moments: some 100 ms, as nftables needs for
    /// as many frames with thousands of rules.
    const PATIENCE: u32 = 2000;
    /// Looks in a moment.
    const LOOKS: u32 = 10_000;

    /// Makes the next frame and sends it out where it seems to have come in. All of the header is written: the page
    /// is one that comes back from the gateway, with what that made of it.
    #[xdp]
    fn generate(ctx: XdpContext) -> u32 {
        let Some(frame) = at::<Template>(&ctx, 0) else { return XDP_ABORTED };
        let Some(made) = MADE.get_ptr_mut(0) else { return XDP_ABORTED };
        // SAFETY: only one core makes frames, and the program cannot be interrupted by itself.
        let [number, ahead] = unsafe { &mut *made };
        if *number % BATCH == 0 {
            if STOP.get(0).is_none_or(|stop| *stop != 0) {
                return XDP_DROP;
            }
            *ahead = wait(*number, *ahead);
        }
        *number = number.wrapping_add(1);
        let beacon = number.checked_rem(EVERY.load()) == Some(0);
        let words = if beacon { beacon_at(*number) } else { chaff_at(*number) };
        // SAFETY: the bounds were checked; frames of a test run begin at a multiple of eight.
        unsafe { *frame = words };
        XDP_TX
    }

    #[inline(always)]
    fn beacon_at(number: u32) -> Template {
        let port = FIRST_PORT + number.checked_rem(FLOWS.load()).unwrap_or(0);
        finished(BEACON.load(), SOURCE.load(), port as u16)
    }

    /// From an address and a port as if drawn by lot.
    #[inline(always)]
    fn chaff_at(number: u32) -> Template {
        let [first, count, step] = SOURCES.load();
        let lot = number.wrapping_mul(0x9e37_79b1);
        let place = (u64::from(lot) * u64::from(count) >> 32) as u32;
        finished(CHAFF.load(), first.wrapping_add(place.wrapping_mul(step)), lot as u16 | FIRST_PORT as u16)
    }

    /// With source and checksums.
    #[inline(always)]
    fn finished(mut words: Template, address: u32, port: u16) -> Template {
        let (address, port) = (address.to_be(), u32::from(port.to_be()));
        let sum = (address & 0xffff) + (address >> 16);
        let header = !folded((words[3] & 0xffff) as u32 + sum);
        let datagram = !folded((words[5] & 0xffff) as u32 + sum + port);
        words[3] = words[3] & !0xffff_ffff_ffff | u64::from(address) << 16 | u64::from(header);
        words[4] = words[4] & !0xffff_0000 | u64::from(port) << 16;
        words[5] = words[5] & !0xffff | u64::from(datagram);
        words
    }

    /// Waits until few of the frames are under way; returns how many are ahead of those that have arrived for good.
    fn wait(number: u32, ahead: u32) -> u32 {
        for _ in 0..PATIENCE {
            if moment(number, ahead) != 0 {
                return ahead;
            }
        }
        ahead.wrapping_add(under_way(number, ahead))
    }

    /// Waits a little; not 0: few enough are under way. The verifier follows a loop round by round, but a global function once.
    #[unsafe(no_mangle)]
    #[inline(never)]
    extern "C" fn moment(number: u32, ahead: u32) -> u32 {
        for _ in 0..LOOKS {
            if under_way(number, ahead) <= UNDER_WAY {
                return 1;
            }
        }
        0
    }

    /// How many of the frames have not arrived yet.
    #[inline(always)]
    fn under_way(number: u32, ahead: u32) -> u32 {
        // SAFETY: an aligned word of a map.
        let arrived = TOLD.get_ptr(0).map_or(0, |told| unsafe { told.read_volatile() }) as u32;
        number.wrapping_sub(ahead).wrapping_sub(arrived.wrapping_mul(EVERY.load()))
    }

    /// Counts beacons, and drops everything.
    #[xdp]
    fn sink(ctx: XdpContext) -> u32 {
        let Some(destination) = at::<[u16; 4]>(&ctx, 30) else { return XDP_DROP };
        // SAFETY: the bounds were checked, and the offset is even, as every frame's begin is.
        let [high, low, _, port] = unsafe { *destination };
        let [before, after] = TARGETS.load();
        let translated = [high, low, port] == after;
        if (translated || [high, low, port] == before)
            && let Some(count) = ARRIVED.get_ptr_mut(u32::from(translated))
        {
            // SAFETY: only the gateway's core delivers frames, and the program cannot be interrupted by itself.
            let count = unsafe {
                *count += 1;
                *count
            };
            tell(count);
        }
        XDP_DROP
    }

    /// Now and then, tells the source how many have arrived.
    #[inline(always)]
    fn tell(count: u64) {
        let news = u64::from(if EVERY.load() < NEWS { NEWS } else { 1 });
        if count % news == 0
            && let Some(told) = TOLD.get_ptr_mut(0)
        {
            // SAFETY: as for the count.
            unsafe { *told += news };
        }
    }

    /// Sends everything on, unseen: the ceiling for any gateway.
    #[xdp]
    fn redirect(_: XdpContext) -> u32 {
        OUT.redirect(0, 0).unwrap_or_else(|action| action)
    }

    /// The same with the MAC addresses turned round: whoever forwards a frame has to fetch it from the core that made it, and
    /// write its MAC addresses.
    #[xdp]
    fn touch(ctx: XdpContext) -> u32 {
        let Some(macs) = at::<[u16; 6]>(&ctx, 0) else { return XDP_DROP };
        // SAFETY: the bounds were checked, and every frame begins at an even address.
        unsafe {
            let [a, b, c, d, e, f] = *macs;
            *macs = [d, e, f, a, b, c];
        }
        OUT.redirect(0, 0).unwrap_or_else(|action| action)
    }

    /// Drops all but beacons after a look at the port: the ceiling for any firewall.
    #[xdp]
    fn discard(ctx: XdpContext) -> u32 {
        let Some(port) = at::<u16>(&ctx, 36) else { return XDP_DROP };
        // SAFETY: the bounds were checked, and the offset is even.
        if unsafe { *port } != TARGETS.load()[0][2] {
            return XDP_DROP;
        }
        OUT.redirect(0, 0).unwrap_or_else(|action| action)
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

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
