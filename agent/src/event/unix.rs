// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What only unix sockets have.
//!
//! In: the bytes of a name. Out: a value that can be copied, and its text. It does not look whether there is such a file.

use std::fmt;

use spantap_common::event::unix::{NAME_ROOM, Named};

/// See [`UnixRecord`](spantap_common::event::unix::UnixRecord).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Unix {
    /// The process at the other end, by the socket's credentials; 0 where unknown.
    pub peer_pid: u32,
    /// The end that has a name, and which, if one has.
    pub name: Option<(Named, UnixName)>,
}

/// The name of a unix socket.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct UnixName {
    /// Zeros behind the name.
    bytes: [u8; NAME_ROOM],
    /// Law: 0 < length <= NAME_ROOM.
    length: u8,
}

impl UnixName {
    /// The name of these bytes; none of none, nor of more than a name can have.
    pub fn new(name: &[u8]) -> Option<Self> {
        let mut bytes = [0; NAME_ROOM];
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        u8::try_from(name.len()).ok().filter(|length| *length > 0).map(|length| Self { bytes, length })
    }

    /// As bind(2) took it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// As it is written: a path; or, as in `ss` and `/proc/net/unix`, a name of the abstract namespace behind an `@`,
    /// its further zeros likewise.
    pub fn text(&self) -> String {
        let name = self.as_bytes();
        if name[0] != 0 {
            // unix(7): "pathname […] null-terminated"; the length may count that zero.
            let path = name.split(|byte| *byte == 0).next().unwrap_or_default();
            return String::from_utf8_lossy(path).into_owned();
        }
        String::from_utf8_lossy(name).replace('\0', "@")
    }
}

impl fmt::Debug for UnixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_path_or_begins_with_an_at() {
        for (bytes, text) in [
            (&b"/run/app.sock"[..], "/run/app.sock"),
            (b"/run/app.sock\0", "/run/app.sock"),
            (b"\0app", "@app"),
            (b"\0a\0b", "@a@b"),
            (b"/run/\xff", "/run/\u{fffd}"),
        ] {
            assert_eq!(UnixName::new(bytes).expect("a name").text(), text);
        }
    }

    #[test]
    fn a_name_has_its_bounds() {
        assert_eq!(UnixName::new(b""), None);
        assert_eq!(UnixName::new(&[b'a'; NAME_ROOM + 1]), None);
        assert_eq!(UnixName::new(&[b'a'; NAME_ROOM]).expect("a name").as_bytes().len(), NAME_ROOM);
    }
}
