// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why something that was seen on a socket did not become a span.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $name:ident = $wire:literal, $label:literal;)*) => {
        /// A reason for loss. The first ones are counted in the kernel (the per-CPU array `LOST` is indexed by the
        /// number), the rest in user space.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[repr(u32)]
        pub enum Reason {
            $($(#[doc = $doc])* $name = $wire,)*
        }

        impl Reason {
            /// Every reason, in the order of the numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The stable name in metrics, summaries and JSON.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

reasons! {
    /// The ring had no room for a record.
    RingFull = 0, "ring_full";
    /// The kernel gave no memory for a socket's state.
    SocketStateFull = 1, "socket_state_full";
    /// The target's memory could not be read.
    Unreadable = 2, "unreadable";
    /// Bytes beyond the capture budget were needed to frame a message.
    OverBudget = 3, "over_budget";
    /// The bytes moved on a path whose buffer the probes cannot see.
    UnsupportedPath = 4, "unsupported_path";
    /// A record was not of this version or not well-formed.
    BadRecord = 5, "bad_record";
    /// A stream that looked like a known protocol broke its rules.
    ProtocolError = 6, "protocol_error";
    /// Bytes were missing where a message had to be framed.
    Gap = 7, "gap";
    /// A response without its request.
    Unpaired = 8, "unpaired";
    /// A table of the agent had reached its bound.
    TableFull = 9, "table_full";
    /// The export queue was full.
    QueueFull = 10, "queue_full";
    /// The collector did not take the spans.
    ExportFailed = 11, "export_failed";
    /// The agent did less, since more would have exceeded what it may take of the machine.
    SelfBudget = 12, "self_budget";
}

impl Reason {
    /// How many reasons there are: the size of every array indexed by one.
    pub const COUNT: usize = Self::ALL.len();
}

#[cfg(test)]
mod tests {
    use super::Reason;

    #[test]
    fn every_reason_indexes_its_own_counter() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index, "{}", reason.label());
        }
    }
}
