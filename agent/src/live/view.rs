// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The live view: what the run loop gives finished spans to.
//!
//! In: spans in batches, and ticks. Out: text on a writer, in whole traces or whole lines. It reads no clock, and an
//! error of the writer is the caller's to judge: a reader that has gone (`spantap | head`) is no failure.

use std::io;

use super::{
    screen::Width,
    text::{self, Calls},
    traces::{Finished, Limits, Traces},
    tree,
};
use crate::{
    config::Colour,
    enrich::ServiceSpan,
    time::{Timestamp, WallOffset},
};

/// What is made of spans.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Style {
    /// Each finished trace as a tree.
    Tree,
    /// One line a request.
    Text,
}

/// The live view.
#[derive(Debug)]
pub struct Live<W> {
    model: Model,
    colour: Colour,
    width: Width,
    /// Of the last batch: one offset for a whole trace, so that its lines are in order.
    wall: WallOffset,
    writer: W,
}

#[derive(Debug)]
enum Model {
    Tree(Traces),
    Text(Calls),
}

impl<W: io::Write> Live<W> {
    /// A view that writes to `writer`.
    pub fn new(style: Style, colour: Colour, width: Width, writer: W) -> Self {
        let model = match style {
            Style::Tree => Model::Tree(Traces::new(Limits::default())),
            Style::Text => Model::Text(Calls::default()),
        };
        Self { model, colour, width, wall: WallOffset::default(), writer }
    }

    /// Takes finished spans, in any order.
    pub fn spans(&mut self, spans: &[ServiceSpan], wall: WallOffset) -> io::Result<()> {
        self.wall = wall;
        let colour = self.colour;
        match &mut self.model {
            Model::Tree(traces) => {
                let mut finished = Vec::new();
                for span in spans {
                    traces.add(span.clone(), &mut finished);
                }
                self.trees(&finished)
            }
            Model::Text(calls) => {
                let mut out = String::new();
                for span in spans {
                    calls.add(span.clone(), |request| text::line(request, wall, colour), &mut out);
                }
                self.write(&out)
            }
        }
    }

    /// The time is `now`: what is finished is written.
    pub fn tick(&mut self, now: Timestamp) -> io::Result<()> {
        let (wall, colour) = (self.wall, self.colour);
        match &mut self.model {
            Model::Tree(traces) => {
                let mut finished = Vec::new();
                traces.tick(now, &mut finished);
                self.trees(&finished)
            }
            Model::Text(calls) => {
                let mut out = String::new();
                calls.tick(now, |request| text::line(request, wall, colour), &mut out);
                self.write(&out)
            }
        }
    }

    /// Nothing more will come: everything is written.
    pub fn finish(&mut self) -> io::Result<()> {
        let (wall, colour) = (self.wall, self.colour);
        match &mut self.model {
            Model::Tree(traces) => {
                let mut finished = Vec::new();
                traces.finish(&mut finished);
                self.trees(&finished)
            }
            Model::Text(calls) => {
                let mut out = String::new();
                calls.finish(|request| text::line(request, wall, colour), &mut out);
                self.write(&out)
            }
        }
    }

    fn trees(&mut self, finished: &[Finished]) -> io::Result<()> {
        if finished.is_empty() {
            return Ok(());
        }
        let columns = self.width.columns();
        let text: String = finished.iter().map(|trace| tree::render(trace, self.wall, self.colour, columns)).collect();
        self.write(&text)
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.writer.write_all(text.as_bytes())?;
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::sample::{NOON, call, server};

    fn view(style: Style) -> String {
        let mut live = Live::new(style, Colour::Off, Width::Fixed(100), Vec::new());
        let [called, served] = call(1, 2, 1, ("web", "cart"), ("GET", "/c"), (1_000, 9_000), 200);
        let root = server(1, 1, "web", "GET", "/").at(0, 10_000).status(200);
        live.spans(&[served.into(), called.into()], NOON).expect("a vector takes everything");
        live.tick(Timestamp(9_000_000)).expect("a vector takes everything");
        live.spans(&[root.into()], NOON).expect("a vector takes everything");
        live.tick(Timestamp(400_000_000)).expect("a vector takes everything");
        let ticked = live.writer.len();
        live.finish().expect("a vector takes everything");
        assert_eq!(live.writer.len(), ticked, "everything was ready");
        String::from_utf8(live.writer).expect("text")
    }

    #[test]
    fn a_trace_is_written_when_it_is_finished() {
        insta::assert_snapshot!(view(Style::Tree), @r"
        12:01:07.000Z  GET /                         200  10.0ms  web          4b4b4b4b
                       └─ GET /c                     200  8.00ms  web -> cart
        ");
    }

    #[test]
    fn a_request_is_written_when_both_ends_are_known() {
        insta::assert_snapshot!(view(Style::Text), @r"
        12:01:07.001Z  4b4b4b4b  200  8.00ms  web -> cart               GET /c
        12:01:07.000Z  4b4b4b4b  200  10.0ms  web                       GET /
        ");
    }

    #[test]
    fn what_is_under_way_at_the_end_is_written() {
        for style in [Style::Tree, Style::Text] {
            let mut live = Live::new(style, Colour::Off, Width::Unlimited, Vec::new());
            let [called, _] = call(1, 2, 1, ("web", "cart"), ("GET", "/c"), (1_000, 9_000), 200);
            live.spans(&[called.into()], NOON).expect("a vector takes everything");
            assert!(live.writer.is_empty());
            live.finish().expect("a vector takes everything");
            assert!(String::from_utf8_lossy(&live.writer).contains("GET /c"), "{style:?}");
        }
    }
}
