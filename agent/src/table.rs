// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tables whose keys the kernel gives: pids, socket cookies, and what is counted by them.

use std::collections::HashMap;

use foldhash::fast::FixedState;

/// A hash table that is iterated in an order which depends on the history of its keys alone, so that a replay takes the
/// same steps. Its hash is quick and no secret: what a peer can choose is no key of it.
pub type Table<K, V> = HashMap<K, V, FixedState>;
