// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{self, Command},
};

use super::*;
use crate::targets::{Reader, tests::Waiting};

/// The program `name`, where it is installed. Tests of real runtimes say so when they have nothing to test.
fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file());
    if found.is_none() {
        eprintln!("{name} is not installed: nothing to recognise");
    }
    found
}

/// What a file says of itself.
fn inspect(path: &Path) -> Image {
    elf::inspect(&File::open(path).expect("a file"))
}

fn running(command: &mut Command) -> Runtime {
    let child = Waiting::start(command);
    Reader::new().facts(child.0.id()).expect("it waits").runtime
}

#[test]
fn go_is_recognised_however_it_was_built() {
    let Some(go) = installed("go") else { return };
    let folder = tempfile::tempdir().expect("a directory");
    fs::write(folder.path().join("main.go"), "package main\nfunc main() { print(\"x\") }\n").expect("written");
    // Programs with C in them are linked by the C compiler.
    let external = installed("cc").map(|_| ("external", &["-ldflags=-linkmode=external"][..]));
    let internal = [
        ("plain", &[][..]),
        ("stripped", &["-ldflags=-s -w"]),
        ("pie", &["-buildmode=pie"]),
        ("pie-stripped", &["-buildmode=pie", "-ldflags=-s -w"]),
        ("without-build-id", &["-ldflags=-buildid="]),
        ("pie-without-build-id", &["-buildmode=pie", "-ldflags=-s -w -buildid="]),
        // A name that would make it something else.
        ("python3", &[]),
    ];
    for (name, arguments) in internal.into_iter().chain(external) {
        let mut build = Command::new(&go);
        build.current_dir(folder.path()).args(["build", "-o", name]).args(arguments).arg("main.go");
        // Nothing is fetched, and nothing of the user's settings matters.
        build.env("GO111MODULE", "off").env("GOFLAGS", "").env("GOTOOLCHAIN", "local");
        build.env("CGO_ENABLED", if Some((name, arguments)) == external { "1" } else { "0" });
        assert!(build.status().expect("go runs").success(), "{build:?}");
        let program = folder.path().join(name);
        assert_eq!(inspect(&program).runtime, Some(Runtime::Go), "{name}");
        without_section_headers(&program);
        assert_eq!(inspect(&program).runtime, Some(Runtime::Go), "{name} without section headers");
    }
}

/// Does what sstrip(1) and packers do: the program still runs.
fn without_section_headers(program: &Path) {
    let mut bytes = fs::read(program).expect("a file");
    // e_shoff, e_shnum and e_shstrndx of a 64-bit header.
    bytes[0x28..0x30].fill(0);
    bytes[0x3c..0x40].fill(0);
    fs::write(program, bytes).expect("written");
}

#[test]
fn live_runtimes_are_recognised() {
    let cat_python = "import sys\nfor line in sys.stdin: print(line, end='', flush=True)";
    let cat_java = "public class Cat { public static void main(String[] a) throws Exception { \
                    int b; while ((b = System.in.read()) >= 0) { System.out.write(b); System.out.flush(); } } }";
    if let Some(python) = installed("python3") {
        assert_eq!(running(Command::new(python).args(["-c", cat_python])), Runtime::Python);
    }
    if let Some(node) = installed("node") {
        assert_eq!(running(Command::new(node).args(["-e", "process.stdin.pipe(process.stdout)"])), Runtime::Node);
    }
    if let Some(java) = installed("java") {
        let folder = tempfile::tempdir().expect("a directory");
        let source = folder.path().join("Cat.java");
        fs::write(&source, cat_java).expect("written");
        assert_eq!(running(Command::new(java).arg(source)), Runtime::Java);
    }
    assert_eq!(running(&mut Command::new("cat")), Runtime::Native);
}

#[test]
fn node_is_recognised_by_what_it_exports_under_any_name() {
    let Some(node) = installed("node") else { return };
    let image = inspect(&node);
    // A distribution may have it in libnode.so: then the mapped library tells.
    assert!(image.runtime == Some(Runtime::Node) || image.dynamic, "{image:?}");
    let folder = tempfile::tempdir().expect("a directory");
    let renamed = folder.path().join("shop");
    fs::copy(node, &renamed).expect("copied");
    assert_eq!(running(Command::new(renamed).args(["-e", "process.stdin.pipe(process.stdout)"])), Runtime::Node);
}

#[test]
fn other_executables_are_native() {
    let Some(cat) = installed("cat") else { return };
    assert_eq!(inspect(&cat), Image { runtime: None, dynamic: true });
}

#[test]
fn tokio_is_known_by_what_it_would_say() {
    let this = inspect(&PathBuf::from(format!("/proc/{}/exe", process::id())));
    assert_eq!(this, Image { runtime: Some(Runtime::Tokio), dynamic: true });
}

#[test]
fn a_file_cut_or_spoilt_anywhere_says_something_or_nothing() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let whole = fs::read("/proc/self/exe").expect("an executable");
    // The header, the program headers, and a little of what follows.
    let head = &whole[..1024.min(whole.len())];
    for end in (0..head.len()).step_by(7) {
        fs::write(file.path(), &head[..end]).expect("written");
        assert_eq!(inspect(file.path()).runtime, None, "{end}");
    }
    for at in 0..head.len() {
        let mut spoilt = head.to_vec();
        spoilt[at] = 0xff;
        fs::write(file.path(), &spoilt).expect("written");
        assert_eq!(inspect(file.path()).runtime, None, "{at}");
    }
}

#[test]
fn executables_are_known_by_their_names() {
    for (name, runtime) in [
        ("python", Some(Runtime::Python)),
        ("python3", Some(Runtime::Python)),
        ("python3.11", Some(Runtime::Python)),
        ("python3.13t", Some(Runtime::Python)),
        ("python3.13d", Some(Runtime::Python)),
        ("python-wrapper", None),
        ("node", Some(Runtime::Node)),
        ("node22", Some(Runtime::Node)),
        ("nodejs", Some(Runtime::Node)),
        ("node_exporter", None),
        ("java", Some(Runtime::Java)),
        ("javac", None),
        ("ruby3.1", Some(Runtime::Ruby)),
        ("php8.2", Some(Runtime::Php)),
        ("php-fpm8.2", Some(Runtime::Php)),
        ("dotnet", Some(Runtime::Dotnet)),
        ("nginx", None),
        ("3", None),
        ("", None),
    ] {
        assert_eq!(by_name(name), runtime, "{name}");
    }
}

#[test]
fn mapped_libraries_tell_of_embedded_runtimes() {
    let line = |path: &str| format!("7f0000000000-7f0000001000 r-xp 00000000 fe:00 1234    {path}\n");
    for (path, runtime) in [
        ("/usr/lib/jvm/java-17/lib/server/libjvm.so", Runtime::Java),
        ("/usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0", Runtime::Python),
        ("/usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0 (deleted)", Runtime::Python),
        ("/usr/lib/x86_64-linux-gnu/libnode.so.108", Runtime::Node),
        ("/usr/lib/x86_64-linux-gnu/libruby-3.1.so.3.1", Runtime::Ruby),
        ("/usr/lib/apache2/modules/libphp8.2.so", Runtime::Php),
        ("/usr/share/dotnet/shared/Microsoft.NETCore.App/8.0.0/libcoreclr.so", Runtime::Dotnet),
        ("/opt/libpython_helper.so", Runtime::Native),
        ("/opt/libjvm", Runtime::Native),
        ("/opt/libpython3/other.so", Runtime::Native),
        ("[heap]", Runtime::Native),
        ("", Runtime::Native),
    ] {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), line("/usr/lib/libc.so.6") + &line(path)).expect("written");
        assert_eq!(by_libraries(file.path()), runtime, "{path}");
    }
    assert_eq!(by_libraries(Path::new("/nonexistent")), Runtime::Native);
}

#[test]
fn maps_without_end_are_read_to_their_bound() {
    assert_eq!(by_libraries(Path::new("/dev/zero")), Runtime::Native);
}

#[test]
fn a_file_is_looked_at_once_until_it_changes() {
    let folder = tempfile::tempdir().expect("a directory");
    let program = folder.path().join("program");
    fs::copy("/proc/self/exe", &program).expect("copied");
    symlink(&program, folder.path().join("exe")).expect("linked");
    let mut runtimes = Runtimes::default();
    for _ in 0..2 {
        assert_eq!(runtimes.of(folder.path(), "program"), Runtime::Tokio);
        assert_eq!(runtimes.seen.len(), 1);
    }
    fs::copy("/proc/self/exe", &program).expect("copied");
    assert_eq!(runtimes.of(folder.path(), "program"), Runtime::Tokio);
    assert_eq!(runtimes.seen.len(), 2);
}
