// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The entry points, a file a subject: what a tracepoint or a function's exit hands over comes in, a call of the body that judges it goes
//! out. No entry point decides anything itself. `kernel/hooks.rs` of the agent says where each is attached.

mod call;
mod older;
mod process;
mod receive;
mod send;
mod state;
mod uring;
mod waking;
