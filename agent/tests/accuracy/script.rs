// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A small language for cases that are a dialogue on one connection.
//!
//! In: a [`Script`], which is data: who says what, and which steps begin and end which request. Out: the dialogue, held
//! over a real connection, and its truths. It has no loops and no conditions: what needs them is a case in Rust.
//!
//! In a text, the n-th `{}` stands for the id of the n-th request (a later one for that of the last), `{=n}` for that
//! of the n-th, and `{+n}` for n bytes of filling.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    ground::{Ground, Told},
    spans::Kind,
    talk::{Cut, End, Leave, Talk},
    truth::{Truth, Window},
};

/// A dialogue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    /// In this order.
    pub(crate) steps: &'static [Step],
    /// The requests in it, in this order.
    pub(crate) requests: &'static [Request],
    /// How each step's bytes are cut.
    pub(crate) cut: Cut,
}

/// Something that happens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// The client says this.
    Client(&'static str),
    /// The server says this.
    Server(&'static str),
    /// Time passes.
    Pause(Duration),
    /// An end leaves.
    Leaves(End, Leave),
}

/// A request, and what became of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    told: Told,
    /// Of the server's span and of the client's, in the script's language.
    paths: [&'static str; 2],
    /// The step that begins with its first byte.
    asked: usize,
    /// The step that ends it.
    ended: usize,
    /// The step that ends it as the server sees it, where that is another one.
    ended_for_server: usize,
}

impl Script {
    /// In whole calls.
    pub(crate) const fn new(steps: &'static [Step], requests: &'static [Request]) -> Self {
        Self { steps, requests, cut: Cut::WHOLE }
    }

    /// With calls of at most so many bytes.
    pub(crate) const fn cut(self, write: usize, read: usize) -> Self {
        Self { cut: Cut { write, read }, ..self }
    }

    /// Holds the dialogue.
    pub(crate) fn hold(&self, ground: &mut Ground) -> Result<(), String> {
        let talk = ground.connect()?;
        self.hold_over(talk, ground)
    }

    /// Holds the dialogue over a connection that is there.
    pub(crate) fn hold_over(&self, mut talk: Talk, ground: &mut Ground) -> Result<(), String> {
        let ids: Vec<_> = self.requests.iter().map(|_| ground.id()).collect();
        talk.cut = self.cut;
        let mut next = 0;
        let mut windows = Vec::with_capacity(self.steps.len());
        for step in self.steps {
            let windows_of = match *step {
                Step::Client(text) => {
                    talk.pass(End::Client, &written(text, &ids, &mut next)).map(|p| (p.first, p.last))
                }
                Step::Server(text) => {
                    talk.pass(End::Server, &written(text, &ids, &mut next)).map(|p| (p.first, p.last))
                }
                Step::Leaves(end, how) => talk.leave(end, how).map(|window| (window, window)),
                Step::Pause(time) => {
                    let ((), window) = Window::around(|| pause(time));
                    Ok((window, window))
                }
            };
            windows.push(windows_of?);
        }
        for (request, id) in self.requests.iter().zip(&ids) {
            request.expect(id, &windows, ground);
        }
        ground.keep(talk);
        Ok(())
    }
}

impl Request {
    /// A GET for `/{}` from step `asked` to step `ended`, answered 200.
    pub(crate) const fn new(asked: usize, ended: usize) -> Self {
        Self { told: Told::get(200), paths: ["/{}", "/{}"], asked, ended, ended_for_server: ended }
    }

    /// Another method.
    pub(crate) const fn method(mut self, method: &'static str) -> Self {
        self.told.method = method;
        self
    }

    /// A method that the conventions do not know.
    pub(crate) const fn token(mut self, token: &'static str) -> Self {
        self.told.method = "_OTHER";
        self.told.original = Some(token);
        self
    }

    /// Another status; from 400 on it is the client's error, from 500 on the server's too.
    pub(crate) const fn status(mut self, status: u64, error: &'static str) -> Self {
        self.told.status = Some(status);
        if status >= 400 {
            self.told.client_error = Some(error);
        }
        if status >= 500 {
            self.told.server_error = Some(error);
        }
        self
    }

    /// No final status was seen.
    pub(crate) const fn unanswered(mut self) -> Self {
        self.told.status = None;
        self
    }

    /// How it failed for either side.
    pub(crate) const fn errors(mut self, client: Option<&'static str>, server: Option<&'static str>) -> Self {
        self.told.client_error = client;
        self.told.server_error = server;
        self
    }

    /// Other paths: `url.path` of the server's span, and the path in `url.full` of the client's.
    pub(crate) const fn paths(mut self, server: &'static str, client: &'static str) -> Self {
        self.paths = [server, client];
        self
    }

    /// The server is done with it in another step.
    pub(crate) const fn served(mut self, ended: usize) -> Self {
        self.ended_for_server = ended;
        self
    }

    fn expect(&self, id: &str, windows: &[(Window, Window)], ground: &mut Ground) {
        let Told { method, original, status, client_error, server_error } = self.told;
        let [served, called] =
            self.paths.map(|path| String::from_utf8_lossy(&written(path, &[id.to_owned()], &mut 0)).into_owned());
        let (start, _) = windows[self.asked];
        for (kind, path, error, ended) in [
            (Kind::Client, called, client_error, self.ended),
            (Kind::Server, served, server_error, self.ended_for_server),
        ] {
            let (_, end) = windows[ended];
            ground.expect(Truth { id: id.to_owned(), kind, path, method, original, status, error, start, end });
        }
    }
}

/// Time passes without a call on a socket: what several cases are about.
pub(crate) fn pause(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        thread::park_timeout(left);
    }
}

/// `text` with its braces filled in; `next` is the request that the next `{}` stands for.
fn written(text: &str, ids: &[String], next: &mut usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (mark, after) = after.split_once('}').expect("a brace is closed");
        bytes.extend_from_slice(before.as_bytes());
        match (mark.strip_prefix('+'), mark.strip_prefix('=')) {
            (Some(count), _) => bytes.resize(bytes.len() + count.parse::<usize>().expect("a number of bytes"), b'x'),
            (_, Some(index)) => bytes.extend(ids[index.parse::<usize>().expect("a request") - 1].as_bytes()),
            _ => {
                bytes.extend(ids[*next].as_bytes());
                *next = (*next + 1).min(ids.len() - 1);
            }
        }
        rest = after;
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_are_filled_in() {
        let ids = ["a".to_owned(), "b".to_owned()];
        let text = |text| String::from_utf8(written(text, &ids, &mut 0)).expect("text");
        assert_eq!(text("GET /{} GET /{} GET /{}"), "GET /a GET /b GET /b");
        assert_eq!(text("{=2}{+3}{=1}"), "bxxxa");
    }
}
