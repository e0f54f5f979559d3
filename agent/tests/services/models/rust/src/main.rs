// SPDX-License-Identifier: Apache-2.0 OR MIT
//! model PORT BACKEND multi|current|blocking: axum and reqwest on tokio.
//!
//! `multi` has four worker threads that steal tasks from each other, `current` one thread for everything. `blocking`
//! is `multi` with each call made by a blocking client, std's sockets, inside `spawn_blocking`.

use std::{
    env, io,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, State},
    routing::get,
};
use reqwest::Client;
use tokio::{net::TcpListener, runtime::Builder, task::spawn_blocking, time::sleep};

struct Service {
    backend: u16,
    is_blocking: bool,
    pooled: Client,
    fresh: Client,
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().collect();
    let port = |at: usize| arguments[at].parse().expect("a port");
    let style = arguments[3].as_str();
    let mut builder = match style {
        "current" => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.worker_threads(4).enable_all().build()?.block_on(serve(port(1), port(2), style == "blocking"))
}

async fn serve(port: u16, backend: u16, is_blocking: bool) -> io::Result<()> {
    let client = |idle| Client::builder().pool_max_idle_per_host(idle).build().expect("a client without TLS");
    let service = Arc::new(Service { backend, is_blocking, pooled: client(256), fresh: client(0) });
    let router = Router::new().route("/work/{shape}/{id}", get(work)).with_state(service);
    axum::serve(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?, router).await
}

async fn work(State(service): State<Arc<Service>>, Path((shape, id)): Path<(String, String)>) -> String {
    pause(&shape).await;
    let call = |n| service.call(&shape, &id, n);
    let parts = match shape.as_str() {
        "one" => vec![call(0).await],
        "parallel" => {
            let (first, second) = tokio::join!(call(0), call(1));
            vec![first, second]
        }
        _ => {
            let first = call(0).await;
            pause(&shape).await;
            vec![first, call(1).await]
        }
    };
    pause(&shape).await;
    parts.join(" ")
}

impl Service {
    async fn call(&self, shape: &str, id: &str, n: usize) -> String {
        let (backend, path) = (self.backend, format!("/call/{shape}/{id}/{n}"));
        let answer = if self.is_blocking {
            let call = spawn_blocking(move || get_blocking(backend, &path)).await;
            call.map_err(|e| e.to_string()).and_then(|answer| answer.map_err(|e| e.to_string()))
        } else {
            let client = if shape == "fresh" { &self.fresh } else { &self.pooled };
            let answer = async { client.get(format!("http://127.0.0.1:{backend}{path}")).send().await?.text().await };
            answer.await.map_err(|e| e.to_string())
        };
        answer.unwrap_or_else(|error| error)
    }
}

/// The backend closes after its answer, as it is asked to.
fn get_blocking(backend: u16, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, backend))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: backend\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or(text))
}

async fn pause(shape: &str) {
    let millis = if shape == "one" { 3.0 } else { rand::random_range(1.0..5.0) };
    sleep(Duration::from_secs_f64(millis / 1e3)).await;
}
