// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether an OpenTelemetry SDK is at work in a process.
//!
//! In: its command line, its environment and its mapped files. Out: yes or no. It names what SDKs bring along and what
//! starts them; an SDK that was compiled in and published nothing is seen by its exports alone (`enrich/sdk.rs`).

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

/// Whether one is, in the process whose directory in `/proc` is `process`.
pub(super) fn is_at_work(process: &Path, arguments: &[String], environment: &[u8]) -> bool {
    !is_silenced(environment) && (is_started(arguments) || is_injected(environment) || is_mapped(&process.join("maps")))
}

/// Whether its operator wants no spans of it.
/// <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>
fn is_silenced(environment: &[u8]) -> bool {
    variables(environment).any(|(name, value)| match name {
        b"OTEL_SDK_DISABLED" => value.eq_ignore_ascii_case(b"true"),
        b"OTEL_TRACES_EXPORTER" => value == b"none",
        _ => false,
    })
}

/// Whether the command line starts one: `opentelemetry-instrument python app.py`,
/// `java -javaagent:/opt/opentelemetry-javaagent.jar`, `node --require @opentelemetry/auto-instrumentations-node/register`.
fn is_started(arguments: &[String]) -> bool {
    arguments.iter().take(MOST_ARGUMENTS).any(|argument| {
        let of_java = argument.strip_prefix("-javaagent:").is_some_and(|jar| jar.contains(NAME));
        of_java || argument.contains("@opentelemetry/") || argument.ends_with("opentelemetry-instrument")
    })
}

/// Whether a runtime is told to load one, as Kubernetes operators do.
fn is_injected(environment: &[u8]) -> bool {
    let told = |name: &[u8]| LOADING.iter().any(|loading| loading.as_bytes() == name);
    variables(environment).any(|(name, value)| told(name) && memchr::memmem::find(value, NAME.as_bytes()).is_some())
}

/// Whether it has published its context (OTEP 4719) or a library of it is mapped.
fn is_mapped(maps: &Path) -> bool {
    let Ok(file) = File::open(maps) else { return false };
    let mut lines = BufReader::new(file.take(super::runtime::MAPS_BYTES));
    let mut line = Vec::new();
    loop {
        line.clear();
        match lines.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return false,
            Ok(_) => {}
        }
        // Five fields without blanks, then what is mapped.
        let Some(at) = line.iter().position(|byte| matches!(byte, b'/' | b'[')) else { continue };
        let mapped = line[at..].trim_ascii_end();
        let name = mapped.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let context = CONTEXTS.iter().any(|context| mapped.starts_with(context.as_bytes()));
        let loaded = memchr::memmem::find(name, b".so").is_some();
        let library = name == PHP || LIBRARIES.iter().any(|library| loaded && name.starts_with(library.as_bytes()));
        if context || library {
            return true;
        }
    }
}

fn variables(environment: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    environment.split(|byte| *byte == 0).filter_map(|variable| {
        let equals = variable.iter().position(|byte| *byte == b'=')?;
        Some((&variable[..equals], &variable[equals + 1..]))
    })
}

const NAME: &str = "opentelemetry";

/// Through which runtimes load what their program does not ask for.
const LOADING: &[&str] =
    &["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "NODE_OPTIONS", "PYTHONPATH", "RUBYOPT", "CORECLR_PROFILER_PATH"];

/// How the kernel names the mapping of a process context.
/// <https://github.com/open-telemetry/opentelemetry-specification/blob/main/oteps/profiles/4719-process-ctx.md>
const CONTEXTS: &[&str] = &["[anon_shmem:OTEL_CTX]", "[anon:OTEL_CTX]", "/memfd:OTEL_CTX"];

/// How libraries of C++ and .NET begin.
const LIBRARIES: &[&str] = &["libopentelemetry_", "OpenTelemetry.AutoInstrumentation"];

/// PHP's extension.
const PHP: &[u8] = b"opentelemetry.so";

/// Options that start an SDK stand before the program's own.
const MOST_ARGUMENTS: usize = 64;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_starts_or_silences_an_sdk_is_known() {
        let empty = tempfile::tempdir().expect("a folder");
        for (arguments, environment, expected) in [
            ("java -jar shop.jar", "", false),
            ("java -javaagent:/opt/opentelemetry-javaagent.jar -jar shop.jar", "", true),
            ("java -javaagent:/opt/other.jar opentelemetry", "", false),
            ("python3 /usr/bin/opentelemetry-instrument python3 app.py", "", true),
            ("node --require @opentelemetry/auto-instrumentations-node/register app.js", "", true),
            ("node app.js", "NODE_OPTIONS=--require /otel/node_modules/@opentelemetry/register", true),
            ("java -jar shop.jar", "JAVA_TOOL_OPTIONS= -javaagent:/otel/opentelemetry-javaagent.jar", true),
            ("python3 app.py", "PYTHONPATH=/otel/opentelemetry/instrumentation/auto_instrumentation:/otel", true),
            ("python3 app.py", "HOME=/home/opentelemetry", false),
            ("node --require @opentelemetry/register app.js", "OTEL_TRACES_EXPORTER=none", false),
            ("node --require @opentelemetry/register app.js", "OTEL_SDK_DISABLED=TRUE", false),
            ("node --require @opentelemetry/register app.js", "OTEL_SDK_DISABLED=false", true),
        ] {
            let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
            let said = is_at_work(empty.path(), &arguments, environment.as_bytes());
            assert_eq!(said, expected, "{arguments:?} {environment}");
        }
    }

    #[test]
    fn a_published_context_or_a_library_is_found_in_the_maps() {
        let folder = tempfile::tempdir().expect("a folder");
        for (mapped, expected) in [
            ("/memfd:OTEL_CTX (deleted)", true),
            ("[anon_shmem:OTEL_CTX]", true),
            ("[anon:OTEL_CTX]", true),
            ("[anon:other]", false),
            ("/usr/lib/libopentelemetry_trace.so", true),
            ("/usr/lib/php/20220829/opentelemetry.so", true),
            ("/home/me/target/debug/deps/libopentelemetry_proto-1f.rlib", false),
            ("/home/opentelemetry.sock", false),
            ("/otel/linux-x64/OpenTelemetry.AutoInstrumentation.Native.so", true),
        ] {
            let maps = format!(
                "55d0c0000000-55d0c0001000 r--p 00000000 fe:00 42 /usr/bin/shop\n\
                 7f0000000000-7f0000001000 rw-p 00000000 00:00 0 \n\
                 7f0000002000-7f0000003000 r--p 00000000 00:01 7    {mapped}\n"
            );
            fs::write(folder.path().join("maps"), maps).expect("written");
            assert_eq!(is_at_work(folder.path(), &[], b""), expected, "{mapped}");
        }
    }
}
