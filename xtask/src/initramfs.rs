// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Packs files into an initial RAM file system.
//!
//! In: names with contents. Out: a `cpio` archive of the kind the kernel unpacks at boot. It touches no file: nothing
//! needs root, and the same input gives the same bytes.

/// A `cpio` archive in the "newc" format (<https://docs.kernel.org/driver-api/early-userspace/buffer-format.html>).
#[derive(Debug, Default)]
pub(crate) struct Initramfs {
    bytes: Vec<u8>,
    entries: u32,
}

impl Initramfs {
    /// Adds an empty folder.
    pub(crate) fn folder(&mut self, name: &str) {
        self.entry(name, FOLDER | 0o755, (0, 0), &[]);
    }

    /// Adds an executable file.
    pub(crate) fn executable(&mut self, name: &str, content: &[u8]) {
        self.entry(name, FILE | 0o755, (0, 0), content);
    }

    /// Adds a character device.
    pub(crate) fn device(&mut self, name: &str, major: u32, minor: u32) {
        self.entry(name, DEVICE | 0o600, (major, minor), &[]);
    }

    /// The finished archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry(TRAILER, 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let (inode, links, owner, group, time, check) = (self.entries, 1, 0, 0, 0, 0);
        let (on_major, on_minor) = (0, 0);
        // Sizes are 8 hex digits: a file of 4 GiB or more cannot be packed, and would not fit in the guest's memory.
        let size = u32::try_from(content.len()).expect("files for a guest of 1 GiB are smaller than 4 GiB");
        let name_size = u32::try_from(name.len() + 1).expect("names are short");
        self.bytes.extend_from_slice(MAGIC);
        let fields = [inode, mode, owner, group, links, time, size, on_major, on_minor, device.0, device.1, name_size];
        for field in fields.into_iter().chain([check]) {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }
}

const MAGIC: &[u8] = b"070701";
const TRAILER: &str = "TRAILER!!!";
const ALIGNMENT: usize = 4;

// The file types of `st_mode`.
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const DEVICE: u32 = 0o020_000;

#[cfg(test)]
mod tests {
    use super::Initramfs;

    #[test]
    fn an_entry_is_its_header_name_and_content_each_padded_to_four_bytes() {
        let mut archive = Initramfs::default();
        archive.executable("init", b"#!sh\n");
        let bytes = archive.finish();
        let header = "070701\
                      00000001000081ED00000000000000000000000100000000\
                      00000005000000000000000000000000000000000000000500000000";
        assert_eq!(&bytes[..110], header.as_bytes());
        assert_eq!(&bytes[110..116], b"init\0\0", "the name is padded from 115 to 116");
        assert_eq!(&bytes[116..124], b"#!sh\n\0\0\0");
        assert_eq!(&bytes[124..130], b"070701");
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn the_archive_ends_with_the_trailer() {
        let bytes = Initramfs::default().finish();
        assert!(bytes.windows(11).any(|window| window == b"TRAILER!!!\0"));
    }
}
