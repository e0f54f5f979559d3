// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every reason for a loss, forced on the real kernel with the real executable.
//!
//! In: loopback traffic of this process under an agent with small bounds, or one that is badly treated. Out: three
//! claims each time: the laws of the books hold, the loss stands under its reason, and no span has what belongs to
//! another request. What the target gets is checked to the byte as the traffic goes.

mod agent;
#[expect(dead_code, reason = "the service matrix uses the rest")]
#[path = "../matrix/process.rs"]
mod process;
#[path = "../matrix/spans.rs"]
mod spans;
mod traffic;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Error, Read as _, Seek as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    process::Stdio,
    ptr,
    sync::{
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc::{Sender, channel},
    },
    thread,
    time::Duration,
};

use agent::{Account, Agent, Reader, Summary, command, end_of};
use process::{Process, wait_until};
use spans::{Kind, Span};
use traffic::{Client, EAGER, Server, status_of};

#[test]
fn nothing_is_lost_without_a_reason() {
    let Some(server) = server() else { return };
    let agent = Agent::start(server.port(), JSON, "", Reader::Eager);
    let made = server.ask(4, 250);
    let account = agent.stop(libc::SIGINT);
    account.is_right();
    assert_eq!((account.summary.requests, account.summary.spans), (2 * made, 2 * made));
    assert_eq!(account.losses(), 0, "{:#?}", account.summary);
}

#[test]
fn a_small_ring_at_saturation() {
    let Some(server) = server() else { return };
    let mut agent = Agent::start(server.port(), JSON, "ring=65536", Reader::Eager);
    let mut made = 0;
    while made < 20_000 {
        made += server.ask(8, 500);
    }
    agent.await_word("ring_full");
    let account = agent.stop(libc::SIGINT);
    account.is_right();
    assert!(account.summary.losses.records.of("ring_full") > 0, "{:#?}", account.summary);
    assert!(account.summary.requests <= 2 * made, "{made} made: {:#?}", account.summary);
    let warnings = account.said.iter().filter(|line| line.contains("WARN") && line.contains("ring_full")).count();
    assert_eq!(warnings, 1, "once a minute at most: {:#?}", account.said);
}

#[test]
fn a_consumer_that_stands_still_and_goes_on() {
    let Some(server) = server() else { return };
    let agent = Agent::start(server.port(), JSON, "ring=65536", Reader::Eager);
    let mut client = server.connect();
    client.ask();
    agent.signal(libc::SIGSTOP);
    for _ in 0..400 {
        client.ask();
    }
    let frozen = server.ask(4, 400);
    agent.signal(libc::SIGCONT);
    // Old connections are found again, and new ones are complete. The ring has room once it was read.
    await_sight(&agent, &server);
    // The first request of the old connection may be among what was lost on it.
    client.ask();
    let mut asked = ask_in_sight(&agent, &mut client, 40);
    asked.extend(ask_in_sight(&agent, &mut server.connect(), 40));
    let account = agent.stop(libc::SIGINT);
    account.is_right();
    assert!(account.summary.losses.records.of("ring_full") > 0, "{frozen}: {:#?}", account.summary);
    for path in asked {
        let answered = account.spans.iter().filter(|span| span.path == path && span.status.is_some()).count();
        assert_eq!(answered, 2, "{path}: {:#?}", account.summary);
    }
}

#[test]
fn sockets_that_have_no_room_for_what_is_known_of_them() {
    // In a thread of its own, with which the namespace goes.
    thread::spawn(|| {
        let Some((server, limit)) = server().and_then(|_| Some((namespace()?, "/proc/sys/net/core/optmem_max"))) else {
            return;
        };
        let usual = fs::read_to_string(limit).expect("a limit");
        let agent = Agent::start(server.port(), JSON, "", Reader::Eager);
        // `omem_charge` of `net/core/bpf_sk_storage.c`: a socket's values count against what it may hold beside its buffers.
        fs::write(limit, "1").expect("this namespace is ours");
        let unseen = server.ask(2, 20);
        fs::write(limit, usual).expect("this namespace is ours");
        let seen = ask_in_sight(&agent, &mut server.connect(), 20);
        let account = agent.stop(libc::SIGINT);
        account.is_right();
        let losses = &account.summary.losses.records;
        assert!(losses.of("socket_state_full") >= 2 * unseen, "{unseen} unseen: {:#?}", account.summary);
        assert_eq!((account.summary.requests, account.summary.spans), (2 * 20, 2 * 20), "{:#?}", account.summary);
        assert_eq!(account.spans.iter().filter(|span| seen.contains(&span.path)).count(), 2 * seen.len());
    })
    .join()
    .expect("the thread's own claims");
}

#[test]
fn tables_that_are_full() {
    let Some(server) = server() else { return };
    for (bounds, reason) in [("connections=2", "connections"), ("exchanges=2", "exchanges")] {
        let agent = Agent::start(server.port(), JSON, bounds, Reader::Eager);
        let made = server.ask(6, 20);
        let account = agent.stop(libc::SIGINT);
        account.is_right();
        let losses = &account.summary.losses;
        if reason == "connections" {
            assert!(losses.parts.of("table_full") > 0 && account.summary.strays > 0, "{:#?}", account.summary);
        } else {
            assert!(losses.requests.of("table_full") > 0, "{:#?}", account.summary);
            assert_eq!(account.summary.spans + losses.requests.total(), 2 * made, "{:#?}", account.summary);
        }
    }
}

#[test]
fn memory_that_cannot_be_read() {
    let Some(server) = server() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("bound").port();
    let agent = Agent::start(port, JSON, "", Reader::Eager);
    let mut near = Client::to(&server, port);
    let (far, _) = listener.accept().expect("accept");
    for vanishes in [false, true] {
        let request = near.request("");
        let length = request.len();
        thread::scope(|scope| {
            let (sender, page) = channel();
            let far = &far;
            let read = scope.spawn(move || read_into_page_vector(far, length, &sender));
            let page: Page = page.recv().expect("it begins");
            if vanishes {
                assert!(wait_until(PATIENCE, || page.is_read_under_way()), "the read waits for the request");
                page.vanish();
            }
            near.stream.write_all(&request).expect("write");
            assert_eq!(read.join().expect("no panic"), request);
        });
        (&far).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("write");
        let mut answer = [0; 38];
        near.stream.read_exact(&mut answer).expect("read");
    }
    let account = agent.stop(libc::SIGINT);
    let losses = &account.summary.losses;
    assert!(losses.records.of("unreadable") > 0, "{:#?}", account.summary);
    assert_eq!((losses.requests.of("gap"), losses.requests.total()), (1, 1), "{:#?}", account.summary);
    assert_eq!(account.summary.requests, 4);
}

#[test]
fn a_connection_whose_first_vector_cannot_be_read() {
    let Some(server) = server() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("bound").port();
    let agent = Agent::start(port, JSON, "", Reader::Eager);
    let mut near = Client::to(&server, port);
    let (far, _) = listener.accept().expect("accept");
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let mut heard = [0; 38];
    let first = near.request("");
    thread::scope(|scope| {
        let (sender, page) = channel();
        let (far, length) = (&far, first.len());
        let read = scope.spawn(move || read_into_page_vector(far, length, &sender));
        let page: Page = page.recv().expect("it begins");
        assert!(wait_until(PATIENCE, || page.is_read_under_way()), "the read waits for the request");
        page.vanish();
        near.stream.write_all(&first).expect("write");
        assert_eq!(read.join().expect("no panic"), first);
    });
    (&far).write_all(answer).and_then(|()| near.stream.read_exact(&mut heard)).expect("an answer");
    let second = near.request("");
    near.stream.write_all(&second).expect("write");
    let mut bytes = vec![0; second.len()];
    (&far).read_exact(&mut bytes).expect("read");
    assert_eq!(bytes, second);
    (&far).write_all(answer).and_then(|()| near.stream.read_exact(&mut heard)).expect("an answer");
    let account = agent.stop(libc::SIGINT);
    assert_eq!(account.summary.losses.records.of("unreadable"), 1, "{:#?}", account.summary);
    let server_spans: Vec<_> = account.spans.iter().filter(|span| span.kind == Kind::Server).collect();
    assert_eq!((account.summary.requests, server_spans.len()), (3, 1), "the second is seen: {:#?}", account.spans);
}

#[test]
fn a_head_over_the_budget() {
    let Some(server) = server() else { return };
    let agent = Agent::start(server.port(), JSON, "", Reader::Eager);
    let mut client = server.connect();
    client.ask();
    let long = client.request(&format!("X-Long: {}\r\n", "x".repeat(40 << 10)));
    client.stream.write_all(&long).expect("write");
    client.hear(&long);
    client.ask();
    let account = agent.stop(libc::SIGINT);
    account.is_right();
    let losses = &account.summary.losses;
    assert_eq!(account.summary.requests, 6, "three at each end: {:#?}", account.summary);
    assert_eq!(account.summary.spans + losses.requests.total(), 6, "{:#?}", account.summary);
    assert_eq!(losses.requests.of("over_budget") + losses.requests.of("gap"), 2, "{:#?}", account.summary);
}

#[test]
fn bytes_that_never_were_in_the_process() {
    let Some(server) = server() else { return };
    let agent = Agent::start(server.port(), JSON, "", Reader::Eager);
    let send = |client: &mut Client<'_>| {
        let request = client.request("");
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&request).and_then(|()| file.rewind()).expect("a file");
        sendfile(&client.stream, &file, request.len());
        client.hear(&request);
    };
    // The first bytes of a connection, and bytes of one that is captured.
    let mut first = server.connect();
    send(&mut first);
    let mut later = server.connect();
    later.ask();
    send(&mut later);
    let account = agent.stop(libc::SIGINT);
    account.is_right();
    let losses = &account.summary.losses;
    assert!(losses.records.of("unsupported_path") > 0, "{:#?}", account.summary);
    assert_eq!(losses.requests.of("gap"), 1, "{:#?}", account.summary);
    // Three at the server's end, one and one lost at the client's.
    assert_eq!((account.summary.spans, account.summary.requests), (4, 5), "{:#?}", account.summary);
}

#[test]
fn bytes_that_are_no_request_and_an_answer_that_nobody_asked_for() {
    let Some(server) = server() else { return };
    let agent = Agent::start(server.port(), JSON, "", Reader::Eager);
    let mut client = server.connect();
    client.ask();
    client.stream.write_all(b"no request\r\n").expect("write");
    let mut rest = Vec::new();
    client.stream.read_to_end(&mut rest).expect("the server ends it");

    let mut client = server.connect();
    let eager = client.request(EAGER);
    client.stream.write_all(&eager).expect("write");
    client.hear(&eager);
    let mut more = [0; 37];
    client.stream.read_exact(&mut more).expect("the server says more");
    drop(client);
    let account = agent.stop(libc::SIGINT);
    account.is_right();
    let losses = &account.summary.losses;
    assert_eq!(losses.requests.of("protocol_error"), 2, "{:#?}", account.summary);
    assert_eq!(losses.parts.of("unpaired"), 2, "{:#?}", account.summary);
    assert_eq!((account.summary.requests, account.summary.spans), (6, 4), "{:#?}", account.summary);
}

#[test]
fn two_threads_that_write_to_one_connection_at_once() {
    let Some(server) = server() else { return };
    let agent = Agent::start(server.port(), JSON, "", Reader::Eager);
    let client = server.connect();
    let (writers, each) = (2, 1500);
    let made = writers * each;
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (client, answered) = (&client, &answered);
        for writer in 0..writers {
            scope.spawn(move || {
                for number in 0..each {
                    // Each request is one call, and they are of different lengths.
                    let filler = "x".repeat((number * 7 + writer) % 97);
                    let request = client.request(&format!("X: {filler}\r\n"));
                    assert_eq!((&client.stream).write(&request).expect("write"), request.len());
                    while number * writers > answered.load(Relaxed) + AHEAD {
                        thread::yield_now();
                    }
                }
            });
        }
        scope.spawn(move || {
            for _ in 0..made {
                let mut answer = [0; ANSWER];
                (&client.stream).read_exact(&mut answer).expect("an answer");
                answered.fetch_add(1, Relaxed);
            }
        });
    });
    let account = agent.stop(libc::SIGINT);
    account.is_right();
    let made = made as u64;
    let of = |kind| account.spans.iter().filter(|span| span.kind == kind && span.status.is_some()).count() as u64;
    // One thread reads them at the other end. What the writers' probes could not put into order is counted.
    assert_eq!(of(Kind::Server), made, "{:#?}", account.summary);
    let losses = &account.summary.losses;
    assert_eq!(losses.requests.total(), losses.requests.of("gap"), "{:#?}", account.summary);
    assert!(of(Kind::Client) > 0 && account.summary.requests <= 2 * made, "{:#?}", account.summary);
    assert!(of(Kind::Client) == made || losses.parts.total() + losses.requests.total() > 0, "{:#?}", account.summary);
}

#[test]
fn nobody_reads_what_is_printed() {
    let Some(server) = server() else { return };
    let agent = Agent::start(server.port(), JSON, "queue=16", Reader::Asleep);
    let made = server.ask(4, 500);
    let account = agent.stop(libc::SIGTERM);
    assert_eq!(account.summary.spans + account.summary.losses.requests.total(), 2 * made, "{:#?}", account.summary);
    assert!(account.summary.losses.spans.of("queue_full") > 0, "{:#?}", account.summary);
    assert!(account.ended_after < Duration::from_secs(15), "{:?}", account.ended_after);
}

#[test]
fn a_collector_that_is_not_there() {
    let Some(server) = server() else { return };
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("bind");
    let endpoint = format!("http://{closed}");
    let agent = Agent::start(server.port(), &["--otlp", &endpoint], "queue=64", Reader::Eager);
    let made = server.ask(4, 250);
    let account = agent.end(libc::SIGTERM).0.join("\n");
    assert!(account.contains(&format!("{} requests · {} spans · 0 exported", 2 * made, 2 * made)), "{account}");
    assert!(account.contains(&format!("lost {} spans", 2 * made)), "{account}");
    assert!(account.contains("queue_full") && account.contains("export_failed"), "{account}");
}

#[test]
fn requests_under_way_at_the_end_are_truncated() {
    let Some(server) = server() else { return };
    let agent = Agent::start(server.port(), JSON, "", Reader::Eager);
    let mut client = server.connect();
    client.ask();
    client.stream.write_all(b"GET /silence HTTP/1.1\r\nHost: x\r\n\r\n").expect("write");
    // What was written before the signal is seen, even if the agent had no time yet to look.
    let account = agent.stop(libc::SIGTERM);
    let truncated = account.spans.iter().filter(|span| span.path == "/silence");
    let truncated: Vec<_> = truncated.map(|span| (span.kind, span.error.as_deref(), span.status)).collect();
    let expected = |kind| (kind, Some("truncated"), None);
    assert_eq!(truncated.len(), 2, "{:#?}", account.summary);
    assert!(
        truncated.contains(&expected(Kind::Client)) && truncated.contains(&expected(Kind::Server)),
        "{truncated:?}"
    );
    assert!(account.ended_after < Duration::from_secs(6), "2 s and a busy machine: {:?}", account.ended_after);
}

#[test]
fn a_terminal_that_is_gone_is_no_panic() {
    let Some(server) = server() else { return };
    let mut command = command(server.port(), &["--print", "text"], "");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = Process::start("spantap", &mut command).expect("spantap starts");
    drop((process.child().stdout.take(), process.child().stderr.take()));
    // It ends by itself once it has something to print.
    let mut client = server.connect();
    let mut status = None;
    wait_until(PATIENCE, || {
        client.ask();
        status = process.child().try_wait().ok().flatten();
        status.is_some()
    });
    let status = status.or_else(|| end_of(&mut process)).expect("it notices that nobody reads");
    assert!(status.success(), "{status}");
}

impl Account {
    /// No span has another request's status, and none is there twice.
    fn is_right(&self) {
        let mut known = BTreeSet::new();
        for span in &self.spans {
            if span.status.is_some() {
                assert_eq!(span.status, status_of(&span.path), "{span:?}");
            }
            let kind = span.kind == Kind::Server;
            assert!(known.insert((kind, span.path.clone())), "twice: {span:?}");
        }
    }

    fn losses(&self) -> u64 {
        let losses = &self.summary.losses;
        [&losses.requests, &losses.parts, &losses.records, &losses.spans].iter().map(|book| book.total()).sum()
    }
}

/// A server, or a word on why there can be no test.
#[test]
fn an_agent_that_exceeds_its_budget_does_less_and_later_more_again() {
    let Some(server) = server() else { return };
    // The ring has room for some twenty records: saturation loses most of its own in it, whatever the agent takes. At rest
    // a request has room enough, and a debug build takes far less than half of this budget.
    let mut command = command(server.port(), JSON, "calm=1000,ring=8192");
    command.env("SPANTAP_BUDGET_ENABLED", "true").env("SPANTAP_BUDGET_CPU", "400");
    let mut agent = Agent::of(&mut command, Reader::Eager);
    let (over, made) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                made.fetch_add(server.ask(8, 50), Relaxed);
            }
        });
        // Also when a wait fails: the scope ends with its threads.
        let _ended = Ended(&over);
        agent.await_word("from full to sampled");
        agent.await_word("from sampled to counted");
    });
    agent.await_word("from counted to sampled");
    agent.await_word("from sampled to full");
    // Requests whose end was lost are open yet: until then a call of the same process waits whether one of them made it.
    let mut client = server.connect();
    let asked: Vec<_> = (0..4).map(|_| ask(&mut client)).collect();
    for path in asked {
        let is_seen = || agent.has_shown(|span| span.path == path && span.status.is_some());
        assert!(wait_until(PATIENCE, is_seen), "{path}, as before: {:?}", agent.words());
    }
    let account = agent.stop(libc::SIGINT);
    account.is_right();
    let Summary { requests, steps, losses, .. } = &account.summary;
    assert!(steps.down >= 2 && steps.up == steps.down && steps.rung == 0, "{:#?}", account.summary);
    assert!(losses.spans.of("self_budget") > 0, "spans of other traces: {:#?}", account.summary);
    assert!(losses.records.of("self_budget") > 0, "calls that were only counted: {:#?}", account.summary);
    // Each end of a request is two calls: whoever of the two is missing was counted.
    let unseen = (2 * made.into_inner()).saturating_sub(*requests);
    assert!(unseen <= losses.records.total(), "{unseen} requests were not seen: {:#?}", account.summary);
}

#[test]
fn a_configuration_that_is_read_while_nothing_is_watched_holds_when_something_is_again() {
    let Some(server) = server() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("c.yaml");
    // This process is both ends of its requests.
    fs::write(&file, "exclude: ['kernel_loss-*']").expect("a file");
    let listen = format!("127.0.0.1:{}", process::free_port().expect("a free port"));
    let file_name = file.to_str().expect("temporary folders have plain names");
    let mut command = command(server.port(), &["--print", "json", "--config", file_name], "calm=5000");
    command.env("SPANTAP_BUDGET_ENABLED", "true").env("SPANTAP_BUDGET_CPU", "200");
    command.env("SPANTAP_METRICS_LISTEN", &listen);
    let mut agent = Agent::of(&mut command, Reader::Eager);
    server.ask(1, 10);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..8 {
            // Answering them takes more than the budget, whatever is watched.
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    scrape(&listen);
                }
            });
        }
        // Also when a wait fails: the scope ends with its threads.
        let _ended = Ended(&over);
        agent.await_word("from counted to detached");
    });
    fs::write(&file, "exclude: []").expect("a file");
    agent.signal(libc::SIGHUP);
    agent.await_word("selection as it says now");
    agent.await_word("from detached to counted");
    agent.await_word("from sampled to full");
    await_sight(&agent, &server);
    let account = agent.stop(libc::SIGINT);
    account.is_right();
    let said = |part: &str| account.said.iter().position(|line| line.contains(part));
    assert!(said("selection as it says now") < said("from detached to counted"), "{:#?}", account.said);
    assert_eq!(account.summary.steps.rung, 0, "{:#?}", account.summary);
}

/// Asks for the agent's numbers.
fn scrape(at: &str) {
    let Ok(mut stream) = TcpStream::connect(at) else { return };
    let asked = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    // The agent may have no place for another one.
    let _ = asked.and_then(|()| std::io::copy(&mut stream, &mut std::io::sink()));
}

/// Says so when it goes.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn server() -> Option<Server> {
    match spantap::kernel::features::privileged() {
        Ok(()) => Some(Server::start()),
        Err(why) => {
            // Straight to standard error: the harness keeps what `eprintln!` prints to itself.
            let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
            None
        }
    }
}

/// A server in a network namespace of this thread and of those that it starts, whose limits are its own: none before
/// Linux 6.8.
fn namespace() -> Option<Server> {
    // SAFETY: it takes no pointer.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "{}", Error::last_os_error());
    if !fs::exists("/proc/sys/net/core/optmem_max").expect("it can be asked for") {
        let _ = writeln!(std::io::stderr(), "SKIPPED: sockets of all namespaces share one limit here");
        return None;
    }
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket for the call");
    // SAFETY: zeros are valid for every field.
    let mut loopback: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in loopback.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    loopback.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the kernel reads one `ifreq`, which lives until it returns.
    let failed = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const loopback) };
    assert_eq!(failed, 0, "{}", Error::last_os_error());
    Some(Server::start())
}

/// Makes requests on new connections until one is shown, status and all.
fn await_sight(agent: &Agent, server: &Server) {
    let seen = wait_until(PATIENCE, || {
        let mut client = server.connect();
        let path = ask(&mut client);
        wait_until(SIGHT, || agent.has_shown(|span| span.path == path && span.status.is_some()))
    });
    assert!(seen, "the agent sees again");
}

/// Makes so many requests, a few at a time: a small ring has to be read in between. Out: their paths.
fn ask_in_sight(agent: &Agent, client: &mut Client<'_>, requests: usize) -> Vec<String> {
    let paths: Vec<_> = (0..requests)
        .map(|number| {
            let path = ask(client);
            if number % 10 == 9 {
                let is_last = |span: &Span| span.path == path;
                assert!(wait_until(PATIENCE, || agent.has_shown(is_last)), "{path} is shown");
            }
            path
        })
        .collect();
    paths
}

fn ask(client: &mut Client<'_>) -> String {
    let request = client.request("");
    client.stream.write_all(&request).expect("write");
    client.hear(&request);
    String::from_utf8_lossy(&request).split(' ').nth(1).map(str::to_owned).expect("made here")
}

/// A page of memory with the vector of a `readv`, for another thread to take away while the call waits.
#[derive(Clone, Copy)]
struct Page {
    address: usize,
    reader: libc::c_long,
}

/// Reads `length` bytes with `readv`; tells where its vector is and who reads.
fn read_into_page_vector(stream: &TcpStream, length: usize, tell: &Sender<Page>) -> Vec<u8> {
    let mut bytes = vec![0_u8; length];
    // SAFETY: a new anonymous page, wherever there is room.
    let page = unsafe {
        libc::mmap(
            ptr::null_mut(),
            PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert_ne!(page, libc::MAP_FAILED);
    let vector = page.cast::<libc::iovec>();
    // SAFETY: the page is ours, writable, aligned, and larger than the vector.
    unsafe { vector.write(libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: length }) };
    // SAFETY: a plain system call without arguments.
    let reader = unsafe { libc::syscall(libc::SYS_gettid) };
    tell.send(Page { address: page as usize, reader }).expect("somebody listens");
    // SAFETY: the kernel takes a copy of the vector before it waits; the buffer lives until the call is over.
    let read = unsafe { libc::readv(stream.as_raw_fd(), vector, 1) };
    assert_eq!(read, length as isize, "{}", Error::last_os_error());
    bytes
}

impl Page {
    /// Whether the reader is in its `readv`.
    fn is_read_under_way(self) -> bool {
        let call = fs::read_to_string(format!("/proc/self/task/{}/syscall", self.reader)).unwrap_or_default();
        call.split(' ').next().and_then(|number| number.parse().ok()) == Some(libc::SYS_readv)
    }

    fn vanish(self) {
        // SAFETY: the page was mapped for this; nobody but the kernel was told of it, which has its copy.
        let failed = unsafe { libc::munmap(self.address as *mut libc::c_void, PAGE) };
        assert_eq!(failed, 0, "{}", Error::last_os_error());
    }
}

fn sendfile(to: &TcpStream, from: &File, bytes: usize) {
    // SAFETY: both descriptors are open; no offset is passed.
    let sent = unsafe { libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), ptr::null_mut(), bytes) };
    assert_eq!(sent, bytes as isize, "{}", Error::last_os_error());
}

/// Requests of one connection that may wait for their answers: fewer than the agent remembers.
const AHEAD: usize = 32;

/// Bytes of an answer of the server.
const ANSWER: usize = b"HTTP/1.1 400 X\r\nContent-Length: 2\r\n\r\nok".len();

const JSON: &[&str] = &["--print", "json"];

/// For what should be done at once: long enough for the slowest of machines.
const PATIENCE: Duration = Duration::from_secs(30);

/// A span is visible 1.5 s after its end. But a call waits up to 5 s for the answer of any request of its process that it may have been made
/// for, and one whose end was lost stays open until something else comes on its connection.
const SIGHT: Duration = Duration::from_secs(8);

const PAGE: usize = 4096;
