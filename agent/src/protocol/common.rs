// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the parsers of all connections share.
//!
//! In: what an operator wants told and hidden, and what many connections say again and again. Out: the former, and
//! one copy of the latter. It holds nothing of any one connection.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use super::{disclosure::Disclosure, http1};

/// See above.
#[derive(Debug, Default)]
pub struct Common {
    /// What is told and hidden.
    pub disclosure: Disclosure,
    /// Heads of HTTP/1 that were taken apart a moment ago.
    pub heads: http1::Seen,
    /// Law: at most [`MOST_TEXTS`], of [`LONGEST_TEXT`] bytes each. The lock is taken when a connection says something that
    /// it did not say before, by the one thread that parses: nobody waits for it.
    texts: Mutex<HashSet<Arc<str>>>,
}

impl Common {
    /// What parsers share that tell and hide what `disclosure` says.
    pub fn new(disclosure: Disclosure) -> Self {
        Self { disclosure, ..Self::default() }
    }

    /// `text`: the copy that others have, where there is one.
    pub fn text(&self, text: &str) -> Arc<str> {
        if text.len() > LONGEST_TEXT {
            return text.into();
        }
        // What a panic leaves behind is a set like any other.
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = texts.get(text) {
            return Arc::clone(known);
        }
        if texts.len() >= MOST_TEXTS {
            // Those in use stay with their users, and the others were of no use.
            texts.clear();
        }
        let new: Arc<str> = text.into();
        texts.insert(Arc::clone(&new));
        new
    }
}

/// 1,024 texts, 256 KiB at most: hosts, agents, and addresses of some hundred peers. A host with more of them keeps a copy
/// for each of its connections.
const MOST_TEXTS: usize = 1024;

/// 256 bytes: a browser's `User-Agent` has 120.
pub const LONGEST_TEXT: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_one_copy_while_there_is_room_for_it() {
        let common = Common::default();
        let first = common.text("shop");
        assert!(Arc::ptr_eq(&first, &common.text("shop")));
        let long = "x".repeat(LONGEST_TEXT + 1);
        assert!(!Arc::ptr_eq(&common.text(&long), &common.text(&long)), "a long one is not kept");

        (0..MOST_TEXTS).for_each(|number| drop(common.text(&number.to_string())));
        assert!(common.texts.lock().expect("nobody panicked").len() <= MOST_TEXTS);
        assert!(!Arc::ptr_eq(&first, &common.text("shop")), "forgotten, and said again");
        assert_eq!(&*first, "shop");
    }
}
