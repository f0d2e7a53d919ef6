//! The services behind the gateway and the endpoints that each has at the moment.
//!
//! Requests only ever read an immutable list; whoever learns of endpoints puts a new one in its place.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;

/// A service that requests are passed on to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    /// Sign-up, sessions, profiles.
    Users,
    /// Coupon campaigns and time sales.
    Promotions,
    /// Stays, room types, search.
    Stays,
    /// What was booked.
    Booking,
    /// Orders, from being placed to their end.
    Orders,
    /// Payments, and what the payment gateway tells of them.
    Payments,
}

impl Service {
    /// All of them.
    pub(crate) const ALL: [Self; 6] = [
        Self::Users,
        Self::Promotions,
        Self::Stays,
        Self::Booking,
        Self::Orders,
        Self::Payments,
    ];

    /// The name of its Kubernetes Service, and of it in settings and metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Users => "quokka-users",
            Self::Promotions => "quokka-promotions",
            Self::Stays => "quokka-stays",
            Self::Booking => "quokka-booking",
            Self::Orders => "quokka-orders",
            Self::Payments => "quokka-payments",
        }
    }

    /// The service of that name.
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.name() == name)
    }
}

/// Every service's endpoints.
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    services: [Endpoints; Service::ALL.len()],
}

impl Upstreams {
    /// The endpoints of `service`.
    pub(crate) fn of(&self, service: Service) -> &Endpoints {
        &self.services[service as usize]
    }
}

/// The endpoints of one service.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    current: ArcSwap<Vec<Arc<Endpoint>>>,
}

/// One process of a service.
#[derive(Debug)]
pub(crate) struct Endpoint {
    address: SocketAddr,
    in_flight: AtomicUsize,
}

impl Endpoints {
    /// From now on these are the endpoints. What is known of those that stay is kept.
    pub(crate) fn replace(&self, addresses: &BTreeSet<SocketAddr>) {
        let before = self.current.load();
        let after = addresses
            .iter()
            .map(|&address| {
                let known = before.iter().find(|endpoint| endpoint.address == address);
                known.map_or_else(
                    || {
                        Arc::new(Endpoint {
                            address,
                            in_flight: AtomicUsize::new(0),
                        })
                    },
                    Arc::clone,
                )
            })
            .collect();
        self.current.store(Arc::new(after));
    }

    /// The addresses at the moment.
    pub(crate) fn addresses(&self) -> BTreeSet<SocketAddr> {
        self.current
            .load()
            .iter()
            .map(|endpoint| endpoint.address)
            .collect()
    }

    /// Chooses where a request goes: of two endpoints taken at random, the one with fewer requests in flight. Any but
    /// `avoid`, unless there is nothing else. `None` when there is no endpoint.
    pub(crate) fn choose(&self, avoid: Option<SocketAddr>) -> Option<InUse> {
        let endpoints = self.current.load();
        let count = endpoints.len();
        let chosen = match count {
            0 => return None,
            1 => &endpoints[0],
            _ => {
                let random: u64 = rand::random();
                let first = usize::try_from(random >> 32).unwrap_or_default() % count;
                let step = usize::try_from(random & 0xffff_ffff).unwrap_or_default() % (count - 1);
                let (one, other) = (&endpoints[first], &endpoints[(first + 1 + step) % count]);
                if avoid == Some(one.address) {
                    other
                } else if avoid == Some(other.address) || one.in_flight() <= other.in_flight() {
                    one
                } else {
                    other
                }
            }
        };
        Some(InUse::new(chosen))
    }
}

impl Endpoint {
    fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

/// An endpoint that a request is being passed on to; counted as in flight until dropped.
#[derive(Debug)]
pub(crate) struct InUse {
    endpoint: Arc<Endpoint>,
}

impl InUse {
    fn new(endpoint: &Arc<Endpoint>) -> Self {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Self {
            endpoint: Arc::clone(endpoint),
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.address
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn addresses(ports: impl IntoIterator<Item = u16>) -> BTreeSet<SocketAddr> {
        ports
            .into_iter()
            .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
            .collect()
    }

    #[test]
    fn without_endpoints_there_is_nothing_to_choose() {
        assert!(Endpoints::default().choose(None).is_none());
    }

    #[test]
    fn the_only_endpoint_is_chosen_even_if_it_should_be_avoided() {
        let endpoints = Endpoints::default();
        endpoints.replace(&addresses([1]));
        let first = endpoints.choose(None).unwrap();
        assert_eq!(
            endpoints.choose(Some(first.address())).unwrap().address(),
            first.address()
        );
    }

    #[test]
    fn requests_in_flight_survive_a_change_of_the_list() {
        let endpoints = Endpoints::default();
        endpoints.replace(&addresses([1]));
        let held = endpoints.choose(None).unwrap();
        endpoints.replace(&addresses([1, 2]));
        for _ in 0..20 {
            assert_eq!(
                endpoints.choose(None).unwrap().address().port(),
                2,
                "the idle one is chosen of two"
            );
        }
        drop(held);
        endpoints.replace(&addresses([2]));
        assert_eq!(endpoints.addresses(), addresses([2]));
    }

    proptest! {
        #[test]
        fn held_requests_spread_and_the_avoided_is_never_chosen(count in 2_u16..8, requests in 1_usize..200, avoid in 0_u16..8) {
            let endpoints = Endpoints::default();
            endpoints.replace(&addresses(1..=count));
            let avoid = SocketAddr::from(([127, 0, 0, 1], 1 + avoid % count));
            let held: Vec<_> = (0..requests).map(|_| endpoints.choose(Some(avoid)).unwrap()).collect();
            prop_assert!(held.iter().all(|in_use| in_use.address() != avoid));
            let counted: usize = endpoints.current.load().iter().map(|endpoint| endpoint.in_flight()).sum();
            prop_assert_eq!(counted, requests);
            drop(held);
            prop_assert!(endpoints.current.load().iter().all(|endpoint| endpoint.in_flight() == 0));
        }
    }
}
