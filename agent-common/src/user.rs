// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `Pod` implementations for user space.

// SAFETY: `repr(C)`, only integers, no padding (the size is asserted), so every bit pattern is valid.
unsafe impl aya::Pod for crate::settings::ProcessSettings {}
// SAFETY: as above.
unsafe impl aya::Pod for crate::settings::BodyEnd {}
// SAFETY: as above.
unsafe impl aya::Pod for crate::endpoint::Endpoint {}
