// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Environment variables, read by the rules of OpenTelemetry.
//!
//! In: names and texts. Out: typed values; what cannot be understood is a warning and counts as unset, as the
//! specification wants it
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#parsing-rules>). It does not
//! know what the variables mean.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
    time::Duration,
};

/// Where variables come from: the process, or a table in a test.
pub trait Environment {
    /// The value of `name`.
    fn value(&self, name: &str) -> Option<String>;

    /// Every name there is.
    fn names(&self) -> Vec<String>;

    /// The text of the file at `path`.
    fn file(&self, path: &Path) -> io::Result<String>;
}

/// The environment of this process. Bytes that are no text are replaced: the value is then wrong, and is reported so.
#[derive(Clone, Copy, Debug)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn value(&self, name: &str) -> Option<String> {
        std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn file(&self, path: &Path) -> io::Result<String> {
        let mut text = String::new();
        File::open(path)?.take(MOST_FILE).read_to_string(&mut text)?;
        Ok(text)
    }
}

/// Bytes of a configuration: more is another file.
const MOST_FILE: u64 = 1 << 20;

/// A table instead of an environment.
impl Environment for &[(&str, &str)] {
    fn value(&self, name: &str) -> Option<String> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    fn names(&self) -> Vec<String> {
        self.iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    /// A file is a variable whose name is a path.
    fn file(&self, path: &Path) -> io::Result<String> {
        self.value(&path.to_string_lossy()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Typed access that remembers what it had to ignore.
pub(super) struct Variables<'a> {
    environment: &'a dyn Environment,
    pub(super) warnings: Vec<String>,
}

impl<'a> Variables<'a> {
    pub(super) fn new(environment: &'a dyn Environment) -> Self {
        Self { environment, warnings: Vec::new() }
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<String> {
        self.environment.file(path)
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.environment.names()
    }

    pub(super) fn warn(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// "The SDK MUST interpret an empty value of an environment variable the same way as when the variable is unset."
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.environment.value(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// "Any value that represents a Boolean MUST be set to true only by the case-insensitive string "true", meaning
    /// "True" or "TRUE" are also accepted, as true. […] Any value not explicitly defined here as a true value,
    /// including unset and empty values, MUST be interpreted as false. If any value other than a true value,
    /// case-insensitive string "false", empty, or unset is used, a warning SHOULD be logged".
    pub(super) fn boolean(&mut self, name: &str) -> bool {
        let Some(text) = self.text(name) else { return false };
        if !text.eq_ignore_ascii_case("true") && !text.eq_ignore_ascii_case("false") {
            self.warn(format!("{name} is neither true nor false and counts as false"));
        }
        text.eq_ignore_ascii_case("true")
    }

    /// "Enum values SHOULD be interpreted in a case-insensitive manner. […] For sources accepting an enum value, if the
    /// user provides a value the implementation does not recognize, the implementation MUST generate a warning and
    /// gracefully ignore the setting."
    pub(super) fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(name)?;
        let choice = choices.iter().find(|(known, _)| known.eq_ignore_ascii_case(&text)).map(|(_, value)| *value);
        if choice.is_none() {
            let known: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            self.warn(format!("{name}={} is none of {} and was ignored", text.escape_debug(), known.join(", ")));
        }
        choice
    }

    /// "a comma-separated list enables setting multiple exporters"; the rules of [`choice`](Self::choice) for each.
    pub(super) fn choices<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<Vec<T>> {
        let mut chosen = Vec::new();
        for text in self.text(name)?.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            match choices.iter().find(|(known, _)| known.eq_ignore_ascii_case(text)) {
                Some((_, choice)) => chosen.push(*choice),
                None => {
                    let known: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
                    let known = known.join(", ");
                    self.warn(format!("{name}={} is none of {known} and was ignored", text.escape_debug()));
                }
            }
        }
        Some(chosen).filter(|chosen| !chosen.is_empty())
    }

    /// "Any value that represents a duration MUST be an integer representing a number of milliseconds." Zero would be
    /// no bound at all, which nothing in spantap is without.
    pub(super) fn milliseconds(&mut self, name: &str) -> Option<Duration> {
        let text = self.text(name)?;
        match text.parse::<u32>() {
            Ok(milliseconds) if milliseconds > 0 => Some(Duration::from_millis(milliseconds.into())),
            _ => {
                self.warn(format!(
                    "{name}={} is no number of milliseconds above 0 and was ignored",
                    text.escape_debug()
                ));
                None
            }
        }
    }

    /// "If the user provides a value the implementation cannot parse, or which is outside the valid range […], the
    /// implementation SHOULD generate a warning and gracefully ignore the setting".
    pub(super) fn count(&mut self, name: &str, least: u32) -> Option<usize> {
        let text = self.text(name)?;
        match text.parse::<u32>() {
            Ok(number) if number >= least => Some(number as usize),
            _ => {
                self.warn(format!("{name}={} is no number from {least} on and was ignored", text.escape_debug()));
                None
            }
        }
    }
}
