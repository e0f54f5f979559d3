// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Metrics on their way to a collector.
//!
//! In: [`Snapshot`]s, asked for once an interval. Out: `ExportMetricsServiceRequest`s, over the same transports as spans. A
//! request that was lost is not sent again: of cumulative sums the next one says the same, and what is new in a delta goes
//! into the next delta.

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::Arc,
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, Exemplar as ProtoExemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge,
        Histogram as ProtoHistogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
        exemplar, exponential_histogram_data_point::Buckets, metric, number_data_point,
    },
    resource::v1::Resource as ProtoResource,
};
use opentelemetry_semantic_conventions::{
    SCHEMA_URL,
    attribute::{SERVICE_NAME, TELEMETRY_DISTRO_NAME, TELEMETRY_DISTRO_VERSION},
};
use prost::Message as _;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};
use tracing::warn;

use super::{
    otlp::{Collector, Signal, Verdict},
    requests::{RequestStats, Requests},
};
use crate::{
    attribute::{Attribute, Value},
    config::Destination,
    metrics::{
        Data, Exemplar, Family, Histogram, Kind, OVERFLOW, Point,
        settings::{Histograms, Settings, Temporality},
    },
    process::ProcessId,
    time::{Timestamp, WallOffset},
};

/// All numbers at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The metrics.
    pub families: Vec<Family>,
    /// The moment.
    pub now: Timestamp,
    /// What turns it into wall time.
    pub wall: WallOffset,
}

/// How the numbers are asked for: whoever has them answers.
pub type Asks = mpsc::Sender<oneshot::Sender<Snapshot>>;

/// Sends metrics to one collector, from a task of its own.
#[derive(Debug)]
pub struct Exporter {
    finish: mpsc::Sender<(Snapshot, oneshot::Sender<()>)>,
    requests: Arc<Requests>,
}

impl Exporter {
    /// Starts the task on `runtime`.
    pub fn start(destination: &Destination, settings: &Settings, asks: Asks, runtime: &Handle) -> anyhow::Result<Self> {
        let _context = runtime.enter();
        let collector = Collector::new(destination, Signal::Metrics)?;
        let requests = Arc::clone(collector.requests());
        let (finish, mut finished) = mpsc::channel::<(Snapshot, oneshot::Sender<()>)>(1);
        let mut writer = Writer::new(settings);
        let every = Duration::from_millis(settings.export_interval_ms.max(1));
        let most = Duration::from_millis(settings.export_timeout_ms);
        runtime.spawn(async move {
            let mut ticks = interval_at(Instant::now() + every, every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = ticks.tick() => {
                        if let Some(snapshot) = ask(&asks).await {
                            send(&collector, &mut writer, &snapshot, most).await;
                        }
                    }
                    Some((snapshot, done)) = finished.recv() => {
                        send(&collector, &mut writer, &snapshot, most).await;
                        // Whoever waited may have given up.
                        done.send(()).ok();
                        return;
                    }
                    else => return,
                }
            }
        });
        Ok(Self { finish, requests })
    }

    /// What was said to the collector so far.
    pub fn requests(&self) -> RequestStats {
        self.requests.stats()
    }

    /// Sends the last numbers, within `most`.
    pub async fn finish(self, snapshot: Snapshot, most: Duration) {
        let (done, finished) = oneshot::channel();
        if self.finish.try_send((snapshot, done)).is_ok() {
            // Too late is lost: nobody is left who could send it again.
            timeout(most, finished).await.ok();
        }
    }
}

/// Asks for the numbers; nothing where nobody answers in time.
pub async fn ask(asks: &Asks) -> Option<Snapshot> {
    let (answer, answered) = oneshot::channel();
    asks.try_send(answer).ok()?;
    timeout(PATIENCE, answered).await.ok()?.ok()
}

/// Sends all of `snapshot` within `most`, and lets the writer know what the collector took.
async fn send(collector: &Collector, writer: &mut Writer, snapshot: &Snapshot, most: Duration) {
    let requests = writer.requests(snapshot);
    let sending = async {
        for Request { message, news } in requests {
            match collector.send(message.encode_to_vec().into()).await {
                Verdict::Taken { rejected, message } => {
                    writer.told(news, snapshot.now);
                    if rejected > 0 {
                        let why = message.unwrap_or_else(|| "it does not say why".to_owned());
                        warn!("the collector at {} rejected {rejected} metrics ({why})", collector.endpoint());
                    }
                }
                Verdict::Refused(why) | Verdict::Unreachable(why) => return Some(why),
            }
        }
        None
    };
    let failed = timeout(most, sending).await.unwrap_or_else(|_| Some(format!("no answer within {most:?}")));
    if let Some(why) = failed {
        let place = collector.endpoint();
        warn!("the collector at {place} does not take metrics ({why}); the next interval tries again");
    }
}

// --- Messages ---

/// Writes snapshots as OTLP has them.
#[derive(Debug)]
pub struct Writer {
    temporality: Temporality,
    histograms: Histograms,
    /// Of deltas: what the collector was told last of each series, and when. Law: of series of the last snapshot only.
    known: HashMap<SeriesKey, (Data, Timestamp)>,
}

/// A part of a snapshot.
#[derive(Debug)]
pub struct Request {
    /// What is sent.
    pub message: ExportMetricsServiceRequest,
    /// What whoever takes it knows then: nothing, where sums are cumulative.
    news: Vec<(SeriesKey, Data)>,
}

/// A series: its metric, its resource, its labels.
type SeriesKey = (&'static str, Option<ProcessId>, String);

impl Writer {
    /// A writer that has told nothing.
    pub fn new(settings: &Settings) -> Self {
        let Settings { temporality, histograms, .. } = settings;
        Self { temporality: *temporality, histograms: *histograms, known: HashMap::new() }
    }

    /// The requests for a snapshot, each of a bounded size. Of one that nobody is [`told`](Self::told) to have taken, the
    /// next snapshot's requests say the same again.
    pub fn requests(&mut self, snapshot: &Snapshot) -> Vec<Request> {
        self.forget_others(snapshot);
        // By resource; the agent's own come under none.
        let mut resources: Vec<(Option<ProcessId>, ResourceMetrics)> = Vec::new();
        let (mut requests, mut points, mut news) = (Vec::new(), 0, Vec::new());
        for family in &snapshot.families {
            for point in &family.points {
                let process = point.resource.as_ref().map(|resource| resource.process);
                let Some(data) = self.data(family, point, snapshot, &mut news) else { continue };
                let place = resources.iter().position(|(known, _)| *known == process).unwrap_or_else(|| {
                    resources.push((process, resource(point)));
                    resources.len() - 1
                });
                add(&mut resources[place].1, family, data);
                points += 1;
                if points == MOST_POINTS {
                    requests.push(request(mem::take(&mut resources), mem::take(&mut news)));
                    points = 0;
                }
            }
        }
        if points > 0 {
            requests.push(request(resources, news));
        }
        requests
    }

    /// The collector took a request of the snapshot that was made `at`.
    pub fn told(&mut self, news: Vec<(SeriesKey, Data)>, at: Timestamp) {
        self.known.extend(news.into_iter().map(|(key, data)| (key, (data, at))));
    }

    /// Forgets series that are not in `snapshot`: one that comes again begins anew.
    fn forget_others(&mut self, snapshot: &Snapshot) {
        if self.known.is_empty() {
            return;
        }
        let points = snapshot.families.iter().flat_map(|family| family.points.iter().map(move |point| (family, point)));
        let there: HashSet<_> = points.map(|(family, point)| key(family, point)).collect();
        self.known.retain(|key, _| there.contains(key));
    }

    /// One point as a metric of its own; nothing where nothing is new.
    fn data(
        &mut self,
        family: &Family,
        point: &Point,
        snapshot: &Snapshot,
        news: &mut Vec<(SeriesKey, Data)>,
    ) -> Option<metric::Data> {
        let mut since = point.since;
        let mut data = point.data.clone();
        if self.temporality == Temporality::Delta && family.kind != Kind::Gauge {
            let key = key(family, point);
            // A series that was forgotten and has begun anew since has nothing to do with what was told of the first.
            if let Some((then, at)) = self.known.get(&key).filter(|(_, at)| *at >= point.since) {
                since = *at;
                match (then, &point.data) {
                    (Data::Counter(then), Data::Counter(now)) => data = Data::Counter(now - then),
                    (Data::Histogram(then), Data::Histogram(now)) => {
                        data = Data::Histogram(Box::new(now.since(then)));
                    }
                    _ => {}
                }
            }
            let is_silent = match &data {
                Data::Counter(value) => *value == 0.0,
                Data::Histogram(histogram) => histogram.count() == 0,
                Data::Gauge(_) => false,
            };
            if is_silent {
                // Nobody has to be told that nothing happened until now.
                self.known.insert(key, (point.data.clone(), snapshot.now));
                return None;
            }
            news.push((key, point.data.clone()));
        }
        let nanos = |at| snapshot.wall.unix_nanos(at);
        let attributes = attributes(point.labels.iter().map(|(name, value)| (*name, value)));
        let (start_time_unix_nano, time_unix_nano) = (nanos(since), nanos(snapshot.now));
        let temporality = match self.temporality {
            Temporality::Cumulative => AggregationTemporality::Cumulative,
            Temporality::Delta => AggregationTemporality::Delta,
        };
        let number = |value| NumberDataPoint {
            attributes: attributes.clone(),
            start_time_unix_nano,
            time_unix_nano,
            value: Some(number_data_point::Value::AsDouble(value)),
            ..NumberDataPoint::default()
        };
        Some(match data {
            Data::Gauge(value) => metric::Data::Gauge(Gauge { data_points: vec![number(value)] }),
            Data::Counter(value) => metric::Data::Sum(Sum {
                data_points: vec![number(value)],
                aggregation_temporality: temporality.into(),
                is_monotonic: true,
            }),
            Data::Histogram(histogram) => {
                let exemplars = exemplars(&histogram, snapshot.wall);
                match self.histograms {
                    Histograms::ExplicitBucketHistogram => metric::Data::Histogram(ProtoHistogram {
                        data_points: vec![HistogramDataPoint {
                            attributes,
                            start_time_unix_nano,
                            time_unix_nano,
                            count: histogram.count(),
                            sum: Some(histogram.sum),
                            explicit_bounds: histogram.bounds.to_vec(),
                            bucket_counts: histogram.buckets,
                            exemplars,
                            ..HistogramDataPoint::default()
                        }],
                        aggregation_temporality: temporality.into(),
                    }),
                    Histograms::Exponential => {
                        let (scale, zero_count, offset, counts) = histogram.sketch.parts();
                        metric::Data::ExponentialHistogram(ExponentialHistogram {
                            data_points: vec![ExponentialHistogramDataPoint {
                                attributes,
                                start_time_unix_nano,
                                time_unix_nano,
                                count: histogram.count(),
                                sum: Some(histogram.sum),
                                scale,
                                zero_count,
                                positive: Some(Buckets { offset, bucket_counts: counts.to_vec() }),
                                exemplars,
                                ..ExponentialHistogramDataPoint::default()
                            }],
                            aggregation_temporality: temporality.into(),
                        })
                    }
                }
            }
        })
    }
}

fn exemplars(histogram: &Histogram, wall: WallOffset) -> Vec<ProtoExemplar> {
    let exemplar = |exemplar: &Exemplar| ProtoExemplar {
        filtered_attributes: Vec::new(),
        time_unix_nano: wall.unix_nanos(exemplar.at),
        span_id: exemplar.span.0.to_vec(),
        trace_id: exemplar.trace.0.to_vec(),
        value: Some(exemplar::Value::AsDouble(exemplar.value)),
    };
    histogram.exemplars.iter().flatten().map(exemplar).collect()
}

/// Puts a point into the metric of its family, which follows its other points.
fn add(resource: &mut ResourceMetrics, family: &Family, data: metric::Data) {
    let Some(scope) = resource.scope_metrics.first_mut() else { return };
    let name = name(family);
    if scope.metrics.last().is_none_or(|metric| metric.name != name) {
        let empty = Metric {
            name,
            description: family.help.to_owned(),
            unit: family.unit.to_owned(),
            data: Some(data),
            ..Metric::default()
        };
        scope.metrics.push(empty);
        return;
    }
    match (scope.metrics.last_mut().and_then(|metric| metric.data.as_mut()), data) {
        (Some(metric::Data::Gauge(all)), metric::Data::Gauge(one)) => all.data_points.extend(one.data_points),
        (Some(metric::Data::Sum(all)), metric::Data::Sum(one)) => all.data_points.extend(one.data_points),
        (Some(metric::Data::Histogram(all)), metric::Data::Histogram(one)) => all.data_points.extend(one.data_points),
        (Some(metric::Data::ExponentialHistogram(all)), metric::Data::ExponentialHistogram(one)) => {
            all.data_points.extend(one.data_points);
        }
        // One family has one kind.
        _ => debug_assert!(false, "{} changes its kind", family.name),
    }
}

/// OpenTelemetry's name has dots; one without them is Prometheus's, whose counters end in `_total`.
fn name(family: &Family) -> String {
    match family.kind {
        Kind::Counter if !family.name.contains('.') => format!("{}_total", family.name),
        _ => family.name.to_owned(),
    }
}

fn resource(point: &Point) -> ResourceMetrics {
    let own = [
        Attribute::new(SERVICE_NAME, "spantap"),
        Attribute::new(TELEMETRY_DISTRO_NAME, "spantap"),
        Attribute::new(TELEMETRY_DISTRO_VERSION, env!("CARGO_PKG_VERSION")),
    ];
    let known = point.resource.as_ref().map_or(own.as_slice(), |resource| resource.attributes.as_slice());
    ResourceMetrics {
        resource: Some(ProtoResource {
            attributes: attributes(known.iter().map(|attribute| (&*attribute.key, &attribute.value))),
            ..ProtoResource::default()
        }),
        scope_metrics: vec![ScopeMetrics {
            scope: Some(InstrumentationScope {
                name: "spantap".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..InstrumentationScope::default()
            }),
            metrics: Vec::new(),
            schema_url: SCHEMA_URL.to_owned(),
        }],
        schema_url: SCHEMA_URL.to_owned(),
    }
}

fn request(resources: Vec<(Option<ProcessId>, ResourceMetrics)>, news: Vec<(SeriesKey, Data)>) -> Request {
    let resource_metrics = resources.into_iter().map(|(_, resource)| resource).collect();
    Request { message: ExportMetricsServiceRequest { resource_metrics }, news }
}

fn key(family: &Family, point: &Point) -> SeriesKey {
    (family.name, point.resource.as_ref().map(|resource| resource.process), format!("{:?}", point.labels))
}

fn attributes<'a>(labels: impl Iterator<Item = (&'a str, &'a Value)>) -> Vec<KeyValue> {
    let text = |text: &str| any_value::Value::StringValue(text.to_owned());
    let any = |value| AnyValue { value: Some(value) };
    let labels = labels.map(|(key, value)| {
        let value = match value {
            Value::Static(_) if key == OVERFLOW => any_value::Value::BoolValue(true),
            Value::Static(value) => text(value),
            Value::Text(value) => text(value),
            Value::Shared(value) => text(value),
            Value::Int(number) => any_value::Value::IntValue(*number),
            Value::Share(share) => any_value::Value::DoubleValue(*share),
            Value::Texts(texts) => any_value::Value::ArrayValue(ArrayValue {
                values: texts.iter().map(|value| any(text(value))).collect(),
            }),
        };
        KeyValue { key: key.to_owned(), value: Some(any(value)), ..KeyValue::default() }
    });
    labels.collect()
}

/// Points of one request, a kilobyte each at most: gRPC servers refuse messages above 4 MiB.
const MOST_POINTS: usize = 3_000;

/// How long the loop that has the numbers may take to answer: it comes by every few milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(count: f64, seconds: &[f64], at: u64) -> Snapshot {
        let mut histogram = Histogram::new(&[0.1, 1.0]);
        seconds.iter().for_each(|value| histogram.record(*value));
        let point = |data| Point { resource: None, labels: vec![("a", Value::Int(1))], since: Timestamp(5), data };
        let family = |name, kind, data| Family { name, unit: "", help: "", kind, points: vec![point(data)] };
        Snapshot {
            families: vec![
                family("counted", Kind::Counter, Data::Counter(count)),
                family("took.time", Kind::Histogram, Data::Histogram(Box::new(histogram))),
                family("is", Kind::Gauge, Data::Gauge(count)),
            ],
            now: Timestamp(at),
            wall: WallOffset(1_000),
        }
    }

    /// What is told of the snapshot to a collector that takes it.
    fn taken(writer: &mut Writer, snapshot: &Snapshot) -> Vec<String> {
        let requests = writer.requests(snapshot);
        let said = said(&requests);
        requests.into_iter().for_each(|request| writer.told(request.news, snapshot.now));
        said
    }

    /// `name kind start-time value` of every point.
    fn said(requests: &[Request]) -> Vec<String> {
        let metrics = requests.iter().flat_map(|request| &request.message.resource_metrics);
        let metrics = metrics.flat_map(|resource| &resource.scope_metrics).flat_map(|scope| &scope.metrics);
        let said = metrics.map(|metric| {
            let numbers = |points: &[NumberDataPoint]| {
                let value = |point: &NumberDataPoint| match point.value {
                    Some(number_data_point::Value::AsDouble(value)) => value,
                    _ => f64::NAN,
                };
                points
                    .iter()
                    .map(|p| format!("{}-{} {}", p.start_time_unix_nano, p.time_unix_nano, value(p)))
                    .collect::<String>()
            };
            let data = match metric.data.as_ref().expect("data") {
                metric::Data::Gauge(gauge) => format!("gauge {}", numbers(&gauge.data_points)),
                metric::Data::Sum(sum) => format!("sum{} {}", sum.aggregation_temporality, numbers(&sum.data_points)),
                metric::Data::Histogram(histogram) => {
                    let point = &histogram.data_points[0];
                    format!("histogram{} {:?} {:?}", histogram.aggregation_temporality, point.bucket_counts, point.sum)
                }
                metric::Data::ExponentialHistogram(histogram) => {
                    let point = &histogram.data_points[0];
                    let counts = point.positive.as_ref().map(|buckets| buckets.bucket_counts.iter().sum::<u64>());
                    format!("exponential{} {} {counts:?}", histogram.aggregation_temporality, point.count)
                }
                metric::Data::Summary(_) => "summary".to_owned(),
            };
            format!("{} {data}", metric.name)
        });
        said.collect()
    }

    #[test]
    fn cumulative_says_everything_every_time() {
        let mut writer = Writer::new(&Settings::default());
        for at in [10, 20] {
            assert_eq!(
                taken(&mut writer, &snapshot(3.0, &[0.5], at)),
                [
                    format!("counted_total sum2 1005-{} 3", 1_000 + at),
                    "took.time histogram2 [0, 1, 0] Some(0.5)".to_owned(),
                    format!("is gauge 1005-{} 3", 1_000 + at),
                ]
            );
        }
    }

    #[test]
    fn delta_says_what_is_new() {
        let mut writer = Writer::new(&Settings { temporality: Temporality::Delta, ..Settings::default() });
        assert_eq!(
            taken(&mut writer, &snapshot(3.0, &[0.5], 10)),
            ["counted_total sum1 1005-1010 3", "took.time histogram1 [0, 1, 0] Some(0.5)", "is gauge 1005-1010 3"]
        );
        assert_eq!(
            taken(&mut writer, &snapshot(7.0, &[0.5, 0.05, 9.0], 20)),
            ["counted_total sum1 1010-1020 4", "took.time histogram1 [1, 0, 1] Some(9.05)", "is gauge 1005-1020 7"]
        );
        assert_eq!(taken(&mut writer, &snapshot(7.0, &[0.5, 0.05, 9.0], 30)), ["is gauge 1005-1030 7"]);
    }

    #[test]
    fn what_a_collector_did_not_take_is_in_the_next_delta() {
        let mut writer = Writer::new(&Settings { temporality: Temporality::Delta, ..Settings::default() });
        taken(&mut writer, &snapshot(3.0, &[0.5], 10));
        let lost = said(&writer.requests(&snapshot(7.0, &[0.5, 9.0], 20)));
        assert_eq!(lost[..2], ["counted_total sum1 1010-1020 4", "took.time histogram1 [0, 0, 1] Some(9.0)"]);
        assert_eq!(
            taken(&mut writer, &snapshot(8.0, &[0.5, 9.0], 30))[..2],
            ["counted_total sum1 1010-1030 5", "took.time histogram1 [0, 0, 1] Some(9.0)"]
        );
        // A series that is gone for a while, and one that has begun anew, say all there is.
        let mut anew = snapshot(2.0, &[], 40);
        anew.families.truncate(1);
        anew.families[0].points[0].since = Timestamp(35);
        assert_eq!(taken(&mut writer, &anew), ["counted_total sum1 1035-1040 2"]);
    }

    #[test]
    fn exponential_histograms_are_a_preference() {
        let mut writer = Writer::new(&Settings { histograms: Histograms::Exponential, ..Settings::default() });
        let said = taken(&mut writer, &snapshot(1.0, &[0.5, 0.25, 0.1], 10));
        assert_eq!(said[1], "took.time exponential2 3 Some(3)");
    }

    #[test]
    fn no_request_has_more_points_than_allowed() {
        let mut many = snapshot(1.0, &[], 10);
        let point = many.families[0].points[0].clone();
        many.families.truncate(1);
        many.families[0].points = (0..2 * MOST_POINTS as i64 + 1)
            .map(|n| Point { labels: vec![("a", Value::Int(n))], ..point.clone() })
            .collect();
        assert_eq!(Writer::new(&Settings::default()).requests(&many).len(), 3);
    }
}
