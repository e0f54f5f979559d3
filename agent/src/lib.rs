// SPDX-License-Identifier: Apache-2.0 OR MIT
//! spantap: traces unmodified services with eBPF and exports OpenTelemetry.
//!
//! `ARCHITECTURE.md` beside this crate has the map. In short, records flow left to right through
//! `event → stream → protocol → pairing → trace → enrich → sample → export/live`; the stages up to `sample` are pure.

// Vocabulary: values that any stage may name.
pub mod attribute;
pub mod context;
pub mod process;
pub mod table;
pub mod time;
pub mod vitals;

// The pure stages, left to right.
pub mod enrich;
pub mod event;
pub mod metrics;
pub mod pairing;
pub mod pipeline;
pub mod protocol;
pub mod sample;
pub mod stream;
pub mod trace;

// The shell around them.
pub mod capture;
pub mod clock;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod export;
pub mod kernel;
pub mod ladder;
pub mod live;
pub mod memory;
pub mod meter;
pub mod outputs;
pub mod priority;
pub mod run;
pub mod targets;
pub mod usage;
