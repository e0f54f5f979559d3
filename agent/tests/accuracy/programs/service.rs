// SPDX-License-Identifier: Apache-2.0 OR MIT
//! service serve PORT: answers as ../programs.rs says, with the standard library, a thread a connection.
//! service call PORT PATH...: asks on one connection.
//! service pool PORT PATH...: asks on several at once.

use std::{
    env,
    error::Error,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::Mutex,
    thread,
    time::Duration,
};

const PIECE: &[u8] = b"0123456789";

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = env::args().collect();
    let [_, mode, port, paths @ ..] = &words[..] else { return Err("serve PORT | call PORT PATH...".into()) };
    let port: u16 = port.parse()?;
    match mode.as_str() {
        "serve" => serve(port)?,
        "pool" => pool(port, paths),
        _ => {
            let mut left = paths.iter();
            call(port, || left.next())?;
        }
    }
    Ok(())
}

// --- Server ---

fn serve(port: u16) -> io::Result<()> {
    for stream in TcpListener::bind(("127.0.0.1", port))?.incoming() {
        let stream = stream?;
        // A client that goes away ends its connection.
        thread::spawn(move || converse(stream));
    }
    Ok(())
}

fn converse(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let head = head(&mut reader)?;
        let mut words = head.split(' ');
        let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(()) };
        io::copy(&mut reader.by_ref().take(length(&head)), &mut io::sink())?;
        answer(&mut stream, method, path)?;
    }
}

fn answer(stream: &mut TcpStream, method: &str, path: &str) -> io::Result<()> {
    match path.split('/').nth(1).unwrap_or_default() {
        "204" => stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n"),
        "writes" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n")?;
            slowly(|| stream.write_all(PIECE))
        }
        "chunks" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            slowly(|| write!(stream, "a\r\n").and_then(|()| stream.write_all(PIECE)).and_then(|()| write!(stream, "\r\n")))?;
            stream.write_all(b"0\r\n\r\n")
        }
        "big" => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1 << 20)?;
            stream.write_all(&vec![0; 1 << 20])
        }
        status => {
            let body = if method == "HEAD" { &[] } else { PIECE };
            let head = format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n\r\n", PIECE.len());
            stream.write_all(&[head.as_bytes(), body].concat())
        }
    }
}

fn slowly(mut say: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    for _ in 0..5 {
        thread::sleep(Duration::from_millis(100));
        say()?;
    }
    Ok(())
}

// --- Client ---

fn pool(port: u16, paths: &[String]) {
    let left = Mutex::new(paths.iter());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| call(port, || left.lock().expect("no panic").next()).expect("every call is answered"));
        }
    });
}

fn call<'a>(port: u16, mut next: impl FnMut() -> Option<&'a String>) -> io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(path) = next() {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())?;
        let head = head(&mut reader)?;
        io::copy(&mut reader.by_ref().take(length(&head)), &mut io::sink())?;
    }
    Ok(())
}

// --- Both ---

/// Everything up to the empty line; nothing at the end of the stream.
fn head(reader: &mut impl BufRead) -> io::Result<String> {
    let mut head = String::new();
    while reader.read_line(&mut head)? > 0 && !head.ends_with("\r\n\r\n") {}
    Ok(head)
}

fn length(head: &str) -> u64 {
    let field = head.split("Content-Length: ").nth(1).unwrap_or_default();
    field.split("\r\n").next().and_then(|digits| digits.parse().ok()).unwrap_or_default()
}
