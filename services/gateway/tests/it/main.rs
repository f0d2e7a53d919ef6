//! The gateway as its clients and the services behind it see it: the real binary, real sockets, and for discovery a
//! real kube-apiserver.
#![allow(clippy::unwrap_used)]

mod discovery;
mod failover;
mod journey;
mod lifecycle;
mod limits;
mod passing;
mod pipelining;
mod reference;
mod refusing;
mod support;
mod tracing;
