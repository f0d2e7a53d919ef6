//! A collector of traces: a gRPC server made of the protocol's own types.

use std::{net::SocketAddr, time::Duration};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{ResourceSpans, Span},
};
use tokio::{net::TcpStream, sync::mpsc, task::AbortHandle};

use crate::{eventually, free_port};

/// How long its start may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Takes spans by OTLP over gRPC until it is dropped.
pub struct Collector {
    address: SocketAddr,
    received: mpsc::UnboundedReceiver<ExportTraceServiceRequest>,
    serving: AbortHandle,
}

struct Receiver(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.0
            .send(request.into_inner())
            .map_err(|_| tonic::Status::aborted("nobody listens"))?;
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Starts one on a port of its own, and waits until it takes connections.
    pub async fn start() -> Self {
        let (sender, received) = mpsc::unbounded_channel();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(Receiver(sender)));
        let serving = tokio::spawn(server.serve(address)).abort_handle();
        eventually(PATIENCE, || TcpStream::connect(address)).await;
        Self {
            address,
            received,
            serving,
        }
    }

    /// Where spans are sent.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What has been received since it was asked last, by the resources that sent it.
    pub fn received(&mut self) -> Vec<ResourceSpans> {
        std::iter::from_fn(|| self.received.try_recv().ok())
            .flat_map(|request| request.resource_spans)
            .collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The spans of resources.
pub fn spans_of(resources: Vec<ResourceSpans>) -> Vec<Span> {
    let scopes = (resources.into_iter()).flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

/// The first span of a name.
///
/// # Panics
/// If there is none.
pub fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    spans
        .iter()
        .find(|span| span.name == name)
        .unwrap_or_else(|| panic!("no span {name} in {spans:#?}"))
}

/// An attribute's value as text; `None` where it is not there.
///
/// # Panics
/// If it is neither text nor a whole number.
pub fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{key} is {other:?}"),
    }
}

/// Bytes of an id as they are written.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
