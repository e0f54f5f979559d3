// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One request in the making: spans of many services, each encoded once.
//!
//! In: spans with their resources, and the most bytes that the request may have. Out: an encoded
//! `ExportTraceServiceRequest`, in which every resource stands once. It does not decide when a request is sent.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use prost::bytes::Bytes;

use super::{
    SpanLimits, field,
    protobuf::{Message, framed},
    span,
};
use crate::{
    enrich::{Resource, ServiceSpan},
    table::Table,
    time::WallOffset,
};

/// A request that grows.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// In the order in which they first appeared.
    groups: Vec<Group>,
    /// Law: every index of `groups` is here once.
    places: Table<ResourceKey, usize>,
    spans: usize,
    /// Law: the length of the finished request.
    bytes: usize,
}

/// Spans on their way into batches.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    /// In the order of `fields`.
    spans: Vec<Owner>,
    /// Fields `ScopeSpans.spans`, one behind the other.
    fields: Message,
}

/// Whose an encoded span is.
#[derive(Debug)]
struct Owner {
    resource: Arc<Resource>,
    protocol: &'static str,
    /// Where its field ends in `Encoded::fields`.
    end: usize,
}

/// One of the encoded spans.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    resource: &'a Arc<Resource>,
    protocol: &'static str,
    field: &'a [u8],
}

/// The request would have been too large.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Full;

impl Encoded {
    /// Encodes `spans`.
    pub(super) fn new(spans: &[ServiceSpan], offset: WallOffset, limits: &SpanLimits) -> Self {
        let mut encoded =
            Self { spans: Vec::with_capacity(spans.len()), fields: Message::with_capacity(spans.len() * TYPICAL_SPAN) };
        for ServiceSpan { span, resource, .. } in spans {
            encoded.fields.long_message(field::scope_spans::SPANS, |out| span::write_span(span, offset, limits, out));
            let end = encoded.fields.len();
            encoded.spans.push(Owner { resource: Arc::clone(resource), protocol: span.protocol, end });
        }
        encoded
    }

    /// The spans, in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Piece<'_>> {
        let mut start = 0;
        self.spans.iter().map(move |Owner { resource, protocol, end }| {
            let field = &self.fields.as_bytes()[start..*end];
            start = *end;
            Piece { resource, protocol, field }
        })
    }
}

impl Batch {
    /// Takes `span`, unless the request would have more than `most` bytes with it. An empty batch takes any.
    pub(super) fn add(&mut self, span: Piece<'_>, most: usize) -> Result<(), Full> {
        let key = ResourceKey(Arc::clone(span.resource));
        let place = self.places.get(&key).copied();
        let mut fresh = None;
        let group = match place {
            Some(place) => &mut self.groups[place],
            None => fresh.insert(Group::new(span.resource)),
        };
        let without = if place.is_some() { framed(group.length()) } else { 0 };
        let bytes = self.bytes - without + framed(group.length_with(span.protocol, span.field.len()));
        if bytes > most && self.spans > 0 {
            return Err(Full);
        }
        group.scope(span.protocol).append(span.field);
        if let Some(group) = fresh {
            self.places.insert(key, self.groups.len());
            self.groups.push(group);
        }
        self.spans += 1;
        self.bytes = bytes;
        Ok(())
    }

    /// How many spans it has.
    pub(super) fn spans(&self) -> usize {
        self.spans
    }

    /// The request, encoded.
    pub(super) fn finish(self) -> Bytes {
        let mut request = Message::with_capacity(self.bytes);
        for group in self.groups {
            request.begin(field::request::RESOURCE_SPANS, group.length());
            request.append(group.head.as_bytes());
            for (_, scope) in group.scopes {
                request.begin(field::resource_spans::SCOPE_SPANS, scope.len());
                request.append(scope.as_bytes());
            }
        }
        debug_assert_eq!(request.len(), self.bytes);
        request.finish().into()
    }
}

// --- Groups ---

/// A `ResourceSpans`.
#[derive(Debug)]
struct Group {
    /// All of its fields but the scopes.
    head: Message,
    /// The `ScopeSpans` by their protocols: a handful, most often one.
    scopes: Vec<(&'static str, Message)>,
}

impl Group {
    fn new(resource: &Resource) -> Self {
        let mut head = Message::default();
        span::write_resource(resource, &mut head);
        Self { head, scopes: Vec::new() }
    }

    fn length(&self) -> usize {
        self.head.len() + self.scopes.iter().map(|(_, scope)| framed(scope.len())).sum::<usize>()
    }

    /// The length it would have with `more` bytes of `protocol`.
    fn length_with(&self, protocol: &'static str, more: usize) -> usize {
        let scope = self.scopes.iter().find(|(known, _)| *known == protocol).map(|(_, scope)| scope.len());
        let without = scope.map_or(0, framed);
        self.length() - without + framed(scope.unwrap_or_else(|| empty_scope(protocol).len()) + more)
    }

    /// The scope of `protocol`, which exists from now on.
    fn scope(&mut self, protocol: &'static str) -> &mut Message {
        let place = self.scopes.iter().position(|(known, _)| *known == protocol).unwrap_or_else(|| {
            self.scopes.push((protocol, empty_scope(protocol)));
            self.scopes.len() - 1
        });
        &mut self.scopes[place].1
    }
}

fn empty_scope(protocol: &str) -> Message {
    let mut scope = Message::default();
    span::write_scope(protocol, &mut scope);
    scope
}

/// A resource as the key of a table: the same instance by value, however often it became known. A process that
/// executes another program has two of them for a while.
#[derive(Debug)]
struct ResourceKey(Arc<Resource>);

impl PartialEq for ResourceKey {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Eq for ResourceKey {}

impl Hash for ResourceKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.process.hash(state);
    }
}

/// Bytes of a span of HTTP with a dozen attributes: 400 to 600.
const TYPICAL_SPAN: usize = 512;

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use proptest::{collection::vec, prelude::*};
    use prost::Message as _;

    use super::*;
    use crate::{attribute::Attribute, process::ProcessId, trace::Span};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_request_is_what_was_put_in_and_never_larger_than_allowed(
            spans in vec((0..4_u32, prop_oneof![Just("http"), Just("redis")], 0..400_usize), 1..40),
            most in 0..8000_usize,
        ) {
            let mut batch = Batch::default();
            let mut taken = Vec::new();
            for (service, protocol, size) in spans {
                let before = batch.bytes;
                let encoded = Encoded::new(&[span(service, protocol, size)], WallOffset(0), &SpanLimits::default());
                match batch.add(encoded.iter().next().expect("one went in"), most) {
                    Ok(()) => taken.push((format!("service-{service}"), format!("spantap/{protocol}"), size)),
                    Err(_) => prop_assert_eq!(batch.bytes, before, "a refusal changes nothing"),
                }
            }
            prop_assert_eq!(batch.spans(), taken.len());
            let (bytes, services) = (batch.bytes, batch.groups.len());
            let request = batch.finish();
            prop_assert_eq!(request.len(), bytes, "the size is exact");
            prop_assert!(request.len() <= most || taken.len() == 1);

            let request = ExportTraceServiceRequest::decode(request).expect("it is one");
            prop_assert_eq!(request.resource_spans.len(), services);
            let mut said = said(&request);
            let scopes = request.resource_spans.iter().map(|resource| resource.scope_spans.len()).sum::<usize>();
            let mut distinct: Vec<_> = said.iter().map(|(service, scope, _)| (service.clone(), scope.clone())).collect();
            distinct.sort();
            distinct.dedup();
            prop_assert_eq!(scopes, distinct.len(), "each resource and scope stands once");
            said.sort();
            taken.sort();
            prop_assert_eq!(said, taken);
        }
    }

    #[test]
    fn a_renamed_process_is_another_resource_and_an_equal_one_is_not() {
        let mut batch = Batch::default();
        let mut renamed = span(1, "http", 0);
        renamed.resource = Arc::new(Resource { service: "renamed".into(), ..Resource::clone(&renamed.resource) });
        let encoded =
            Encoded::new(&[span(1, "http", 0), renamed, span(1, "http", 0)], WallOffset(0), &SpanLimits::default());
        for span in encoded.iter() {
            batch.add(span, usize::MAX).expect("there is room");
        }
        assert_eq!((batch.groups.len(), batch.spans()), (2, 3));
    }

    /// Service, scope and size of every span.
    fn said(request: &ExportTraceServiceRequest) -> Vec<(String, String, usize)> {
        let mut said = Vec::new();
        for resource in &request.resource_spans {
            let service = format!("{:?}", resource.resource);
            let service = (0..4).map(|n| format!("service-{n}")).find(|name| service.contains(name));
            for scope in &resource.scope_spans {
                for span in &scope.spans {
                    let scope = scope.scope.as_ref().map(|scope| scope.name.clone()).unwrap_or_default();
                    said.push((service.clone().unwrap_or_default(), scope, span.name.len()));
                }
            }
        }
        said
    }

    fn span(service: u32, protocol: &'static str, size: usize) -> ServiceSpan {
        let name = format!("service-{service}");
        let resource = Arc::new(Resource {
            process: ProcessId { pid: service, started: 1 },
            service: name.clone().into(),
            instrumented: false,
            attributes: vec![Attribute::new("service.name", name)],
        });
        let span = Span { name: "n".repeat(size).into(), protocol, ..Span::blank() };
        ServiceSpan { span, resource, target: None }
    }
}
