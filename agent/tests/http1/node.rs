// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What Node.js makes of all files: its parser is llhttp, compiled from the grammar that many servers and clients share.
//!
//! In: the corpus. Out: the readings of `reader.js`, or why there are none.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use super::Reading;

pub(super) struct Readings {
    /// `llhttp 9.3.1`
    pub(super) version: String,
    lines: serde_json::Value,
}

pub(super) fn read(corpus: &Path) -> Result<Readings, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/http1/reader.js");
    let output = Command::new("node").arg(script).arg(corpus).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("node: {error}"))?;
    let said: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stderr)))?;
    let version = said["llhttp"].as_str().ok_or("node does not say which parser it has")?;
    Ok(Readings { version: format!("llhttp {version}"), lines: said["files"].clone() })
}

impl Readings {
    pub(super) fn of(&self, name: &str) -> String {
        let file = &self.lines[name];
        let mut reading = Reading::default();
        for message in file["messages"].as_array().expect("reader.js read every file") {
            match message["method"].as_str() {
                Some(method) => {
                    let target = message["target"].as_str().unwrap_or_default();
                    let local = target.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]));
                    reading.request(method, if method == "CONNECT" { "" } else { local.unwrap_or(target) });
                }
                None => {
                    let status = message["status"].as_u64().and_then(|status| u16::try_from(status).ok());
                    reading.response(status.expect("a status"), message["complete"] == true);
                }
            }
        }
        reading.finish(file["refused"] == true)
    }
}
