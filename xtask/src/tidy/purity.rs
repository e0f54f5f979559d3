// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Rule: the stages and the vocabulary touch no socket, file, task, thread, clock, random source or global.
//!
//! In: the agent's sources. Out: a finding for each path or item that reaches outside. What a recorded event stream
//! replays to, byte for byte, rests on this rule.

use proc_macro2::{TokenStream, TokenTree};

use super::{Finding, TextFile, source, stages};

/// What no pure module names, and what it does instead.
const BANNED: &[(&[&str], &str)] = &[
    (&["std", "net", "*"], "name the address types that are needed"),
    (&["TcpListener"], "sockets are the shell's"),
    (&["TcpStream"], "sockets are the shell's"),
    (&["UdpSocket"], "sockets are the shell's"),
    (&["std", "os"], "the operating system is the shell's"),
    (&["std", "fs"], "files are the shell's"),
    (&["std", "env"], "the environment is read once, by `config`"),
    (&["std", "process"], "other programs are the shell's"),
    (&["std", "thread"], "threads are the shell's"),
    (&["std", "sync", "mpsc"], "a stage returns its output"),
    (&["tokio"], "tasks are the shell's"),
    (&["libc"], "system calls are the shell's"),
    (&["Instant"], "`now` is an argument: take a `Timestamp`"),
    (&["SystemTime"], "wall time is an argument: take a `WallOffset`"),
    (&["rand", "rng"], "randomness is an argument"),
    (&["thread_rng"], "randomness is an argument"),
    (&["println"], "standard output is the shell's"),
    (&["eprintln"], "standard error is the shell's: count it in `vitals`"),
    (&["thread_local"], "state is owned by the pipeline"),
    (&["OnceLock"], "state is owned by the pipeline"),
    (&["LazyLock"], "state is owned by the pipeline"),
];

/// Types that make a `static` a variable.
const INTERIOR_MUTABILITY: &[&str] = &["Cell", "RefCell", "UnsafeCell", "OnceCell", "Mutex", "RwLock"];

fn findings(file: &TextFile) -> Vec<Finding> {
    if !stages::module(&file.path).is_some_and(|module| stages::is_pure(module[0])) {
        return Vec::new();
    }
    let finding = |line, what| Finding { file: file.path.clone(), line, what };
    let tokens = match source::tokens(&file.text) {
        Ok(tokens) => tokens,
        Err(error) => return vec![finding(0, format!("cannot be parsed: {error}"))],
    };
    let mut found: Vec<_> = variables(tokens.clone())
        .into_iter()
        .map(|line| finding(line, "a global variable: state is owned by the pipeline".to_owned()))
        .collect();
    for path in source::paths(tokens) {
        // A module of our own may be called as a banned crate or module is.
        if path.segments[0] == "crate" {
            continue;
        }
        if let Some((banned, instead)) = BANNED.iter().find(|(banned, _)| path.contains(banned)) {
            found.push(finding(path.line, format!("`{}` in a pure module: {instead}", banned.join("::"))));
        }
    }
    found
}

/// Lines of statics that can change.
fn variables(tokens: TokenStream) -> Vec<usize> {
    let mut lines = Vec::new();
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) => lines.extend(variables(group.stream())),
            TokenTree::Ident(word) if word == "static" && !is_lifetime(&tokens[..at]) => {
                let mut declaration = tokens[at + 1..].iter().take_while(|token| !ends_declaration(token));
                if declaration.any(is_changeable) {
                    lines.push(word.span().start().line);
                }
            }
            _ => {}
        }
    }
    lines
}

fn is_lifetime(before: &[TokenTree]) -> bool {
    matches!(before.last(), Some(TokenTree::Punct(mark)) if mark.as_char() == '\'')
}

fn ends_declaration(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(mark) if matches!(mark.as_char(), '=' | ';'))
}

fn is_changeable(token: &TokenTree) -> bool {
    let TokenTree::Ident(word) = token else { return false };
    let word = word.to_string();
    word == "mut" || word.starts_with("Atomic") || INTERIOR_MUTABILITY.contains(&word.as_str())
}

#[cfg(test)]
mod tests {
    use super::findings;
    use crate::tidy::{Finding, TextFile, assert_tidy, files};

    #[test]
    fn the_stages_reach_nothing_outside() {
        let findings: Vec<Finding> = files("agent/src", &[".rs"]).iter().flat_map(findings).collect();
        assert_tidy(&findings);
    }

    #[track_caller]
    fn check(path: &str, text: &str, expected: usize) {
        let found = findings(&TextFile { path: format!("agent/src/{path}"), text: text.to_owned() });
        assert_eq!(found.len(), expected, "{found:?}");
    }

    #[test]
    fn reaching_outside_is_found() {
        for outside in [
            "use std::net::TcpStream;",
            "use std::{fs, io};",
            "fn f() { std::thread::spawn(|| ()); }",
            "async fn f() { tokio::task::yield_now().await }",
            "use std::time::{Duration, Instant};",
            "fn f() -> u64 { time::SystemTime::now() }",
            "fn f() { println!(\"{}\", 1); }",
            "fn f() -> u64 { rand::rng().next_u64() }",
        ] {
            check("stream/assembler.rs", outside, 1);
            check("pipeline.rs", outside, 1);
        }
    }

    #[test]
    fn globals_are_found() {
        check("trace.rs", "static mut COUNT: u32 = 0;", 1);
        check("trace.rs", "static COUNT: AtomicU32 = AtomicU32::new(0);", 1);
        check("trace.rs", "fn f() { static TABLE: std::sync::Mutex<u8> = Mutex::new(0); }", 1);
        check("trace.rs", "thread_local!(static X: u8 = 1);", 1);
    }

    #[test]
    fn values_are_fine() {
        check("trace.rs", "use std::net::{IpAddr, SocketAddr}; use std::time::Duration;", 0);
        check("trace.rs", "static NAMES: &[&'static str] = &[\"a\"]; fn f(x: &'static mut u8) {}", 0);
        check("trace.rs", "use crate::process::ProcessId;", 0);
    }

    #[test]
    fn the_shell_and_tests_may_reach_outside() {
        check("run.rs", "use std::fs;", 0);
        check("trace.rs", "#[cfg(test)] mod tests { use std::fs; }", 0);
    }
}
