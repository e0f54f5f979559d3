// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Many exchanges on some connections at once, as fast as they go.
//!
//! In: nothing. Out: [`CASES`]. This is not overload: each connection has one request under way.

use std::{
    io::Error,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
};

use crate::{
    case::Case,
    ground::{Ground, Told},
    talk::{End, Passed, Talk},
};

pub(super) const CASES: &[Case] = &[
    Case::code("load-on-1-connection", |ground| load(ground, 1)),
    Case::code("load-on-8-connections", |ground| load(ground, 8)).quick(),
    Case::code("load-on-64-connections", |ground| load(ground, 64)),
    Case::code("ten-thousand-connections", churn),
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

/// Connections that are opened and closed as fast as it goes, by several threads. One in twenty says something.
fn churn(ground: &mut Ground) -> Result<(), String> {
    let threads: Vec<Vec<String>> =
        (0..THREADS).map(|_| (0..CONNECTIONS / THREADS / 20).map(|_| ground.id()).collect()).collect();
    let port = ground.port(0);
    let results: Vec<Result<Done, String>> = thread::scope(|scope| {
        let threads = threads.into_iter().zip(1..).map(|(ids, host)| {
            let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), port));
            scope.spawn(move || open_and_close(address, ids))
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".into()))).collect()
    });
    for result in results {
        for (id, asked, answered) in result? {
            ground.expect_both(&id, Told::get(200), asked.first, answered.last);
        }
    }
    Ok(())
}

fn open_and_close(address: SocketAddr, ids: Vec<String>) -> Result<Done, String> {
    let listener = TcpListener::bind(address).map_err(|e| format!("listen on {address}: {e}"))?;
    let connect = || -> Result<_, Error> {
        let client = TcpStream::connect(address)?;
        Ok((client, listener.accept()?.0))
    };
    let mut all = Vec::with_capacity(ids.len());
    for id in ids {
        for _ in 0..19 {
            connect().map_err(|e| format!("connect to {address}: {e}"))?;
        }
        let (client, server) = connect().map_err(|e| format!("connect to {address}: {e}"))?;
        let (_, done) = ask_all(Talk::of(client, server)?, vec![id])?;
        all.extend(done);
    }
    Ok(all)
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

/// Of all threads together.
const CONNECTIONS: usize = 10_000;
const THREADS: usize = 4;
