// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Many exchanges on some connections at once, as fast as they go.
//!
//! In: nothing. Out: [`CASES`]. This is not overload: each connection has one request under way.

use std::thread;

use crate::{
    case::Case,
    ground::{Ground, Told},
    talk::{End, Passed, Talk},
};

pub(super) const CASES: &[Case] = &[
    Case::code("load-on-1-connection", |ground| load(ground, 1)),
    Case::code("load-on-8-connections", |ground| load(ground, 8)).quick(),
    Case::code("load-on-64-connections", |ground| load(ground, 64)),
];

fn load(ground: &mut Ground, connections: usize) -> Result<(), String> {
    let jobs: Vec<(Talk, Vec<String>)> = (0..connections)
        .map(|_| Ok((ground.connect()?, (0..REQUESTS / connections).map(|_| ground.id()).collect())))
        .collect::<Result<_, String>>()?;
    let results: Vec<Result<_, String>> = thread::scope(|scope| {
        let threads: Vec<_> = jobs.into_iter().map(|(talk, ids)| scope.spawn(move || ask_all(talk, ids))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".into()))).collect()
    });
    for result in results {
        let (talk, done) = result?;
        for (id, asked, answered) in done {
            ground.expect_both(&id, Told::get(200), asked.first, answered.last);
        }
        ground.keep(talk);
    }
    Ok(())
}

type Done = Vec<(String, Passed, Passed)>;

fn ask_all(mut talk: Talk, ids: Vec<String>) -> Result<(Talk, Done), String> {
    let mut done = Vec::with_capacity(ids.len());
    for id in ids {
        let asked = talk.pass(End::Client, format!("GET /{id} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())?;
        let answered = talk.pass(End::Server, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        done.push((id, asked, answered));
    }
    Ok((talk, done))
}

/// Of all connections together: some seconds of it with a debug build on a busy machine.
const REQUESTS: usize = 1600;
