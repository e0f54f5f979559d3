// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The models of concurrency: how services wait for the calls that they make.
//!
//! In: nothing. Out: [`MODELS`], each with the service that stands for it, what is asked of the agent there, and what
//! the strongest peer had. The services' contract is in `agent/tests/services/models/README.md`.

use std::{
    fs,
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Serialize;

use crate::parts::{Part, built, class_path, crate_binary, in_venv, java, source};

/// One way to be concurrent.
pub(crate) struct Model {
    /// Part of a row's name.
    pub(crate) name: &'static str,
    /// How it calls.
    pub(crate) shapes: &'static [Shape],
    /// The shape that every run of the tests holds, if it is one of those.
    pub(crate) quick: Option<Shape>,
    /// Percent of the calls that the agent must get right.
    pub(crate) target: Option<f64>,
    /// What the strongest peer got right with shape `one`.
    pub(crate) peers: &'static [Peer],
    parts: &'static [Part],
    command: fn(&Site) -> Result<Command, String>,
}

/// How a service makes its calls.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Shape {
    /// One call over a pooled connection.
    One,
    /// The same on a connection of its own: proxies that make one call.
    OneFresh,
    /// Two, one after the other, over pooled connections.
    Sequence,
    /// Two at the same time, over pooled connections.
    Parallel,
    /// Two, one after the other, on connections of their own.
    Fresh,
}

/// What another agent had for the same service, in percent of the calls.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Peer {
    /// Requests at once; where it was measured at 32 instead of 64, that stands for 64.
    pub(crate) concurrency: usize,
    /// Under their own request.
    pub(crate) right: f64,
    /// Under another.
    pub(crate) wrong: f64,
}

/// Where a service runs.
pub(crate) struct Site<'a> {
    /// Where it listens.
    pub(crate) port: u16,
    /// Where its backend listens.
    pub(crate) backend: u16,
    /// For what it must write.
    pub(crate) folder: &'a Path,
}

impl Model {
    /// What a row of it is called.
    pub(crate) fn row(&self, shape: Shape) -> String {
        format!("{}.{}", self.name, shape.label())
    }

    /// Sees to it that everything it needs is here.
    pub(crate) fn provide(&self) -> Result<(), String> {
        [BACKEND].iter().chain(self.parts).try_for_each(|part| part.provide())
    }

    /// Its service.
    pub(crate) fn command(&self, site: &Site) -> Result<Command, String> {
        (self.command)(site)
    }
}

impl Shape {
    /// The first part of the paths.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::OneFresh => "one-fresh",
            Self::Sequence => "sequence",
            Self::Parallel => "parallel",
            Self::Fresh => "fresh",
        }
    }

    /// How many calls a request makes.
    pub(crate) fn calls(self) -> usize {
        match self {
            Self::One | Self::OneFresh => 1,
            Self::Sequence | Self::Parallel | Self::Fresh => 2,
        }
    }

    /// Whether it is what other agents were measured with.
    pub(crate) fn is_the_peers(self) -> bool {
        self == Self::One
    }
}

/// The command of the backend that all of them call.
pub(crate) fn backend(port: u16) -> Result<Command, String> {
    let mut command = Command::new(built("backend.go"));
    command.arg(port.to_string());
    Ok(command)
}

const BACKEND: Part = Part::Go { source: "backend.go" };

// --- The table ---

use Shape::{Fresh, One, OneFresh, Parallel, Sequence};

/// All of them, by language. Targets are those of what the model rests on: 99 % where evidence is exact, 95 % for pools
/// of threads that hand work on, 90 % for runtimes that move tasks between threads.
pub(crate) const MODELS: &[Model] = &[
    Model {
        name: "python-threads",
        shapes: &[One, Sequence, Parallel, Fresh],
        quick: Some(Sequence),
        target: Some(99.0),
        peers: &[peer(1, 100.0, 0.0), peer(8, 100.0, 0.0), peer(64, 100.0, 0.0)],
        parts: &[PYTHON],
        command: |site| Ok(site.interpreted("python3", "threads.py", &[])),
    },
    threaded("python-executor", Some(95.0), |site| Ok(site.interpreted("python3", "threads.py", &["executor"]))),
    threaded("python-pool", None, |site| Ok(site.interpreted("python3", "threads.py", &["pool"]))),
    threaded("python-passing-pool", None, |site| Ok(site.interpreted("python3", "threads.py", &["passing"]))),
    gunicorn("python-gunicorn-sync", |site| site.gunicorn(&["--worker-class", "sync", "--workers", "4"])),
    gunicorn("python-gunicorn-gthread", |site| {
        site.gunicorn(&["--worker-class", "gthread", "--workers", "1", "--threads", "16"])
    }),
    Model {
        name: "python-aiohttp",
        shapes: &[One, Sequence, Parallel, Fresh],
        quick: Some(Sequence),
        target: Some(99.0),
        peers: &[peer(1, 100.0, 0.0), peer(8, 12.5, 87.5), peer(64, 3.0, 97.0)],
        parts: &[Part::Venv],
        command: |site| Ok(site.in_venv("asyncio_aiohttp.py", &[])),
    },
    fastapi("python-fastapi", &[One, Sequence, Parallel, Fresh], |site| {
        Ok(site.in_venv("fastapi_service.py", &["async", "asyncio"]))
    }),
    fastapi("python-fastapi-uvloop", &[One, Sequence, Parallel], |site| {
        Ok(site.in_venv("fastapi_service.py", &["async", "uvloop"]))
    }),
    fastapi("python-fastapi-threadpool", &[One, Sequence, Fresh], |site| {
        Ok(site.in_venv("fastapi_service.py", &["threadpool", "asyncio"]))
    }),
    node("node-callbacks", &[One, Sequence, Parallel, Fresh], None, &[], |site| Ok(site.node("node.js", "callbacks"))),
    node("node-promises", &[One, Sequence, Parallel, Fresh], None, &[], |site| Ok(site.node("node.js", "promises"))),
    node(
        "node-timers",
        &[One, Sequence, Parallel, Fresh],
        Some(Sequence),
        &[peer(1, 100.0, 0.0), peer(8, 8.0, 0.0), peer(64, 59.7, 0.0)],
        |site| Ok(site.node("node.js", "timers")),
    ),
    node("node-fetch", &[One, Sequence, Parallel], None, &[], |site| Ok(site.node("node.js", "fetch"))),
    node("node-fetch-timers", &[One, Sequence, Parallel], None, &[], |site| Ok(site.node("node.js", "fetch-timers"))),
    node("node-queue", &[One, Sequence], None, &[], |site| Ok(site.node("node.js", "queue"))),
    Model {
        target: None,
        ..node("node-mixed", &[One, Sequence, Parallel], None, &[], |site| Ok(site.node("node.js", "mixed")))
    },
    node("node-cluster", &[One, Sequence], None, &[], |site| Ok(site.node("node_cluster.js", "timers"))),
    go("go-default", &[One, Sequence, Fresh], Some(Sequence), Some(99.0), &[], |site| Ok(site.go("default"))),
    go("go-goroutine", &[One, Sequence, Parallel, Fresh], Some(Parallel), Some(99.0), &GO_PEER, |site| {
        Ok(site.go("goroutine"))
    }),
    go("go-left", &[One, Sequence, Parallel], None, None, &[], |site| Ok(site.go("left"))),
    go("go-workers", &[One, Sequence, Parallel], Some(Sequence), None, &[], |site| Ok(site.go("workers"))),
    go("go-tasks", &[One, Sequence, Parallel], None, None, &[], |site| Ok(site.go("tasks"))),
    go("go-lazy", &[One, Sequence, Parallel], None, None, &[], |site| Ok(site.go("lazy"))),
    Model {
        name: "rust-multi",
        shapes: &[One, Sequence, Parallel, Fresh],
        quick: Some(Sequence),
        target: Some(90.0),
        peers: &[],
        parts: &[Part::Crate],
        command: |site| Ok(site.compiled(crate_binary(), &["multi"])),
    },
    Model {
        name: "rust-current",
        shapes: &[One, Sequence, Parallel, Fresh],
        quick: None,
        target: Some(99.0),
        peers: &[],
        parts: &[Part::Crate],
        command: |site| Ok(site.compiled(crate_binary(), &["current"])),
    },
    Model {
        name: "rust-blocking",
        shapes: &[One, Sequence, Parallel],
        quick: None,
        target: Some(90.0),
        peers: &[],
        parts: &[Part::Crate],
        command: |site| Ok(site.compiled(crate_binary(), &["blocking"])),
    },
    on_jdk(
        "java-pool",
        &[One, Sequence, Parallel, Fresh],
        Some(95.0),
        &[peer(1, 100.0, 0.0), peer(8, 95.0, 0.0), peer(64, 93.0, 0.0)],
        |site| Ok(site.java("java", "Work", &["pool"])),
    ),
    on_jdk(
        "java-second-pool",
        &[One, Sequence, Parallel, Fresh],
        Some(95.0),
        &[peer(1, 98.3, 0.0), peer(8, 99.5, 0.0), peer(64, 99.5, 0.0)],
        |site| Ok(site.java("java", "Work", &["second-pool"])),
    ),
    on_jdk("java-futures", &[One, Sequence, Parallel], Some(90.0), &[], |site| {
        Ok(site.java("java", "Work", &["futures"]))
    }),
    virtual_threads("java-virtual", &[One, Sequence, Parallel, Fresh], None, |site| {
        Ok(site.java(java(21)?, "Work", &["virtual"]))
    }),
    virtual_threads("java-virtual-url", &[One, Sequence, Fresh], Some(99.0), |site| {
        Ok(site.java(java(21)?, "Work", &["virtual-url"]))
    }),
    virtual_threads("java-virtual-children", &[Parallel], None, |site| {
        Ok(site.java(java(21)?, "Work", &["virtual-url"]))
    }),
    Model {
        name: "java-tomcat",
        shapes: &[One, Sequence, Parallel],
        quick: None,
        target: Some(95.0),
        peers: &[],
        parts: &[Part::Jars, Part::Java { source: "TomcatService.java" }],
        command: |site| {
            let mut java = site.java("java", "TomcatService", &["pool"]);
            java.arg(site.folder);
            Ok(java)
        },
    },
    Model {
        name: "java-tomcat-virtual",
        shapes: &[One, Sequence, Fresh],
        quick: None,
        target: Some(99.0),
        peers: &[],
        parts: &[Part::Jars, Part::Java { source: "TomcatService.java" }, Part::Jdk { least: 21 }],
        command: |site| {
            let mut java = site.java(java(21)?, "TomcatService", &["virtual"]);
            java.arg(site.folder);
            Ok(java)
        },
    },
    Model {
        name: "java-netty",
        shapes: &[One, Sequence, Parallel, Fresh],
        quick: None,
        target: None,
        peers: &[],
        parts: &[Part::Jars, Part::Java { source: "NettyService.java" }],
        command: |site| Ok(site.java("java", "NettyService", &[])),
    },
    Model {
        name: "ruby-puma",
        shapes: &[One, Sequence, Parallel, Fresh],
        quick: None,
        target: Some(99.0),
        peers: &[],
        parts: &[Part::Program { file: "puma", package: "puma" }],
        command: |site| {
            let mut puma = Command::new("puma");
            puma.args(["--threads", "16:16", "--quiet", "--bind", &format!("tcp://127.0.0.1:{}", site.port)]);
            puma.arg(source("puma.ru")).env("BACKEND", site.backend.to_string());
            Ok(puma)
        },
    },
    fibers("ruby-async", |site| Ok(site.interpreted("ruby", "fibers.rb", &["async"]))),
    fibers("ruby-async-net-http", |site| Ok(site.interpreted("ruby", "fibers.rb", &["net-http"]))),
    Model {
        name: "php-apache",
        shapes: &[One, Sequence, Fresh],
        quick: None,
        target: Some(99.0),
        peers: &[],
        parts: &[Part::Program { file: "apache2", package: "libapache2-mod-php" }],
        command: |site| site.apache(),
    },
    Model {
        name: "c-epoll",
        shapes: &[One, Sequence, Parallel, Fresh],
        quick: None,
        target: Some(99.0),
        peers: &[],
        parts: &[Part::C { source: "epoll.c" }],
        command: |site| Ok(site.compiled(built("epoll.c"), &[])),
    },
    Model {
        name: "nginx",
        shapes: &[One, Sequence, Fresh],
        quick: Some(Sequence),
        target: Some(99.0),
        peers: &[peer(1, 100.0, 0.0), peer(8, 93.3, 0.0), peer(64, 98.7, 0.0)],
        parts: &[Part::Program { file: "nginx", package: "nginx" }],
        command: |site| {
            let mut nginx = Command::new("nginx");
            nginx.arg("-c").arg(site.configuration("nginx.conf")?);
            Ok(nginx)
        },
    },
    Model {
        name: "haproxy",
        shapes: &[One, OneFresh],
        quick: None,
        target: Some(99.0),
        peers: &[],
        parts: &[Part::Program { file: "haproxy", package: "haproxy" }],
        command: |site| {
            let mut haproxy = Command::new("haproxy");
            haproxy.arg("-db").arg("-f").arg(site.configuration("haproxy.cfg")?);
            Ok(haproxy)
        },
    },
];

const WORK: Part = Part::Java { source: "Work.java" };
const PYTHON: Part = Part::Program { file: "python3", package: "python3" };
const FIBERS: &[Part] = &[
    Part::Program { file: "ruby", package: "ruby" },
    // What a package of a library always brings.
    Part::Program { file: "/usr/share/doc/ruby-async-http/copyright", package: "ruby-async-http" },
];
const GO_PEER: [Peer; 3] = [peer(1, 100.0, 0.0), peer(8, 100.0, 0.0), peer(64, 100.0, 0.0)];

/// `agent/tests/services/models` has the services that these are the commands of.
type Start = fn(&Site) -> Result<Command, String>;

const fn peer(concurrency: usize, right: f64, wrong: f64) -> Peer {
    Peer { concurrency, right, wrong }
}

/// Ways to have threads make calls at the same time; other calls are those of `python-threads`.
const fn threaded(name: &'static str, target: Option<f64>, command: Start) -> Model {
    Model { name, shapes: &[Parallel], quick: None, target, peers: &[], parts: &[PYTHON], command }
}

const fn gunicorn(name: &'static str, command: Start) -> Model {
    let shapes = &[One, Sequence, Fresh];
    Model { name, shapes, quick: None, target: Some(99.0), peers: &[], parts: &[Part::Venv], command }
}

const fn fastapi(name: &'static str, shapes: &'static [Shape], command: Start) -> Model {
    Model { name, shapes, quick: None, target: Some(99.0), peers: &[], parts: &[Part::Venv], command }
}

const fn node(
    name: &'static str,
    shapes: &'static [Shape],
    quick: Option<Shape>,
    peers: &'static [Peer],
    command: Start,
) -> Model {
    let parts = &[Part::Program { file: "node", package: "nodejs" }];
    Model { name, shapes, quick, target: Some(99.0), peers, parts, command }
}

const fn go(
    name: &'static str,
    shapes: &'static [Shape],
    quick: Option<Shape>,
    target: Option<f64>,
    peers: &'static [Peer],
    command: Start,
) -> Model {
    Model { name, shapes, quick, target, peers, parts: &[Part::Go { source: "service.go" }], command }
}

const fn on_jdk(
    name: &'static str,
    shapes: &'static [Shape],
    target: Option<f64>,
    peers: &'static [Peer],
    command: Start,
) -> Model {
    let parts = &[WORK];
    Model { name, shapes, quick: None, target, peers, parts, command }
}

const fn virtual_threads(name: &'static str, shapes: &'static [Shape], target: Option<f64>, command: Start) -> Model {
    Model { name, shapes, quick: None, target, peers: &[], parts: &[WORK, Part::Jdk { least: 21 }], command }
}

/// Fibers on one thread, each of them a connection's.
const fn fibers(name: &'static str, command: Start) -> Model {
    let shapes = &[One, Sequence, Parallel, Fresh];
    Model { name, shapes, quick: None, target: Some(99.0), peers: &[], parts: FIBERS, command }
}

impl Site<'_> {
    fn interpreted(&self, interpreter: impl AsRef<Path>, script: &str, more: &[&str]) -> Command {
        let mut command = Command::new(interpreter.as_ref());
        command.arg(source(script)).args([self.port, self.backend].map(|port| port.to_string())).args(more);
        command
    }

    fn in_venv(&self, script: &str, more: &[&str]) -> Command {
        self.interpreted(in_venv("python"), script, more)
    }

    fn gunicorn(&self, options: &[&str]) -> Result<Command, String> {
        let mut command = Command::new(in_venv("gunicorn"));
        let bind = format!("127.0.0.1:{}", self.port);
        command.args(["--bind", &bind, "--backlog", "256", "--log-level", "error", "--keep-alive", "30"]).args(options);
        command.arg("--chdir").arg(source("")).arg("wsgi:application").env("BACKEND", self.backend.to_string());
        Ok(command)
    }

    fn node(&self, script: &str, style: &str) -> Command {
        self.interpreted("node", script, &[style])
    }

    fn go(&self, style: &str) -> Command {
        self.compiled(built("service.go"), &[style])
    }

    fn compiled(&self, program: PathBuf, more: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args([self.port, self.backend].map(|port| port.to_string())).args(more);
        command
    }

    fn java(&self, java: impl AsRef<Path>, class: &str, more: &[&str]) -> Command {
        let mut command = Command::new(java.as_ref());
        // Head and body are two writes: under Nagle's algorithm the second would wait 40 ms for a delayed
        // acknowledgement. The second option is for the shape `fresh`.
        command.args(["-Dsun.net.httpserver.nodelay=true", "-Djdk.httpclient.allowRestrictedHeaders=connection"]);
        command.arg("-cp").arg(class_path()).arg(class);
        command.args([self.port, self.backend].map(|port| port.to_string())).args(more);
        command
    }

    fn apache(&self) -> Result<Command, String> {
        let modules = fs::read_dir("/usr/lib/apache2/modules").into_iter().flatten().flatten();
        let is_php = |file: &PathBuf| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libphp"));
        let php = modules.map(|entry| entry.path()).find(is_php).ok_or("apache2 has no module for PHP")?;
        // Its processes are nobody's, and must read this.
        let script = self.folder.join("php/index.php");
        let copy = || -> Result<(), std::io::Error> {
            fs::create_dir(self.folder.join("php"))?;
            fs::copy(source("php/index.php"), &script)?;
            fs::set_permissions(self.folder, Permissions::from_mode(0o755))
        };
        copy().map_err(|e| format!("copy index.php: {e}"))?;
        let configuration = self.configuration("apache.conf")?;
        let text = fs::read_to_string(&configuration).map_err(|e| format!("read apache.conf: {e}"))?;
        fs::write(&configuration, text.replace("@PHP@", &php.to_string_lossy()))
            .map_err(|e| format!("write apache.conf: {e}"))?;
        let mut apache = Command::new("apache2");
        apache.arg("-DFOREGROUND").arg("-f").arg(configuration);
        Ok(apache)
    }

    /// A configuration file, filled in.
    fn configuration(&self, name: &str) -> Result<PathBuf, String> {
        let template = fs::read_to_string(source(name)).map_err(|e| format!("read {name}: {e}"))?;
        let text = template
            .replace("@PORT@", &self.port.to_string())
            .replace("@BACKEND@", &self.backend.to_string())
            .replace("@DIRECTORY@", &self.folder.to_string_lossy());
        let file = self.folder.join(name);
        fs::write(&file, text).map_err(|e| format!("write {}: {e}", file.display()))?;
        Ok(file)
    }
}
