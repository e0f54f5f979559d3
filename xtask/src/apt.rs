// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Debian's package manager: for this machine, and for suites of other releases in a folder of our own.
//!
//! In: package names. Out: packages installed, or downloaded and unpacked beside the build. Which packages and why is
//! the callers' business; nothing of another release is ever installed.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};

use crate::command::{answer, find, run};

/// Package lists older than this are fetched again: mirrors drop superseded versions after some days, and an install
/// from an old list then fails.
const LISTS_AGE: Duration = Duration::from_secs(3 * 24 * 3600);

/// Whether this is a machine with apt.
pub(crate) fn is_here() -> bool {
    find("apt-get").is_some()
}

/// Makes apt know `packages` if any mirror has them: fetches the package lists when they are old or do not name them.
pub(crate) fn refresh_lists(packages: &[&str]) -> Result<()> {
    let age = newest_list(Path::new("/var/lib/apt/lists")).and_then(|at| at.elapsed().ok());
    // Images of machines often come with new lists, but of one suite only.
    if age.is_some_and(|age| age < LISTS_AGE) && unknown(packages).is_empty() {
        return Ok(());
    }
    run(quiet("apt-get").arg("update"))
}

/// Those of `packages` that apt has no version of.
pub(crate) fn unknown<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    packages.iter().copied().filter(|package| candidate(package).is_none()).collect()
}

/// Installs `packages`, asking nothing.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    run(quiet("apt-get").args(["install", "-y", "--no-install-recommends"]).args(packages))
}

/// Suites of other Debian releases with lists and cache of their own, beside those of the machine.
pub(crate) struct OtherSuites {
    options: Vec<OsString>,
    downloads: PathBuf,
}

impl OtherSuites {
    /// Fetches the lists of `suites` into `folder`, from the mirrors the machine itself uses.
    pub(crate) fn fetch(folder: &Path, suites: &[&str]) -> Result<Self> {
        let sources = machine_sources()?;
        let lines = suites.iter().map(|suite| source_line(&sources, suite)).collect::<Result<Vec<_>>>()?;
        let downloads = folder.join("downloads");
        for needed in [&downloads, &folder.join("lists/partial"), &folder.join("cache/archives/partial")] {
            fs::create_dir_all(needed).with_context(|| format!("create {}", needed.display()))?;
        }
        let list = folder.join("sources.list");
        fs::write(&list, lines.join("\n") + "\n").with_context(|| format!("write {}", list.display()))?;

        let option = |name: &str, value: &Path| {
            let mut option = OsString::from(format!("{name}="));
            option.push(value);
            [OsString::from("-o"), option]
        };
        let options = [
            option("Dir::Etc::sourcelist", &list),
            option("Dir::Etc::sourceparts", Path::new("/dev/null")),
            option("Dir::State::lists", &folder.join("lists")),
            option("Dir::Cache", &folder.join("cache")),
            // apt's own unprivileged user cannot write below a home folder.
            option("APT::Sandbox::User", Path::new("root")),
        ];
        let suites = Self { options: options.into_iter().flatten().collect(), downloads };
        run(quiet("apt-get").args(&suites.options).args(["-q", "update"]))?;
        Ok(suites)
    }

    /// Names of all packages that begin with `prefix`.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = answer(Command::new("apt-cache").args(&self.options).args(["pkgnames", prefix]));
        Ok(names.context("apt-cache pkgnames failed")?.lines().map(str::to_owned).collect())
    }

    /// Downloads `package` and unpacks it into `folder`; runs none of its scripts.
    pub(crate) fn unpack(&self, package: &str, folder: &Path) -> Result<()> {
        run(quiet("apt-get").current_dir(&self.downloads).args(&self.options).args(["-q", "download", package]))?;
        let archive = fs::read_dir(&self.downloads)
            .with_context(|| format!("read {}", self.downloads.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&format!("{package}_")))
            })
            .with_context(|| format!("apt-get downloaded no {package}"))?;
        run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(folder))?;
        fs::remove_file(&archive).with_context(|| format!("remove {}", archive.display()))
    }
}

/// One place that packages come from.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Source {
    uri: String,
    suites: Vec<String>,
    keyring: Option<String>,
}

/// apt without questions and without a terminal.
fn quiet(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("DEBIAN_FRONTEND", "noninteractive").stdin(std::process::Stdio::null());
    command
}

fn candidate(package: &str) -> Option<String> {
    let policy = answer(Command::new("apt-cache").env("LC_ALL", "C").args(["policy", package]))?;
    let version = policy.lines().find_map(|line| line.trim_start().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

fn newest_list(folder: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(folder).ok()?;
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().ends_with("Release"))
        .filter_map(|entry| entry.metadata().ok()?.modified().ok())
        .max()
}

fn machine_sources() -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    if let Ok(text) = fs::read_to_string("/etc/apt/sources.list") {
        sources.extend(one_line_sources(&text));
    }
    let mut files: Vec<PathBuf> = fs::read_dir("/etc/apt/sources.list.d")
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    files.sort();
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_default();
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => sources.extend(one_line_sources(&text)),
            Some("sources") => sources.extend(deb822_sources(&text)),
            _ => {}
        }
    }
    if sources.is_empty() {
        bail!("no package source found below /etc/apt: other kernels can only be fetched on a Debian machine");
    }
    Ok(sources)
}

/// The line of `sources.list` for `suite`: the machine's own mirror of a suite of the same family. Debian keeps
/// security suites on a mirror of their own.
fn source_line(sources: &[Source], suite: &str) -> Result<String> {
    let is_security = |name: &str| name.ends_with("-security");
    let is_debian = |name: &str| DEBIAN_RELEASES.contains(&name.split('-').next().unwrap_or_default());
    let source = sources
        .iter()
        .find(|source| source.suites.iter().any(|name| is_debian(name) && is_security(name) == is_security(suite)))
        .with_context(|| format!("the machine lists no Debian mirror that would have the suite {suite}"))?;
    let signed = source.keyring.as_ref().map(|path| format!("[signed-by={path}] ")).unwrap_or_default();
    Ok(format!("deb {signed}{} {suite} main", source.uri))
}

fn one_line_sources(text: &str) -> Vec<Source> {
    text.lines()
        .filter_map(|line| {
            let line = line.trim().strip_prefix("deb ")?.trim_start();
            let (options, rest) = match line.strip_prefix('[') {
                Some(line) => line.split_once(']')?,
                None => ("", line),
            };
            let mut words = rest.split_whitespace();
            let keyring = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
            Some(Source {
                uri: words.next()?.to_owned(),
                suites: vec![words.next()?.to_owned()],
                keyring: keyring.map(str::to_owned),
            })
        })
        .collect()
}

fn deb822_sources(text: &str) -> Vec<Source> {
    // Comments may stand between the fields of a stanza; an empty line ends it.
    let text: String = text.lines().filter(|line| !line.starts_with('#')).flat_map(|line| [line, "\n"]).collect();
    text.split("\n\n")
        .filter_map(|stanza| {
            let field = |name: &str| {
                stanza.lines().find_map(|line| {
                    let (key, value) = line.split_once(':')?;
                    key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
                })
            };
            let uris = field("URIs")?;
            Some(Source {
                uri: uris.split_whitespace().next()?.to_owned(),
                suites: field("Suites")?.split_whitespace().map(str::to_owned).collect(),
                // The field may also hold the key itself, on following lines: then the first line is empty.
                keyring: field("Signed-By").filter(|value| value.starts_with('/')),
            })
        })
        .collect()
}

/// Suites that are Debian's, to tell its mirrors from other vendors' in the machine's lists.
const DEBIAN_RELEASES: &[&str] =
    &["bullseye", "bookworm", "trixie", "forky", "sid", "oldoldstable", "oldstable", "stable", "testing", "unstable"];

#[cfg(test)]
mod tests {
    use super::{Source, deb822_sources, one_line_sources, source_line};

    const DEB822: &str = "\
Types: deb
# a comment in between
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.test/debian-security
Suites: bookworm-security
Components: main
";

    #[test]
    fn a_suite_of_another_release_comes_from_the_mirror_of_its_family() {
        let sources = deb822_sources(DEB822);
        assert_eq!(
            source_line(&sources, "trixie").unwrap(),
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.test/debian trixie main"
        );
        assert_eq!(
            source_line(&sources, "bullseye-security").unwrap(),
            "deb http://mirror.test/debian-security bullseye-security main"
        );
    }

    #[test]
    fn other_vendors_lists_are_no_debian_mirror() {
        let sources = one_line_sources("deb https://vendor.test/repo nodistro main\n");
        assert!(source_line(&sources, "trixie").is_err());
    }

    #[test]
    fn the_one_line_style_is_read_with_and_without_options() {
        let text = "# deb http://no.test x main\ndeb [arch=amd64 signed-by=/k.gpg] http://a.test bookworm main\n\
                    deb http://b.test bookworm-security main contrib\ndeb-src http://c.test bookworm main\n";
        let expected = [
            Source {
                uri: "http://a.test".to_owned(),
                suites: vec!["bookworm".to_owned()],
                keyring: Some("/k.gpg".to_owned()),
            },
            Source { uri: "http://b.test".to_owned(), suites: vec!["bookworm-security".to_owned()], keyring: None },
        ];
        assert_eq!(one_line_sources(text), expected);
    }
}
