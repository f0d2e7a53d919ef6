//! Keeps the endpoints of every service as Kubernetes has them, by watching EndpointSlices.
//!
//! It never takes endpoints away because the Kubernetes API is out of reach: the last that were heard of stay.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use chassis::health::Dependency;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::{
    Api, Client, ResourceExt as _,
    runtime::{WatchStreamExt as _, reflector, watcher},
};

use crate::{
    metrics,
    upstreams::{Service, Upstreams},
};

/// The label by which a slice names its Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// The port of a Service that takes requests, when it has more than one.
const PORT_NAME: &str = "http";

/// Watches for ever. `synced` is ready once the first list is there; a watch that breaks later starts again by itself
/// and leaves the endpoints as they are.
pub(crate) async fn watch(
    client: Client,
    namespace: String,
    upstreams: Arc<Upstreams>,
    synced: Dependency,
) {
    let names: Vec<_> = Service::ALL.map(Service::name).to_vec();
    let config =
        watcher::Config::default().labels(&format!("{SERVICE_LABEL} in ({})", names.join(",")));
    let (store, writer) = reflector::store();
    let mut events = reflector(
        writer,
        watcher(Api::<EndpointSlice>::namespaced(client, &namespace), config),
    )
    .default_backoff()
    .boxed();
    loop {
        match events.try_next().await {
            Ok(Some(watcher::Event::Init | watcher::Event::InitApply(_))) => {}
            Ok(Some(_)) => {
                apply(&store.state(), &upstreams);
                synced.set_ready();
            }
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "watching EndpointSlices was interrupted; it starts again")
            }
        }
    }
}

fn apply(slices: &[Arc<EndpointSlice>], upstreams: &Upstreams) {
    let found = usable(slices.iter().map(AsRef::as_ref));
    let none = BTreeSet::new();
    for service in Service::ALL {
        let now = found.get(service.name()).unwrap_or(&none);
        let endpoints = upstreams.of(service);
        if endpoints.addresses() != *now {
            tracing::info!(service = service.name(), endpoints = ?now, "endpoints changed");
            endpoints.replace(now);
        }
        metrics::endpoints(service, now.len());
    }
}

/// The addresses of each service that can take requests: those that are ready; where there is none, those that are
/// terminating but still serve, as kube-proxy does it.
fn usable<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
) -> BTreeMap<String, BTreeSet<SocketAddr>> {
    let mut ready: BTreeMap<String, BTreeSet<SocketAddr>> = BTreeMap::new();
    let mut leaving: BTreeMap<String, BTreeSet<SocketAddr>> = BTreeMap::new();
    for slice in slices {
        let (Some(service), Some(port)) = (slice.labels().get(SERVICE_LABEL), port(slice)) else {
            continue;
        };
        for endpoint in &slice.endpoints {
            let list = match state(endpoint) {
                State::Ready => &mut ready,
                State::Leaving => &mut leaving,
                State::Unusable => continue,
            };
            // All addresses of one endpoint mean the same process; Kubernetes says to use the first.
            let address = endpoint
                .addresses
                .first()
                .and_then(|address| address.parse::<IpAddr>().ok());
            list.entry(service.clone())
                .or_default()
                .extend(address.map(|ip| SocketAddr::new(ip, port)));
        }
    }
    for (service, addresses) in leaving {
        let ready = ready.entry(service).or_default();
        if ready.is_empty() {
            *ready = addresses;
        }
    }
    ready
}

fn port(slice: &EndpointSlice) -> Option<u16> {
    let ports = slice.ports.as_deref().unwrap_or_default();
    let only = match ports {
        [only] => Some(only),
        _ => None,
    };
    let named = ports
        .iter()
        .find(|port| port.name.as_deref() == Some(PORT_NAME));
    let chosen = named.or(only)?;
    chosen.port.and_then(|port| u16::try_from(port).ok())
}

enum State {
    Ready,
    Leaving,
    Unusable,
}

/// A condition that isn't there means what the API's reference says: ready yes, serving as ready, terminating no.
fn state(endpoint: &Endpoint) -> State {
    let Some(conditions) = &endpoint.conditions else {
        return State::Ready;
    };
    let ready = conditions.ready.unwrap_or(true);
    let serving = conditions.serving.unwrap_or(ready);
    match conditions.terminating.unwrap_or(false) {
        false if ready => State::Ready,
        true if serving => State::Leaving,
        _ => State::Unusable,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use k8s_openapi::api::discovery::v1::{EndpointConditions, EndpointPort};

    use super::*;

    fn slice(
        service: &str,
        ports: &[(Option<&str>, i32)],
        endpoints: Vec<Endpoint>,
    ) -> EndpointSlice {
        let mut slice = EndpointSlice {
            address_type: "IPv4".to_owned(),
            endpoints,
            ..EndpointSlice::default()
        };
        slice
            .labels_mut()
            .insert(SERVICE_LABEL.to_owned(), service.to_owned());
        slice.ports = Some(
            ports
                .iter()
                .map(|(name, port)| EndpointPort {
                    name: name.map(str::to_owned),
                    port: Some(*port),
                    ..EndpointPort::default()
                })
                .collect(),
        );
        slice
    }

    fn endpoint(
        address: &str,
        ready: Option<bool>,
        serving: Option<bool>,
        terminating: Option<bool>,
    ) -> Endpoint {
        Endpoint {
            addresses: vec![address.to_owned()],
            conditions: Some(EndpointConditions {
                ready,
                serving,
                terminating,
            }),
            ..Endpoint::default()
        }
    }

    fn found(slices: &[EndpointSlice], service: &str) -> Vec<String> {
        usable(slices.iter())
            .remove(service)
            .unwrap_or_default()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn ready_endpoints_of_all_slices_are_used_and_the_others_are_not() {
        let slices = [
            slice(
                "a",
                &[(Some("http"), 8080), (Some("ops"), 9090)],
                vec![
                    endpoint("10.0.0.1", Some(true), Some(true), Some(false)),
                    endpoint("10.0.0.2", Some(false), Some(false), Some(false)),
                    endpoint("10.0.0.3", Some(false), Some(true), Some(true)),
                    endpoint("10.0.0.4", None, None, None),
                ],
            ),
            slice(
                "a",
                &[(None, 8081)],
                vec![Endpoint {
                    addresses: vec!["fd00::1".to_owned()],
                    ..Endpoint::default()
                }],
            ),
            slice(
                "b",
                &[(None, 1)],
                vec![endpoint("10.0.0.9", None, None, None)],
            ),
        ];
        assert_eq!(
            found(&slices, "a"),
            ["10.0.0.1:8080", "10.0.0.4:8080", "[fd00::1]:8081"]
        );
        assert_eq!(found(&slices, "b"), ["10.0.0.9:1"]);
    }

    #[test]
    fn when_none_is_ready_those_that_leave_but_still_serve_are_used() {
        let slices = [slice(
            "a",
            &[(None, 8080)],
            vec![
                endpoint("10.0.0.1", Some(false), Some(true), Some(true)),
                endpoint("10.0.0.2", Some(false), Some(false), Some(true)),
                endpoint("10.0.0.3", Some(false), Some(false), None),
            ],
        )];
        assert_eq!(found(&slices, "a"), ["10.0.0.1:8080"]);
    }

    #[test]
    fn a_slice_whose_port_is_not_clear_is_left_out() {
        let some = || vec![endpoint("10.0.0.1", None, None, None)];
        assert!(found(&[slice("a", &[], some())], "a").is_empty());
        assert!(
            found(
                &[slice("a", &[(Some("x"), 1), (Some("y"), 2)], some())],
                "a"
            )
            .is_empty()
        );
        assert!(found(&[slice("a", &[(None, 70_000)], some())], "a").is_empty());
    }
}
