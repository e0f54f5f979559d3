// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The kernels that are booted, and where their images come from.
//!
//! In: names of packages a distribution offers. Out: the newest image of each kernel of the table. It downloads
//! nothing itself and boots nothing.

use std::{
    cmp::Ordering,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::apt::OtherSuites;

/// A kernel that is booted.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Kernel {
    /// As asked for on the command line.
    pub(crate) name: &'static str,
    /// The Debian suite that has it.
    pub(crate) suite: &'static str,
    /// How its image's package begins; what follows is the exact version and [`FLAVOUR`].
    pub(crate) package: &'static str,
    /// The tiers that work there, by letter; the first is the one that the agent chooses.
    pub(crate) tiers: &'static [&'static str],
}

/// Debian's kernel for virtual machines: small, with every driver QEMU needs built in or absent.
const FLAVOUR: &str = "-cloud-amd64";

/// The kernels, oldest first.
pub(crate) const KERNELS: &[Kernel] = &[
    Kernel {
        name: "5.10",
        suite: "bullseye-security",
        package: "linux-image-5.10.0-",
        // No helper lends tier B the registers of the call before 5.15 (dd6e10fbd9fb).
        tiers: &["c"],
    },
    Kernel {
        name: "6.1",
        suite: "bookworm",
        package: "linux-image-6.1.0-",
        // The socket tracepoints of tier A came with 6.3 (6e6eda44b939).
        tiers: &["b", "c"],
    },
    Kernel { name: "6.12", suite: "trixie", package: "linux-image-6.12.", tiers: &["a", "b", "c"] },
    Kernel {
        name: "7.x",
        suite: "sid",
        // From 7.0 on Debian keeps the unsigned image, without its install scripts, in a package of its own.
        package: "linux-binary-7.",
        tiers: &["a", "b", "c"],
    },
];

/// The kernels called `names`; all for no name.
pub(crate) fn named(names: &[String]) -> Result<Vec<&'static Kernel>> {
    if names.is_empty() {
        return Ok(KERNELS.iter().collect());
    }
    let find = |name: &String| KERNELS.iter().find(|kernel| kernel.name == name);
    let known = || KERNELS.iter().map(|kernel| kernel.name).collect::<Vec<_>>().join(", ");
    names.iter().map(|name| find(name).with_context(|| format!("no kernel {name} here, but {}", known()))).collect()
}

/// An image to boot.
pub(crate) struct Image {
    /// Of which kernel.
    pub(crate) kernel: &'static Kernel,
    /// Its exact version.
    pub(crate) version: String,
    /// The file.
    pub(crate) file: PathBuf,
    /// The folder of its modules.
    pub(crate) modules: PathBuf,
}

/// The image of each of `kernels`, from `folder` or, for those that are not there, from their suites.
pub(crate) fn images(kernels: &[&'static Kernel], folder: &Path) -> Result<Vec<Image>> {
    let absent: Vec<_> = kernels.iter().filter(|kernel| unpacked(kernel, folder).is_none()).collect();
    if !absent.is_empty() {
        let mut wanted: Vec<_> = absent.iter().map(|kernel| kernel.suite).collect();
        wanted.dedup();
        let suites = OtherSuites::fetch(&folder.join("apt"), &wanted)?;
        for kernel in absent {
            let names = suites.names(kernel.package)?;
            let Some(package) = newest(&names, kernel.package) else {
                bail!("the suite {} has no {}*{FLAVOUR}", kernel.suite, kernel.package);
            };
            suites.unpack(package, &folder.join(kernel.name))?;
        }
    }
    let image = |kernel: &&'static Kernel| {
        unpacked(kernel, folder).with_context(|| format!("the package of kernel {} holds no image", kernel.name))
    };
    kernels.iter().map(image).collect()
}

fn unpacked(kernel: &'static Kernel, folder: &Path) -> Option<Image> {
    let folder = folder.join(kernel.name);
    let modules = folder_in(&folder.join("usr/lib/modules")).or_else(|| folder_in(&folder.join("lib/modules")))?;
    let version = modules.file_name()?.to_string_lossy().into_owned();
    let places = [modules.join("vmlinuz"), folder.join(format!("boot/vmlinuz-{version}"))];
    let file = places.into_iter().find(|file| file.is_file())?;
    Some(Image { kernel, version, file, modules })
}

fn folder_in(folder: &Path) -> Option<PathBuf> {
    fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path())).find(|path| path.is_dir())
}

/// The newest of the packages `names` that is an image of the flavour.
fn newest<'a>(names: &'a [String], prefix: &str) -> Option<&'a str> {
    let version = |name: &'a str| name.strip_prefix(prefix)?.strip_suffix(FLAVOUR);
    let images = names.iter().filter_map(|name| Some((version(name)?, name.as_str())));
    images.max_by(|(a, _), (b, _)| by_version(a, b)).map(|(_, name)| name)
}

/// Compares runs of digits as numbers, so that 5.10.0-9 comes before 5.10.0-46.
fn by_version(a: &str, b: &str) -> Ordering {
    let numbers = |text: &str| -> Vec<u64> {
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
    };
    numbers(a).cmp(&numbers(b))
}

#[cfg(test)]
mod tests {
    use super::{KERNELS, named, newest};

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_newest_image_is_chosen_by_number_not_by_letter() {
        let names = strings(&[
            "linux-image-5.10.0-9-cloud-amd64",
            "linux-image-5.10.0-46-cloud-amd64",
            "linux-image-5.10.0-46-cloud-amd64-dbg",
            "linux-image-5.10.0-47-amd64",
        ]);
        assert_eq!(newest(&names, "linux-image-5.10.0-"), Some("linux-image-5.10.0-46-cloud-amd64"));
        assert_eq!(newest(&[], "linux-image-5.10.0-"), None);
    }

    #[test]
    fn no_name_is_every_kernel_and_an_unknown_name_is_refused() {
        assert_eq!(named(&[]).unwrap().len(), KERNELS.len());
        assert_eq!(named(&strings(&["6.1"])).unwrap()[0].name, "6.1");
        let error = named(&strings(&["4.9"])).unwrap_err().to_string();
        assert!(error.contains("5.10, 6.1"), "{error}");
    }
}
