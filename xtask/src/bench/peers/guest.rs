// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The same measurement in a guest, for agents that want another kernel than this machine's.
//!
//! In: what was said on the command line. Out: the same table and figures, from the same program run there with this
//! machine's files. The peers come from where they are here; nothing is copied into the guest.

use std::{
    env, fs,
    path::{Path, absolute},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{Arguments, Named};
use crate::{
    bench::Effort,
    guest::{self, Guest, LENT_MEMORY, Machine},
    share::Share,
    vm,
};

/// Boots the kernel `name` and measures `agent` and the peers of `arguments` there.
pub(crate) fn measure(
    name: &str,
    agent: &Path,
    arguments: &Arguments,
    effort: Effort,
    json: Option<&Path>,
) -> Result<()> {
    let images = vm::ready(&[name.to_owned()])?;
    let image = images.first().context("no kernel was asked for")?;
    let folder = tempfile::tempdir().context("make a folder for the guest")?;
    let mut archive = guest::files()?;
    guest::lend(&mut archive, image)?;
    archive.executable("measure", script(agent, arguments, effort)?.as_bytes());
    archive.executable("init", INIT.as_bytes());
    let initramfs = folder.path().join("initramfs.cpio");
    fs::write(&initramfs, archive.finish()).with_context(|| format!("write {}", initramfs.display()))?;

    let share = Some(Share::start(folder.path())?);
    let guest = Guest::boot(Machine { image, initramfs: &initramfs, told: "", memory: LENT_MEMORY, share })?;
    let mut heard = Heard::default();
    while let Some(line) = guest.line(Instant::now() + PATIENCE) {
        heard.line(&line);
    }
    println!("\n{}", heard.table);
    if let (Some(file), Some(figures)) = (json, &heard.figures) {
        let text = serde_json::to_string_pretty(figures).context("write the figures as JSON")?;
        fs::write(file, text + "\n").with_context(|| format!("write {}", file.display()))?;
    }
    ensure!(heard.succeeded, "the measurement in the guest failed: its last lines say why");
    Ok(())
}

/// What the guest's console said.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    /// The rows of the table.
    table: String,
    figures: Option<serde_json::Value>,
    succeeded: bool,
}

impl Heard {
    fn line(&mut self, line: &str) {
        // The console may put a carriage return or a kernel message before what we look for, never behind.
        let line = line.trim_end();
        if line.starts_with('|') {
            self.table += line;
            self.table.push('\n');
        } else if let Some((_, figures)) = line.split_once(FIGURES) {
            self.figures = serde_json::from_str(figures).ok();
        } else if let Some((_, code)) = line.split_once(RESULT) {
            self.succeeded = code == "0";
        }
    }
}

/// This program's own command in the guest.
fn script(agent: &Path, arguments: &Arguments, effort: Effort) -> Result<String> {
    let whole = |file: &Path| {
        let file = absolute(file).with_context(|| format!("find {}", file.display()))?;
        ensure!(!file.starts_with("/run") && !file.starts_with("/dev"), "{} is not seen in the guest", file.display());
        Ok(file.display().to_string())
    };
    let program = env::current_exe().context("find this program")?;
    let mut words =
        vec![whole(&program)?, "bench".to_owned(), "peers".to_owned(), "--json".to_owned(), JSON.to_owned()];
    words.extend(["--agent".to_owned(), whole(agent)?]);
    if effort == Effort::Quick {
        words.push("--quick".to_owned());
    }
    for (flag, named) in [("--peer", &arguments.peers), ("--env", &arguments.variables)] {
        words.extend(named.iter().flat_map(|Named { name, value }| [flag.to_owned(), format!("{name}={value}")]));
    }
    let variable = |name| env::var(name).with_context(|| format!("read the variable {name}"));
    let (path, home) = (quoted(&variable("PATH")?), quoted(&variable("HOME")?));
    let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
    Ok(format!("#!/bin/sh\nexport PATH={path} HOME={home} TMPDIR=/run\nexec {}\n", words.join(" ")))
}

/// `word` for a shell, whatever is in it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// What precedes the figures, the exit code.
const FIGURES: &str = "FIGURES ";
const RESULT: &str = "RESULT measure ";

/// Where the guest may write.
const JSON: &str = "/run/figures.json";

/// Between two lines of the guest: an emulated peer takes minutes to its first span, and as long may a busy machine.
const PATIENCE: Duration = Duration::from_secs(900);

/// The guest's only process besides the measurement. `/tmp` stays this machine's, where a peer may lie.
const INIT: &str = "\
#!/bin/busybox sh
. /prepare
. /lend
cp /measure /host/run/measure
chroot /host /bin/sh /run/measure
code=$?
echo \"FIGURES $(tr -d '\\n' < /host/run/figures.json)\"
echo \"RESULT measure $code\"
poweroff -f
";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Arguments, FIGURES, Heard, INIT, RESULT, quoted, script};
    use crate::bench::Effort;

    #[test]
    fn the_table_the_figures_and_the_result_are_heard() {
        let mut heard = Heard::default();
        for line in ["[ 1.0] | no", "| agent |\r", "| x |\r", "[2.0] FIGURES {\"a\": 1}\r", "RESULT measure 0\r"] {
            heard.line(line);
        }
        let figures = Some(serde_json::json!({"a": 1}));
        assert_eq!(heard, Heard { table: "| agent |\n| x |\n".to_owned(), figures, succeeded: true });
        heard.line("RESULT measure 1");
        assert!(!heard.succeeded);
    }

    #[test]
    fn init_says_what_is_looked_for() {
        assert!(INIT.contains(FIGURES) && INIT.contains(RESULT));
    }

    #[test]
    fn the_guest_is_told_what_we_were_told() {
        let arguments = Arguments {
            peers: vec!["x=/opt/x -p {port}".parse().unwrap()],
            variables: vec!["A=it's".parse().unwrap()],
            ..Arguments::default()
        };
        let script = script(Path::new("/opt/spantap"), &arguments, Effort::Quick).unwrap();
        let told = r"'bench' 'peers' '--json' '/run/figures.json' '--agent' '/opt/spantap' '--quick' '--peer' 'x=/opt/x -p {port}' '--env' 'A=it'\''s'";
        assert!(script.trim_end().ends_with(told), "{script}");
        assert!(super::script(Path::new("/run/spantap"), &arguments, Effort::Full).is_err());
    }

    #[test]
    fn a_quoted_word_is_one_word() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("'"), r"''\'''");
    }
}
