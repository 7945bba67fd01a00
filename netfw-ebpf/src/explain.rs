//! The programs that `netfw explain` runs: those of netfw, built so that they leave no trace.

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

    /// As `netfw_xdp`.
    #[xdp(frags)]
    fn explain_xdp(ctx: XdpContext) -> u32 {
        kernel::xdp::run(&ctx)
    }

    /// As `netfw_ingress`.
    #[classifier]
    #[inline(always)]
    fn explain_ingress(ctx: TcContext) -> i32 {
        kernel::tc::run::<false>(&ctx)
    }

    /// As `netfw_egress`.
    #[classifier]
    fn explain_egress(ctx: TcContext) -> i32 {
        kernel::tc::run::<true>(&ctx)
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
