//! What a gateway must do, told with packets. Each story runs in memory and in the kernel.

pub mod port_forward;

/// Hands the list of all stories to a macro, as `module::story, …`.
#[macro_export]
macro_rules! for_each_story {
    ($each:ident) => {
        $each! {
            port_forward::a_single_port,
        }
    };
}
