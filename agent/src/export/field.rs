// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The numbers of OTLP's fields, a module for each message.
//!
//! In: nothing. Out: the numbers of the `.proto` files of OTLP 1
//! (<https://github.com/open-telemetry/opentelemetry-proto>), which no later version may change. Fields that are never
//! written are not here.

pub(super) mod request {
    pub(crate) const RESOURCE_SPANS: u8 = 1;
}

pub(super) mod resource_spans {
    pub(crate) const RESOURCE: u8 = 1;
    pub(crate) const SCOPE_SPANS: u8 = 2;
    pub(crate) const SCHEMA_URL: u8 = 3;
}

pub(super) mod resource {
    pub(crate) const ATTRIBUTES: u8 = 1;
}

pub(super) mod scope_spans {
    pub(crate) const SCOPE: u8 = 1;
    pub(crate) const SPANS: u8 = 2;
    pub(crate) const SCHEMA_URL: u8 = 3;
}

pub(super) mod scope {
    pub(crate) const NAME: u8 = 1;
    pub(crate) const VERSION: u8 = 2;
}

pub(super) mod span {
    pub(crate) const TRACE_ID: u8 = 1;
    pub(crate) const SPAN_ID: u8 = 2;
    pub(crate) const TRACE_STATE: u8 = 3;
    pub(crate) const PARENT_SPAN_ID: u8 = 4;
    pub(crate) const NAME: u8 = 5;
    pub(crate) const KIND: u8 = 6;
    pub(crate) const START_TIME: u8 = 7;
    pub(crate) const END_TIME: u8 = 8;
    pub(crate) const ATTRIBUTES: u8 = 9;
    pub(crate) const DROPPED_ATTRIBUTES: u8 = 10;
    pub(crate) const LINKS: u8 = 13;
    pub(crate) const DROPPED_LINKS: u8 = 14;
    pub(crate) const STATUS: u8 = 15;
    pub(crate) const FLAGS: u8 = 16;
}

pub(super) mod link {
    pub(crate) const TRACE_ID: u8 = 1;
    pub(crate) const SPAN_ID: u8 = 2;
    pub(crate) const ATTRIBUTES: u8 = 4;
    pub(crate) const DROPPED_ATTRIBUTES: u8 = 5;
}

pub(super) mod status {
    pub(crate) const CODE: u8 = 3;
}

pub(super) mod key_value {
    pub(crate) const KEY: u8 = 1;
    pub(crate) const VALUE: u8 = 2;
}

pub(super) mod any_value {
    pub(crate) const STRING: u8 = 1;
    pub(crate) const INT: u8 = 3;
    pub(crate) const DOUBLE: u8 = 4;
    pub(crate) const ARRAY: u8 = 5;
}

pub(super) mod array_value {
    pub(crate) const VALUES: u8 = 1;
}
