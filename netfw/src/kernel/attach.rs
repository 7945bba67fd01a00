//! Programs on interfaces. Links are pinned, so that they outlive this process; where one is pinned already
//! its program is replaced in place and not a packet is lost.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf,
    programs::{
        LinkOrder, SchedClassifier, TcAttachType, Xdp, XdpMode,
        links::{FdLink, PinnedLink},
        loaded_programs,
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle},
    },
    util::KernelVersion,
};
use aya_log::EbpfLogger;
use aya_obj::programs::XdpAttachType;

use super::{
    object::{self, EGRESS, GENERIC, INGRESS, XDP},
    pins::{Pins, remove_if_there, remove_link},
};

/// Where our filters stand among those of others on kernels without TCX links.
const PRIORITY: u16 = 9;
const HANDLE: TcHandle = TcHandle::new(0, 1);

/// How far packets of an interface are handled by XDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceleration {
    /// In the driver.
    Native,
    /// In the kernel's generic hook, after the driver.
    Generic,
}

/// An interface, by both its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port<'a> {
    /// Kernel name.
    pub name: &'a str,
    /// Kernel index.
    pub index: u32,
}

/// The programs of an instance.
pub struct Programs {
    xdp: Xdp,
    ingress: SchedClassifier,
    egress: SchedClassifier,
    pins: Pins,
}

impl Programs {
    /// Loads them anew over the pinned maps (new ones where there are none) and pins them in place of older
    /// ones.
    ///
    /// # Errors
    /// Pins of another version; what the kernel refuses.
    pub fn load(pins: &Pins, capacity: u32, debug: bool) -> Result<Self> {
        let mut object = object::load(pins, capacity, debug)?;
        for name in [XDP, INGRESS, EGRESS] {
            pin_program(&mut object, name, &pins.program(name))?;
        }
        // Whoever needs it loads it anew.
        remove_if_there(&pins.program(GENERIC))?;
        Self::open(pins)
    }

    /// Those that are pinned.
    ///
    /// # Errors
    /// Nothing is pinned.
    pub fn open(pins: &Pins) -> Result<Self> {
        Ok(Self {
            xdp: Xdp::from_pin(pins.program(XDP), XdpAttachType::Interface)?,
            ingress: SchedClassifier::from_pin(pins.program(INGRESS))?,
            egress: SchedClassifier::from_pin(pins.program(EGRESS))?,
            pins: pins.clone(),
        })
    }

    /// Puts both classifiers on an interface: first the one for leaving packets, so that the master's own
    /// flows are known before their answers are judged. Says whether `clsact` had to be added for them.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn attach_classifiers(&mut self, port: Port<'_>) -> Result<bool> {
        let pins = self.pins.clone();
        // If it could not be added for another reason than that it is there, the filter says so.
        let clsact = !has_tcx() && tc::qdisc_add_clsact(port.name).is_ok();
        for (program, hook, word) in [
            (&mut self.egress, TcAttachType::Egress, "egress"),
            (&mut self.ingress, TcAttachType::Ingress, "ingress"),
        ] {
            let attached = if has_tcx() {
                attach_tcx(program, port, hook, &pins.link(port.index, word))
            } else {
                attach_filter(program, port, hook)
            };
            attached.with_context(|| format!("cannot attach to {} ({word})", port.name))?;
        }
        Ok(clsact)
    }

    /// Puts the XDP program on an interface.
    ///
    /// # Errors
    /// Another XDP program is there, or the driver cannot.
    pub fn attach_xdp(&mut self, port: Port<'_>, acceleration: Acceleration) -> Result<()> {
        let pin = self.pins.link(port.index, xdp_word(acceleration));
        let mut generic;
        let program = match acceleration {
            Acceleration::Native => &mut self.xdp,
            Acceleration::Generic => {
                generic = generic_program(&self.pins)?;
                &mut generic
            }
        };
        if pin.exists() {
            let link = FdLink::from(PinnedLink::from_pin(&pin)?).try_into()?;
            let link = program.attach_to_link(link)?;
            // Dropping it closes a descriptor; the pin holds the link.
            drop(program.take_link(link)?);
            return Ok(());
        }
        let mode = match acceleration {
            Acceleration::Native => XdpMode::Driver,
            Acceleration::Generic => XdpMode::Skb,
        };
        let link = program.attach_to_if_index(port.index, mode)?;
        let link: FdLink = program
            .take_link(link)?
            .try_into()
            .map_err(|_| anyhow!("the kernel gave no XDP link for {}", port.name))?;
        link.pin(&pin)?;
        Ok(())
    }
}

/// The program of the generic hook, which few need: loaded and pinned where it is not yet.
fn generic_program(pins: &Pins) -> Result<Xdp> {
    let pin = pins.program(GENERIC);
    if !pin.exists() {
        pin_program(&mut object::load_generic(pins)?, GENERIC, &pin)?;
    }
    Ok(Xdp::from_pin(pin, XdpAttachType::Interface)?)
}

fn xdp_word(acceleration: Acceleration) -> &'static str {
    match acceleration {
        Acceleration::Native => "xdp",
        Acceleration::Generic => "xdp-generic",
    }
}

/// Whether XDP in this form is on an interface.
pub fn carries_xdp(pins: &Pins, index: u32, acceleration: Acceleration) -> bool {
    pins.link(index, xdp_word(acceleration)).exists()
}

/// Takes XDP in this form off an interface.
///
/// # Errors
/// What the file system says.
pub fn detach_xdp(pins: &Pins, index: u32, acceleration: Acceleration) -> Result<()> {
    remove_link(&pins.link(index, xdp_word(acceleration)))
}

/// Takes everything of ours off an interface.
///
/// # Errors
/// What the kernel says; an interface that is gone is no error.
pub fn detach(pins: &Pins, port: Port<'_>) -> Result<()> {
    for word in ["xdp", "xdp-generic", "ingress", "egress"] {
        remove_link(&pins.link(port.index, word))?;
    }
    if !has_tcx() && nix::net::if_::if_nametoindex(port.name) == Ok(port.index) {
        for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
            // No filter there is what we want.
            let _ = SchedClassifierLink::attached(port.name, hook, PRIORITY, HANDLE, None).map(drop);
        }
    }
    Ok(())
}

/// TCX links came with Linux 6.6.
fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

/// We stand first: a program before us could end the packet's way through the others, and with it the
/// firewall.
fn attach_tcx(program: &mut SchedClassifier, port: Port<'_>, hook: TcAttachType, pin: &Path) -> Result<()> {
    if pin.exists() {
        let link = FdLink::from(PinnedLink::from_pin(pin)?).try_into()?;
        let link = program.attach_to_link(link)?;
        drop(program.take_link(link)?);
        return Ok(());
    }
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let link = program.attach_with_options(port.name, hook, options)?;
    let link: FdLink = program.take_link(link)?.try_into()?;
    link.pin(pin)?;
    Ok(())
}

fn attach_filter(program: &mut SchedClassifier, port: Port<'_>, hook: TcAttachType) -> Result<()> {
    let old = SchedClassifierLink::attached(port.name, hook, PRIORITY, HANDLE, None)?;
    let link = match program.attach_to_link(old) {
        Ok(link) => link,
        Err(_) => {
            let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
            program.attach_with_options(port.name, hook, TcAttachOptions::Netlink(options))?
        }
    };
    // A filter stays until somebody removes it; forgetting ours keeps it from being detached here.
    std::mem::forget(program.take_link(link)?);
    Ok(())
}

/// The datapath's log; readable when there is something to pass on.
pub type DebugLog = EbpfLogger<&'static dyn log::Log>;

/// What the datapath logs, when it was loaded to do so.
///
/// # Errors
/// Nothing is pinned.
pub fn debug_log(pins: &Pins) -> Result<DebugLog> {
    let program = SchedClassifier::from_pin(pins.program(INGRESS))?;
    Ok(EbpfLogger::init_from_id(program.info()?.id())?)
}

/// Whether the classifiers are on an interface: they go with it when it is deleted, though one that is made anew may get its
/// index. Kernels without TCX links are taken at the word of what was attached.
pub fn is_attached(port: Port<'_>) -> bool {
    let holds = |hook, name| match SchedClassifier::query_tcx(port.name, hook) {
        Ok((_, programs)) => programs.iter().any(|program| program.name_as_str() == Some(name)),
        Err(_) => false,
    };
    !has_tcx() || (holds(TcAttachType::Ingress, INGRESS) && holds(TcAttachType::Egress, EGRESS))
}

/// Name of an XDP program by its number, unless it is ours.
pub fn foreign_xdp(id: u32) -> Option<String> {
    let program = loaded_programs().flatten().find(|program| program.id() == id)?;
    let name = program.name_as_str().filter(|name| !name.is_empty()).unwrap_or("without a name");
    (name != XDP && name != GENERIC).then(|| name.to_owned())
}

/// Programs of others on an interface's classifier hooks, by name: they go on, after ours.
pub fn foreign_classifiers(port: Port<'_>) -> Vec<String> {
    let mut names = Vec::new();
    for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
        let Ok((_, programs)) = SchedClassifier::query_tcx(port.name, hook) else { continue };
        let foreign = programs.iter().filter_map(|program| program.name_as_str());
        names.extend(foreign.filter(|name| *name != INGRESS && *name != EGRESS).map(str::to_owned));
    }
    names
}

fn pin_program(object: &mut Ebpf, name: &str, path: &Path) -> Result<()> {
    let program = object.program_mut(name).with_context(|| format!("the object has no program {name}"))?;
    remove_if_there(path)?;
    program.pin(path).with_context(|| format!("cannot pin the program {name}"))
}
