//! The other ends of `cargo xtask bench`: a source of frames, a sink, and the least a gateway could do between them.

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
        bindings::{
            TC_ACT_SHOT,
            xdp_action::{XDP_ABORTED, XDP_DROP, XDP_TX},
        },
        helpers::generated::bpf_redirect,
        macros::{classifier, map, xdp},
        maps::{Array, DevMap, HashMap},
        programs::{TcContext, XdpContext},
    };
    use netfw_common::{checksum::Sum, wire::UDP};

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
    /// Where beacons come from: the first [`PORTS`] flows; those that follow come from the next address.
    #[unsafe(no_mangle)]
    static SOURCE: Global<u32> = Global::new(0);
    /// By how much the destination port is higher from one such address to the next.
    #[unsafe(no_mangle)]
    static STEP: Global<u16> = Global::new(0);
    /// How many flows the beacons belong to.
    #[unsafe(no_mangle)]
    static FLOWS: Global<u32> = Global::new(1);
    /// How many of them are opened at a time.
    #[unsafe(no_mangle)]
    static TOGETHER: Global<u32> = Global::new(1);
    /// Where chaff comes from: the first address, how many there are, how far apart.
    #[unsafe(no_mangle)]
    static SOURCES: Global<[u32; 3]> = Global::new([0; 3]);
    /// Destination address and port of a beacon before and after translation, each as three words of the frame; port 0: any.
    #[unsafe(no_mangle)]
    static TARGETS: Global<[[u16; 3]; 2]> = Global::new([[0; 3]; 2]);
    /// Source address after translation as words of the frame; 0: any.
    #[unsafe(no_mangle)]
    static TRANSLATED: Global<[u16; 2]> = Global::new([0; 2]);
    /// Index of the interface that the bare gateways at TC send to.
    #[unsafe(no_mangle)]
    static OUTPUT: Global<u32> = Global::new(0);

    /// Frames made so far, of those the ones that are not waited for, and the phase.
    #[map]
    static MADE: Array<[u32; 3]> = Array::with_max_entries(1, 0);
    /// Beacons that came to the sink, not translated and translated. One core's alone.
    #[map]
    static ARRIVED: Array<u64> = Array::with_max_entries(2, 0);
    /// Their sum as the source knows it. In a map of its own, and not kept to the frame: what another core reads costs the one
    /// that writes.
    #[map]
    static TOLD: Array<u64> = Array::with_max_entries(1, 0);
    /// What user space asks for: 0: all flows in turn; [`STOP`]: no more frames; else the flows that are opened, by number, from 1.
    #[map]
    static PHASE: Array<u32> = Array::with_max_entries(1, 0);
    /// The way out of the bare gateways at XDP.
    #[map]
    static OUT: DevMap = DevMap::with_max_entries(1, 0);
    /// Packets and bytes of each flow that the least NAT has seen. The loader makes room.
    #[map]
    static SEEN: HashMap<Key, [u64; 2]> = HashMap::with_max_entries(1, 0);

    /// Addresses and ports, as they stand in a datagram.
    type Key = [u16; 6];
    /// The headers of a datagram over IPv4 without options.
    type Headers = [u16; 14];

    const STOP: u32 = u32::MAX;
    /// Bytes of the IP packet in a frame.
    const LENGTH: u64 = 50;
    const FIRST_PORT: u32 = 1024;
    /// Flows that come from one address.
    const PORTS: u32 = 50_000;
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
        let Some(frame) = at::<Template>(ctx.data(), ctx.data_end(), 0) else { return XDP_ABORTED };
        let Some(made) = MADE.get_ptr_mut(0) else { return XDP_ABORTED };
        // SAFETY: only one core makes frames, and the program cannot be interrupted by itself.
        let [number, ahead, phase] = unsafe { &mut *made };
        if *number % BATCH == 0 {
            *phase = PHASE.get(0).map_or(STOP, |phase| *phase);
            if *phase == STOP {
                return XDP_DROP;
            }
            *ahead = wait(*number, *ahead);
        }
        *number = number.wrapping_add(1);
        let every = EVERY.load();
        let beacon = number.checked_rem(every) == Some(0);
        let words = if beacon {
            beacon_at(number.checked_div(every).unwrap_or(0), *phase)
        } else {
            chaff_at(*number)
        };
        // SAFETY: the bounds were checked; frames of a test run begin at a multiple of eight.
        unsafe { *frame = words };
        XDP_TX
    }

    #[inline(always)]
    fn beacon_at(number: u32, phase: u32) -> Template {
        let flow = flow_at(number, phase);
        let further = flow / PORTS;
        let mut words = BEACON.load();
        let step = STEP.load().wrapping_mul(further as u16);
        let target = u16::from_be((words[4] >> 32) as u16).wrapping_add(step);
        words[4] = words[4] & !(0xffff << 32) | u64::from(target.to_be()) << 32;
        finished(words, SOURCE.load() + further, [(FIRST_PORT + flow % PORTS) as u16, step])
    }

    #[inline(always)]
    fn flow_at(number: u32, phase: u32) -> u32 {
        let together = TOGETHER.load();
        let flow = match phase.checked_sub(1) {
            Some(block) => block * together + number.checked_rem(together).unwrap_or(0),
            None => number,
        };
        flow.checked_rem(FLOWS.load()).unwrap_or(0)
    }

    /// From an address and a port as if drawn by lot.
    #[inline(always)]
    fn chaff_at(number: u32) -> Template {
        let [first, count, step] = SOURCES.load();
        let lot = number.wrapping_mul(0x9e37_79b1);
        let place = (u64::from(lot) * u64::from(count) >> 32) as u32;
        finished(
            CHAFF.load(),
            first.wrapping_add(place.wrapping_mul(step)),
            [lot as u16 | FIRST_PORT as u16, 0],
        )
    }

    /// With source and checksums. `ports`: that of the source, and what the destination's has grown by.
    #[inline(always)]
    fn finished(mut words: Template, address: u32, ports: [u16; 2]) -> Template {
        let (address, [port, step]) = (address.to_be(), ports.map(|port| u32::from(port.to_be())));
        let sum = (address & 0xffff) + (address >> 16);
        let header = !folded((words[3] & 0xffff) as u32 + sum);
        let datagram = !folded((words[5] & 0xffff) as u32 + sum + port + step);
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

    /// Counts beacons, answers them while flows are opened, and drops the rest.
    #[xdp]
    fn sink(ctx: XdpContext) -> u32 {
        let (start, end) = (ctx.data(), ctx.data_end());
        let Some(ends) = at::<[[u16; 2]; 3]>(start, end, 26) else { return XDP_DROP };
        // SAFETY: the bounds were checked, and the offset is even, as every frame's begin is.
        let [source, target, [_, port]] = unsafe { *ends };
        let [before, after] =
            TARGETS.load().map(|[high, low, to]| [high, low] == target && (to == 0 || to == port));
        let translated = after && [[0, 0], source].contains(&TRANSLATED.load());
        if (translated || before)
            && let Some(count) = ARRIVED.get_ptr_mut(u32::from(translated))
        {
            // SAFETY: only the gateway's core delivers frames, and the program cannot be interrupted by itself.
            let count = unsafe {
                *count += 1;
                *count
            };
            tell(count);
            if translated && PHASE.get(0).is_some_and(|phase| *phase != 0) {
                return answer(&ctx);
            }
        }
        XDP_DROP
    }

    /// Back to where it came from. To turn both ends round does not change the checksums. Not by `XDP_TX`: veth wakes its peer for that
    /// only where the peer runs XDP, too.
    #[inline(always)]
    fn answer(ctx: &XdpContext) -> u32 {
        let (start, end) = (ctx.data(), ctx.data_end());
        let (Some(macs), Some(addresses), Some(ports)) =
            (at::<[u16; 6]>(start, end, 0), at::<[u16; 4]>(start, end, 26), at::<[u16; 2]>(start, end, 34))
        else {
            return XDP_DROP;
        };
        // SAFETY: the bounds were checked, and all offsets are even.
        unsafe {
            turn(macs);
            let [a, b, c, d] = *addresses;
            *addresses = [c, d, a, b];
            (*ports).reverse();
        }
        // SAFETY: the context is valid while the program runs; a helper that takes numbers.
        unsafe { bpf_redirect((*ctx.ctx).ingress_ifindex, 0) as u32 }
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
        let Some(macs) = at(ctx.data(), ctx.data_end(), 0) else { return XDP_DROP };
        // SAFETY: the bounds were checked, and every frame begins at an even address.
        unsafe { turn(macs) };
        OUT.redirect(0, 0).unwrap_or_else(|action| action)
    }

    /// The same at TC.
    #[classifier]
    fn touch_tc(ctx: TcContext) -> i32 {
        let Some(macs) = at(ctx.data(), ctx.data_end(), 0) else { return TC_ACT_SHOT };
        // SAFETY: as above.
        unsafe { turn(macs) };
        redirect_tc()
    }

    /// Sends everything on translated: the ceiling for any NAT ([`translated`]).
    #[xdp]
    fn translate(ctx: XdpContext) -> u32 {
        match translated(ctx.data(), ctx.data_end()) {
            Some(()) => OUT.redirect(0, 0).unwrap_or_else(|action| action),
            None => XDP_DROP,
        }
    }

    /// The same at TC.
    #[classifier]
    fn translate_tc(ctx: TcContext) -> i32 {
        if translated(ctx.data(), ctx.data_end()).is_some() { redirect_tc() } else { TC_ACT_SHOT }
    }

    /// What a NAT cannot do without: reads the headers, finds the flow in a hash, counts the packet there, writes addresses, port, TTL,
    /// both checksums and MAC addresses. No firewall, no state, no timeouts, no way back.
    #[inline(always)]
    fn translated(start: usize, end: usize) -> Option<()> {
        let macs = at::<[u16; 6]>(start, end, 0)?;
        // SAFETY: the bounds were checked, and the offset is even.
        let headers = unsafe { &mut *at::<Headers>(start, end, 14)? };
        let ([version, _], [ttl, protocol]) = (headers[0].to_ne_bytes(), headers[4].to_ne_bytes());
        if version != 0x45 || protocol != UDP || ttl <= 1 {
            return None;
        }
        let [.., a, b, c, d, from, to, _, _] = *headers;
        count([a, b, c, d, from, to]);
        headers[4] = u16::from_ne_bytes([ttl - 1, protocol]);
        readdress(headers, [a, b, c, d, from, to]);
        // SAFETY: as above.
        unsafe { turn(macs) };
        Some(())
    }

    /// Finds the flow, or enters it, and counts the packet.
    #[inline(always)]
    fn count(key: Key) {
        match SEEN.get_ptr_mut(&key) {
            // SAFETY: a value of a map. Not atomic, as in netfw.
            Some(seen) => unsafe {
                (*seen)[0] += 1;
                (*seen)[1] += LENGTH;
            },
            // The loader has made room for all.
            None => {
                let _ = SEEN.insert(&key, [1, LENGTH], 0);
            }
        }
    }

    /// Writes the translation, and mends both checksums.
    #[inline(always)]
    fn readdress(headers: &mut Headers, before: Key) {
        let [high, low, port] = TARGETS.load()[1];
        let source = Some(TRANSLATED.load()).filter(|source| *source != [0; 2]);
        let [a, b] = source.unwrap_or([before[0], before[1]]);
        let after = [a, b, high, low, before[4], if port == 0 { before[5] } else { port }];
        headers[6..12].copy_from_slice(&after);
        let sum = |words: &[u16]| words.iter().fold(Sum::default(), |sum, word| sum + Sum::of_half(*word));
        let addresses = sum(&after[..4]) - sum(&before[..4]);
        // The TTL is one less: the complement of one is what is added.
        headers[5] = (addresses + (Sum::default() - Sum::of_half(1))).update(headers[5]);
        headers[13] = (addresses + (sum(&after[4..]) - sum(&before[4..]))).update_udp(headers[13]);
    }

    /// Drops all but beacons after a look at the port: the ceiling for any firewall.
    #[xdp]
    fn discard(ctx: XdpContext) -> u32 {
        match is_beacon(ctx.data(), ctx.data_end()) {
            true => OUT.redirect(0, 0).unwrap_or_else(|action| action),
            false => XDP_DROP,
        }
    }

    /// The same at TC.
    #[classifier]
    fn discard_tc(ctx: TcContext) -> i32 {
        if is_beacon(ctx.data(), ctx.data_end()) { redirect_tc() } else { TC_ACT_SHOT }
    }

    #[inline(always)]
    fn redirect_tc() -> i32 {
        // SAFETY: takes and gives numbers.
        unsafe { bpf_redirect(OUTPUT.load(), 0) as i32 }
    }

    #[inline(always)]
    fn is_beacon(start: usize, end: usize) -> bool {
        // SAFETY: the bounds were checked, and the offset is even.
        at::<u16>(start, end, 36).is_some_and(|port| unsafe { *port } == TARGETS.load()[0][2])
    }

    /// Has the frame go back.
    ///
    /// # Safety
    /// `macs` lies in the frame.
    #[inline(always)]
    unsafe fn turn(macs: *mut [u16; 6]) {
        // SAFETY: what the caller promises.
        unsafe {
            let [a, b, c, d, e, f] = *macs;
            *macs = [d, e, f, a, b, c];
        }
    }

    /// One's complement sum in 16 bits, of a sum of a few such.
    #[inline(always)]
    fn folded(sum: u32) -> u16 {
        let sum = (sum & 0xffff) + (sum >> 16);
        ((sum & 0xffff) + (sum >> 16)) as u16
    }

    /// Where `T` lies in the frame between `start` and `end`, if it does to its end.
    #[inline(always)]
    fn at<T>(start: usize, end: usize, offset: usize) -> Option<*mut T> {
        let start = start + offset;
        (start + size_of::<T>() <= end).then_some(start as *mut T)
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
