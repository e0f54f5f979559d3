// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The HTTP/1 parser against two others, on valid and hostile messages.
//!
//! In: the files of `corpus/`, named by what is odd about them. Out: what each reader makes of each file, and the claim
//! that `docs/http1.md` explains every difference and no other. It does not say who is right: the document does.

mod node;
mod ours;
mod strict;

use std::{collections::BTreeMap, env, fmt::Write, fs, path::PathBuf};

use spantap::protocol::http1::fuzz_http1;

/// Which of the three readers: the columns of the table.
const READERS: [&str; 3] = ["spantap", "strict", "node"];

#[test]
fn every_difference_between_readers_is_explained_and_every_explanation_is_needed() {
    let corpus = corpus();
    assert!(corpus.len() > 150, "the corpus was not found");
    let node = node::read(&corpus_path());
    let page = fs::read_to_string(manifest().join("../docs/http1.md")).expect("docs/http1.md");
    let explained = rows(&page);
    let compared = match &node {
        Ok(readings) if page.contains(&readings.version) => 3,
        Ok(readings) => {
            println!("SKIPPED the third column: it was made with another parser than {}", readings.version);
            2
        }
        Err(reason) => {
            println!("SKIPPED the third column, Node's: {reason}");
            2
        }
    };

    let mut complaints = String::new();
    for (name, bytes) in &corpus {
        let mut readings = vec![ours::read(name, bytes), strict::read(name, bytes)];
        readings.extend(node.as_ref().ok().map(|node| node.of(name)));
        readings.truncate(compared);
        let row = explained.get(name.as_str()).map(|cells| &cells[..compared]);
        let differ = readings.iter().any(|reading| *reading != readings[0]);
        match row {
            Some(row) if row == readings => {}
            // A row that is there for the sake of a reader that is not.
            None if !differ => {}
            _ => writeln!(complaints, "| {name} | {} | … |", readings.join(" | ")).expect("a string"),
        }
        if compared == 3 && row.is_some() && !differ {
            writeln!(complaints, "{name}: all agree, the row is not needed").expect("a string");
        }
    }
    for name in explained.keys() {
        if !corpus.contains_key(*name) {
            writeln!(complaints, "{name}: explained, but not in the corpus").expect("a string");
        }
    }
    assert!(complaints.is_empty(), "docs/http1.md differs ({}):\n{complaints}", READERS[..compared].join(", "));
}

#[test]
fn a_message_cut_anywhere_reads_the_same() {
    for (name, bytes) in corpus() {
        let whole = ours::read(&name, &bytes);
        // Byte by byte takes its time in the longest ones.
        for step in [if bytes.len() < 10_000 { 1 } else { 101 }, 7, 1_000] {
            assert_eq!(ours::read_in_pieces(&name, &bytes, step), whole, "{name} in pieces of {step}");
        }
    }
}

/// Plays every file to the fuzz target. With `SPANTAP_FUZZ_SEEDS` naming a folder, fuzzing can begin where this ends.
#[test]
fn no_file_breaks_an_invariant_of_the_parser() {
    let seeds = env::var_os("SPANTAP_FUZZ_SEEDS").map(PathBuf::from);
    if let Some(folder) = &seeds {
        fs::create_dir_all(folder).expect("a folder for seeds");
    }
    for (name, bytes) in corpus() {
        let play = play(&name, &bytes);
        fuzz_http1(&play);
        if let Some(folder) = &seeds {
            fs::write(folder.join(name.replace('/', "-")), &play).expect("a folder for seeds");
        }
    }
}

/// A file as the fuzz target reads it: the odd message, with ordinary ones before and behind it.
fn play(name: &str, bytes: &[u8]) -> Vec<u8> {
    const CLIENT_SENT: u8 = 0b1000;
    const SERVER_SENT: u8 = 0b1001;
    let sent = |by: u8, bytes: &[u8]| -> Vec<u8> {
        let pieces = bytes.chunks(usize::from(u8::MAX));
        pieces.flat_map(|piece| [&[by, u8::try_from(piece.len()).unwrap_or(u8::MAX)], piece].concat()).collect()
    };
    let request = format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", method_of(name));
    let ok = sent(SERVER_SENT, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    if name.starts_with("requests/") {
        [sent(CLIENT_SENT, bytes), ok.clone(), ok].concat()
    } else {
        let again = sent(CLIENT_SENT, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        [sent(CLIENT_SENT, request.as_bytes()), sent(SERVER_SENT, bytes), again, ok].concat()
    }
}

/// The rows of the table: by file, what each reader makes of it.
fn rows(page: &str) -> BTreeMap<&str, Vec<String>> {
    let rows = page.lines().filter(|line| line.starts_with("| requests/") || line.starts_with("| responses/"));
    rows.map(|row| {
        let cells: Vec<_> = row.trim_start_matches("| ").trim_end_matches(" |").split(" | ").collect();
        let [name, readings @ .., why] = &cells[..] else { panic!("a row has cells: {row}") };
        assert!(readings.len() == READERS.len() && why.len() > 10, "a row says what each reads, and why: {row}");
        (*name, readings.iter().map(|reading| (*reading).to_owned()).collect())
    })
    .collect()
}

fn corpus() -> BTreeMap<String, Vec<u8>> {
    let mut corpus = BTreeMap::new();
    for folder in ["requests", "responses"] {
        for entry in fs::read_dir(corpus_path().join(folder)).expect("the corpus") {
            let entry = entry.expect("the corpus");
            let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
            corpus.insert(name, fs::read(entry.path()).expect("the corpus"));
        }
    }
    corpus
}

fn corpus_path() -> PathBuf {
    manifest().join("tests/http1/corpus")
}

fn manifest() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The method of the request that a file of responses answers: the first word of its name.
fn method_of(name: &str) -> &'static str {
    match name.trim_start_matches("responses/").split('-').next() {
        Some("head") => "HEAD",
        Some("connect") => "CONNECT",
        _ => "GET",
    }
}

/// What a reader made of a file, as the table shows it.
///
/// Requests: `POST /, GET /next`. Responses: `200, 299`; one that is not complete at the end of the connection is
/// `200...`. A `!` at the end means that the reader refused to go on, `nothing` that it saw no message and is content.
#[derive(Default)]
struct Reading(Vec<String>);

impl Reading {
    fn request(&mut self, method: &str, target: &str) {
        // As far as all readers write it the same way.
        let plain: String = target.chars().take_while(char::is_ascii_graphic).filter(|c| *c != '|').take(12).collect();
        // So that cells stay short.
        let method: String = method.chars().filter(|c| !"|`".contains(*c)).take(8).collect();
        self.0.push(format!("{method} {plain}").trim_end().to_owned());
    }

    fn response(&mut self, status: u16, complete: bool) {
        self.0.push(format!("{status}{}", if complete { "" } else { "..." }));
    }

    fn finish(mut self, refused: bool) -> String {
        if refused {
            self.0.push("!".to_owned());
        }
        if self.0.is_empty() { "nothing".to_owned() } else { self.0.join(", ") }
    }
}
