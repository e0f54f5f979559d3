// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Asks a Jaeger collector how services are to be sampled.
//!
//! In: names of services. Out: the collector's answer about each, at once and then once an interval, and how often that
//! went well. An answer that does not come, or means nothing, changes nothing: the one before it holds. It decides about
//! no trace, and nobody waits for it.
//!
//! <https://www.jaegertracing.io/docs/latest/architecture/sampling/#remote-sampling>

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use reqwest::{Client, Url};
use tokio::{
    runtime::Handle,
    sync::mpsc,
    task::AbortHandle,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tracing::{info, warn};

use super::{
    complaint::Complaint,
    otlp::{TCP_KEEPALIVE, shown},
    tls,
};
use crate::{
    config::Tls,
    sample::{Remote, settings::JaegerRemote},
};

/// Asks, from a task of its own, until it is dropped.
#[derive(Debug)]
pub struct Strategies {
    /// Services that the task was told of. Law: at most [`MOST_SERVICES`].
    told: HashSet<Arc<str>>,
    services: mpsc::Sender<Arc<str>>,
    answers: mpsc::Receiver<(Arc<str>, Remote)>,
    counts: Arc<Counts>,
    task: AbortHandle,
}

/// How often the collector was asked.
#[derive(Debug, Default)]
struct Counts {
    answered: AtomicU64,
    failed: AtomicU64,
}

/// The questions, and where they go.
struct Asker {
    client: Client,
    /// Without the service.
    url: Url,
    services: Vec<Arc<str>>,
    answers: mpsc::Sender<(Arc<str>, Remote)>,
    counts: Arc<Counts>,
    complaint: Complaint,
}

impl Strategies {
    /// Starts the task on `runtime`. Nobody is asked yet: a collector that is away is no error here, but an address that
    /// is none is.
    pub fn start(settings: &JaegerRemote, runtime: &Handle) -> anyhow::Result<Self> {
        let client = Client::builder()
            .tls_backend_preconfigured(tls::http(&Tls::default())?)
            .timeout(PATIENCE)
            .tcp_keepalive(TCP_KEEPALIVE)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("set up the HTTP client for sampling strategies")?;
        let (services, inbox) = mpsc::channel(MOST_SERVICES);
        let (answered, answers) = mpsc::channel(MOST_ANSWERS);
        let counts = Arc::new(Counts::default());
        let asker = Asker {
            client,
            url: address(&settings.endpoint)?,
            services: Vec::new(),
            answers: answered,
            counts: Arc::clone(&counts),
            complaint: Complaint::default(),
        };
        let every = Duration::from_millis(settings.polling_interval_ms).max(SHORTEST_INTERVAL);
        let task = runtime.spawn(asker.run(inbox, every)).abort_handle();
        Ok(Self { told: HashSet::new(), services, answers, counts, task })
    }

    /// Has the task ask about those of `services` that it does not know, now and again.
    pub fn ask<'a>(&mut self, services: impl ExactSizeIterator<Item = &'a Arc<str>>) {
        // Nobody is ever taken out of them.
        if services.len() == self.told.len() {
            return;
        }
        for service in services {
            if !self.told.contains(service) && self.services.try_send(Arc::clone(service)).is_ok() {
                self.told.insert(Arc::clone(service));
            }
        }
    }

    /// What was answered since the last call.
    pub fn answers(&mut self) -> impl Iterator<Item = (Arc<str>, Remote)> + '_ {
        std::iter::from_fn(|| self.answers.try_recv().ok())
    }

    /// Questions by what became of them.
    pub fn counts(&self) -> [(&'static str, u64); 2] {
        let Counts { answered, failed } = &*self.counts;
        [("answered", answered.load(Ordering::Relaxed)), ("failed", failed.load(Ordering::Relaxed))]
    }
}

impl Drop for Strategies {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Asker {
    async fn run(mut self, mut inbox: mpsc::Receiver<Arc<str>>, every: Duration) {
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                service = inbox.recv() => {
                    let Some(service) = service else { return };
                    self.ask(&service).await;
                    self.services.push(service);
                }
                _ = ticks.tick() => {
                    for service in self.services.clone() {
                        // The others would wait for one that is away in vain, each for as long.
                        if !self.ask(&service).await {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Whether the collector is there, whatever it answered.
    async fn ask(&mut self, service: &Arc<str>) -> bool {
        match self.answer(service).await {
            Ok(remote) => {
                self.counts.answered.fetch_add(1, Ordering::Relaxed);
                if let Some(failed) = self.complaint.over() {
                    info!("sampling strategies come from {} again, after {failed} failures", shown(self.url.as_str()));
                }
                // The loop comes by a hundred times a second; it ends when nobody listens any more.
                self.answers.send((Arc::clone(service), remote)).await.is_ok()
            }
            Err(why) => {
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                if self.complaint.lost(std::time::Instant::now(), 1).is_some() {
                    let url = shown(self.url.as_str());
                    warn!("no sampling strategy for {service} from {url} ({why:#}); what held before still does");
                }
                !why.is::<reqwest::Error>()
            }
        }
    }

    async fn answer(&self, service: &str) -> anyhow::Result<Remote> {
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("service", service);
        // Its text repeats the URL.
        let mut response = self.client.get(url).send().await.map_err(reqwest::Error::without_url)?;
        let status = response.status();
        anyhow::ensure!(status.is_success(), "it answers {status}");
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(reqwest::Error::without_url)? {
            anyhow::ensure!(body.len() + piece.len() <= MOST_BYTES, "the answer has more than {MOST_BYTES} bytes");
            body.extend_from_slice(&piece);
        }
        Remote::parse(&body).map_err(|why| anyhow::anyhow!("the answer means nothing: {why}"))
    }
}

/// `endpoint` with the path of the API, if it has none.
fn address(endpoint: &str) -> anyhow::Result<Url> {
    let mut url: Url = endpoint.parse().with_context(|| format!("the endpoint {} is no URL", shown(endpoint)))?;
    if url.path() == "/" {
        url.set_path("/api/sampling");
    }
    Ok(url)
}

/// Longest time for one answer, which is small and in the collector's memory.
const PATIENCE: Duration = Duration::from_secs(5);

/// Less than that between two questions about a service is a slip.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// Services that are asked about: as many as the sampler names.
const MOST_SERVICES: usize = 1_024;

/// Answers that wait for the loop, which takes them a hundred times a second; the task waits where there are more.
const MOST_ANSWERS: usize = 64;

/// Bytes of an answer: its 2,000 operations with names of 200 characters each, twice over.
const MOST_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Write as _},
        net::TcpListener,
        sync::mpsc as std_mpsc,
        thread,
    };

    use super::*;

    /// A server on a port of its own that gives each of `answers` to one request, in order, and tells of the requests.
    fn collector(answers: Vec<(&'static str, String)>) -> (String, std_mpsc::Receiver<String>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (tell, told) = std_mpsc::channel();
        thread::spawn(move || {
            for (status, body) in answers {
                let Ok((mut stream, _)) = listener.accept() else { return };
                let lines = BufReader::new(stream.try_clone().expect("a second handle")).lines();
                let head: Vec<_> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
                let length = body.len();
                let head_of_answer =
                    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
                // Whoever has seen enough hangs up.
                stream.write_all((head_of_answer + &body).as_bytes()).ok();
                tell.send(head.first().cloned().unwrap_or_default()).ok();
            }
        });
        (format!("http://{address}"), told)
    }

    fn share(share: &str) -> String {
        format!(r#"{{"strategyType":"PROBABILISTIC","probabilisticSampling":{{"samplingRate":{share}}}}}"#)
    }

    #[test]
    fn what_is_answered_is_kept_until_something_better_is_answered() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let good = |text: &str| ("200 OK", share(text));
        let (endpoint, told) = collector(vec![
            good("0.5"),
            ("500 No", String::new()),
            ("200 OK", "{}".to_owned()),
            ("200 OK", " ".repeat(MOST_BYTES + 1)),
            good("0.25"),
        ]);
        let settings = JaegerRemote { endpoint, polling_interval_ms: 100, initial: 0.001 };
        let mut strategies = Strategies::start(&settings, runtime.handle()).expect("a good address");
        let services: [Arc<str>; 1] = ["a cart".into()];
        strategies.ask(services.iter());
        strategies.ask(services.iter());
        let mut next = || {
            let deadline = std::time::Instant::now() + Duration::from_secs(20);
            loop {
                let answer = strategies.answers().next();
                if let Some(answer) = answer {
                    return (answer, strategies.counts());
                }
                assert!(std::time::Instant::now() < deadline, "no answer came");
                thread::yield_now();
            }
        };
        let remote = |text: &str| Remote::parse(share(text).as_bytes()).expect("an answer");
        let cart = || Arc::clone(&services[0]);
        assert_eq!(next(), ((cart(), remote("0.5")), [("answered", 1), ("failed", 0)]));
        assert_eq!(next(), ((cart(), remote("0.25")), [("answered", 2), ("failed", 3)]), "three answers meant nothing");
        let asked: Vec<_> = told.try_iter().collect();
        assert_eq!(asked, ["GET /api/sampling?service=a+cart HTTP/1.1"; 5]);
    }

    #[test]
    fn the_path_is_added_where_there_is_none() {
        for (endpoint, expected) in [
            ("http://jaeger:5778", Some("http://jaeger:5778/api/sampling")),
            ("http://jaeger:5778/", Some("http://jaeger:5778/api/sampling")),
            ("https://jaeger/tier/sampling", Some("https://jaeger/tier/sampling")),
            ("jaeger", None),
        ] {
            assert_eq!(address(endpoint).ok().as_ref().map(Url::as_str), expected, "{endpoint}");
        }
    }
}
