//! The eBPF programs of netfw: thin entry points around the pipeline.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", expect(unsafe_code, reason = "names of sections and programs"))]

#[cfg(target_arch = "bpf")]
mod object;

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        macros::{classifier, xdp},
        programs::{TcContext, XdpContext},
    };
    use netfw_ebpf::kernel;

    /// XDP on managed interfaces: finishes a packet or leaves it untouched.
    #[xdp(frags)]
    fn netfw_xdp(ctx: XdpContext) -> u32 {
        kernel::xdp::run(&ctx)
    }

    /// The same for the kernel's generic hook, which makes a packet linear for it. For a program that takes several buffers it makes
    /// a copy (Linux 6.9) that has lost the length of its link layer, so that TC would begin in the middle.
    #[xdp]
    fn netfw_generic(ctx: XdpContext) -> u32 {
        kernel::xdp::run(&ctx)
    }

    /// TC ingress of managed interfaces. In line with what the attribute makes of it: each function takes of the stack.
    #[classifier]
    #[inline(always)]
    fn netfw_ingress(ctx: TcContext) -> i32 {
        kernel::tc::run::<false>(&ctx)
    }

    /// TC egress of managed interfaces.
    #[classifier]
    fn netfw_egress(ctx: TcContext) -> i32 {
        kernel::tc::run::<true>(&ctx)
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
