//! Asks the datapath about a packet, and leaves no trace: the same programs, built once more without anything that changes a table
//! (see `netfw-ebpf/src/kernel/dry.rs`), are loaded over the pinned maps and attached nowhere.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::Map,
    programs::{Program, ProgramError, TestRun, TestRunOptions, TestRunResult},
};
use netfw_common::{explain::Account, image::Active};

use super::{
    capacity::Sizes,
    maps::{Array, check_abi},
    object::{load_maps, load_programs},
    pins::Pins,
    table::{ANY, EXISTING, Table},
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/netfw-explain"));

/// Where a packet meets the datapath.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// It arrives, in XDP.
    Xdp,
    /// It arrives, in TC.
    Ingress,
    /// It leaves, in TC.
    Egress,
}

impl Hook {
    fn program(self) -> &'static str {
        match self {
            Self::Xdp => "explain_xdp",
            Self::Ingress => "explain_ingress",
            Self::Egress => "explain_egress",
        }
    }

    /// The context of a test run on a frame of this length: a `struct xdp_md` as far as it can be given, or a `struct __sk_buff`
    /// with its interfaces; the rest is made from the frame. `arrived`: only a packet that leaves has come by another interface.
    pub fn context(self, length: usize, ifindex: u32, arrived: u32) -> Vec<u8> {
        let words: &[u32] = match self {
            Self::Xdp => &[0, length as u32, 0, ifindex, 0, 0],
            Self::Ingress | Self::Egress => &skb(ifindex, arrived),
        };
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }
}

fn skb(ifindex: u32, arrived: u32) -> [u32; 48] {
    let mut fields = [0; 48];
    fields[9] = arrived;
    fields[10] = ifindex;
    fields
}

/// What the datapath says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// What it decided; none: the packet is none of its business.
    pub account: Option<Account>,
    /// What it would return to the kernel.
    pub action: u32,
    /// The frame as it would leave the hook.
    pub frame: Vec<u8>,
}

/// The programs that are asked.
pub struct DryRun {
    object: Ebpf,
    account: Array<Account>,
    /// The word that says which image holds, if it is not that of real packets: open until all programs are loaded.
    _active: Option<Array<u64>>,
    loaded: Vec<Hook>,
}

impl DryRun {
    /// Over the tables of an instance; of the images the one in force is asked, or that in `slot`.
    ///
    /// # Errors
    /// Nothing is pinned, or another version of netfw pinned it; what the kernel refuses.
    pub fn load(pins: &Pins, slot: Option<u32>) -> Result<Self> {
        check_abi(pins)?;
        let own: &[&str] = if slot.is_some() { &["ACTIVE"] } else { &[] };
        let mut object = load_maps(OBJECT, pins, Sizes::for_flows(0), false, own)?;
        let active = slot.map(|slot| -> Result<_> {
            let active: Array<u64> = own_map(&mut object, "ACTIVE")?;
            active.set(&0, Active::confirmed(slot).0, ANY)?;
            Ok(active)
        });
        let active = active.transpose()?;
        let account = own_map(&mut object, "ACCOUNT")?;
        Ok(Self { object, account, _active: active, loaded: Vec::new() })
    }

    /// What becomes of a frame on the interface with the kernel index `ifindex`. At egress, `arrived` is that of the interface by
    /// which it came; 0: the host itself sends it.
    ///
    /// # Errors
    /// The kernel refuses the program, or to run it.
    pub fn ask(&mut self, hook: Hook, ifindex: u32, arrived: u32, frame: &[u8]) -> Result<Told> {
        if !self.loaded.contains(&hook) {
            let wanted = |(name, _): &(&str, &mut Program)| *name == hook.program();
            load_programs(self.object.programs_mut().filter(wanted))?;
            self.loaded.push(hook);
        }
        self.account.set(&0, Account::default(), EXISTING)?;
        let context = hook.context(frame.len(), ifindex, arrived);
        // An ICMP error may be longer than what it is about.
        let mut room = vec![0; frame.len() + 1024];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut room),
            ctx_in: Some(&context),
            repeat: 1,
            ..Default::default()
        };
        let result = self.run(hook, options).context("the kernel does not run the datapath on the packet")?;
        room.truncate(result.data_size_out as usize);
        let account = self.account.get(&0)?.filter(|account| account.verdict != 0);
        Ok(Told { account, action: result.return_value, frame: room })
    }

    fn run(&mut self, hook: Hook, options: TestRunOptions<'_>) -> Result<TestRunResult, ProgramError> {
        match self.object.program(hook.program()) {
            Some(Program::Xdp(program)) => program.test_run(options),
            Some(Program::SchedClassifier(program)) => program.test_run(options),
            _ => Err(ProgramError::NotLoaded),
        }
    }
}

fn own_map<V: netfw_common::shared::Shared>(object: &mut Ebpf, name: &str) -> Result<Array<V>> {
    match object.take_map(name) {
        Some(Map::Array(map)) => Table::check(map, name),
        _ => anyhow::bail!("the programs have no map {name}"),
    }
}

#[cfg(test)]
mod tests {
    use aya_obj::{Function, Object, generated::bpf_func_id};

    use super::*;

    /// Helpers that change a map or tell a ring: the programs must not even hold a call to them.
    const TRACES: [bpf_func_id; 8] = [
        bpf_func_id::BPF_FUNC_map_update_elem,
        bpf_func_id::BPF_FUNC_map_delete_elem,
        bpf_func_id::BPF_FUNC_map_push_elem,
        bpf_func_id::BPF_FUNC_map_pop_elem,
        bpf_func_id::BPF_FUNC_perf_event_output,
        bpf_func_id::BPF_FUNC_skb_output,
        bpf_func_id::BPF_FUNC_xdp_output,
        bpf_func_id::BPF_FUNC_ringbuf_output,
    ];
    /// `BPF_JMP | BPF_CALL`.
    const CALL: u8 = 0x85;
    /// `BPF_STX | BPF_ATOMIC`, of 32 and of 64 bits.
    const ATOMIC: [u8; 2] = [0xc3, 0xdb];

    fn traces(function: &Function) -> usize {
        let is_trace = |code: u8, source: u8, value: i32| {
            ATOMIC.contains(&code)
                || (code == CALL && source == 0 && TRACES.iter().any(|helper| *helper as i32 == value))
        };
        function
            .instructions
            .iter()
            .filter(|instruction| is_trace(instruction.code, instruction.src_reg(), instruction.imm))
            .count()
    }

    fn count(object: &[u8]) -> usize {
        Object::parse(object).expect("an object").functions.values().map(traces).sum()
    }

    #[test]
    fn nothing_in_the_programs_could_change_a_table() {
        assert_eq!(count(OBJECT), 0);
        let real = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/netfw-ebpf"));
        assert!(count(real) > 10, "what is looked for is not what real packets leave");
    }
}
