// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tasks of tokio, in this process: who answers, and who waits for what a pooled connection of hyper's is asked for.

use std::{
    convert::Infallible,
    process,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use http_body_util::Full;
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use reqwest::Client;
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use spantap::{
    kernel::features,
    process::Runtime,
    targets::identity::{Finder, Finding},
};
use spantap_common::{event::data::Direction, settings::ProcessSettings};
use tokio::{net::TcpListener, runtime::Builder, sync::Semaphore, task};

use crate::scene::{PATIENCE, Scene, Scenery, Seen};

#[test]
fn a_call_names_the_task_that_waits_for_it_and_an_answer_the_task_that_writes_it() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    if features::poll_offsets(&features::kernel_btf().expect("probes were attached")).is_none() {
        return eprintln!("SKIPPED: this kernel does not show what epoll knows a socket by");
    }
    // On one thread a task waits before the next one writes what it waits for.
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let service = Arc::new(Service::new(scene.port()));
    let listener = scene.listener.try_clone().expect("a descriptor");
    listener.set_nonblocking(true).expect("a listener");
    runtime.spawn(serve(listener, Arc::clone(&service)));
    let ask = |path: &str| runtime.spawn(get(service.client.clone(), service.url(path)));

    let held = ask("/front/held");
    let mut finder = Finder::start("/proc".into()).expect("a thread");
    let found = found(&mut finder, process::id());
    scene.probes.controls().set_process(process::id(), found).expect("room");
    service.held.add_permits(1);
    assert_eq!(runtime.block_on(held).expect("answered"), "back");

    for path in ["/front/alone", "/front/child"] {
        assert_eq!(runtime.block_on(ask(path)).expect("answered"), "back");
    }
    let seen = scene.seen();
    let (alone, child) = (service.tasks("alone"), service.tasks("child"));
    assert_eq!((alone.len(), child.len()), (1, 2));
    assert_eq!(wrote(&seen, "GET /back/alone"), [[0, alone[0], 0]]);
    assert_eq!(answered(&seen, "GET /front/alone"), [[alone[0], 0, 0]]);
    assert_eq!(wrote(&seen, "GET /back/child"), [[0, child[1], child[0]]]);
    assert_eq!(answered(&seen, "GET /front/child"), [[child[0], 0, 0]]);
    scene.lost_nothing();
}

/// What the probes are to know of the process, which has a call under way.
fn found(finder: &mut Finder, pid: u32) -> ProcessSettings {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(finder.look(pid, Some(Runtime::Tokio)).is_some(), "there is room for a question");
        let findings = finder.first_findings(deadline.saturating_duration_since(Instant::now()));
        if let [Finding { layout, .. }] = *findings {
            return layout.into_settings(ProcessSettings::default());
        }
        assert!(Instant::now() < deadline, "found nothing of tokio's: {findings:?}");
    }
}

/// The identities of writes that begin with `text`.
fn wrote(seen: &Scenery, text: &str) -> Vec<[u64; 3]> {
    let writes = seen.sockets.iter().flat_map(|socket| socket.data(Direction::Write));
    writes.filter(|data| data.bytes.starts_with(text.as_bytes())).map(|data| data.task.identity).collect()
}

/// The identities of the writes that follow the read of what begins with `text`.
fn answered(seen: &Scenery, text: &str) -> Vec<[u64; 3]> {
    let next = |socket: &Seen| {
        let asked = socket
            .data
            .iter()
            .position(|data| data.direction == Direction::Read && data.bytes.starts_with(text.as_bytes()))?;
        socket.data.get(asked + 1).filter(|data| data.direction == Direction::Write).map(|data| data.task.identity)
    };
    seen.sockets.iter().filter_map(next).collect()
}

struct Service {
    port: u16,
    client: Client,
    /// Whoever is asked for `held` waits for it.
    held: Semaphore,
    /// Who had a part in which request.
    tasks: Mutex<Vec<(String, u64)>>,
}

impl Service {
    fn new(port: u16) -> Self {
        let provider = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let versions = provider.with_safe_default_protocol_versions().expect("ring has them");
        let tls = versions.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        let client = Client::builder().no_proxy().tls_backend_preconfigured(tls).build().expect("a client");
        Self { port, client, held: Semaphore::new(0), tasks: Mutex::default() }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The current task has a part in this request.
    fn note(&self, name: &str) {
        let id = task::id().to_string().parse().expect("an id is a number");
        self.tasks.lock().expect("nobody panicked").push((name.to_owned(), id));
    }

    fn tasks(&self, name: &str) -> Vec<u64> {
        let tasks = self.tasks.lock().expect("nobody panicked");
        tasks.iter().filter(|(known, _)| known == name).map(|(_, id)| *id).collect()
    }
}

async fn serve(listener: std::net::TcpListener, service: Arc<Service>) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    while let Ok((stream, _)) = listener.accept().await {
        let service = Arc::clone(&service);
        let answers = service_fn(move |request| answer(request, Arc::clone(&service)));
        task::spawn(async { http1::Builder::new().serve_connection(TokioIo::new(stream), answers).await });
    }
}

async fn answer(request: Request<Incoming>, service: Arc<Service>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    let text = match (path.strip_prefix("/front/"), path == "/back/held") {
        (Some(name), _) => front(name, &service).await,
        (None, true) => {
            service.held.acquire().await.expect("nobody closes it").forget();
            "back".to_owned()
        }
        (None, false) => "back".to_owned(),
    };
    Ok(Response::new(Full::from(text)))
}

async fn front(name: &str, service: &Arc<Service>) -> String {
    service.note(name);
    let call = get(service.client.clone(), service.url(&format!("/back/{name}")));
    if name != "child" {
        return call.await;
    }
    let service = Arc::clone(service);
    let child = task::spawn(async move {
        service.note("child");
        call.await
    });
    child.await.expect("answered")
}

async fn get(client: Client, url: String) -> String {
    let response = client.get(url).timeout(Duration::from_secs(60)).send().await.expect("an answer");
    response.text().await.expect("a text")
}
